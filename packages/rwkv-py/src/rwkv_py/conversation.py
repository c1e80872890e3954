"""A conversation of any kind -> the text that a model goes on with, and how its answer is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

from ._arguments import as_iterable, as_text
from .answer_reader import AnswerReader
from .chat_format import ChatFormat, Message, clean
from .errors import InvalidArgumentError, TokenOutOfRangeError
from .generation import GenerationOptions, ending
from .grammar import Grammar, GrammarOptions, grammar_of, json_rule
from .model import Model
from .think_text import Place, held_back, without_thinking
from .tokenizer import Tokenizer
from .tools import CALL_AFTER, Tool, call_before, opening_of, write_calls, write_tools

__all__ = ["Written", "answer_options", "end_tokens", "write_conversation", "write_history"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A conversation as a model reads it, up to where its answer begins.

    Attributes:
        parts: the text of each message; together they are the history. A message whose text stands
            with that of the next has "".
        opening: what the answer is made to begin with; it is not part of a later history.
        options: of `Session.stream` and `Engine.submit`: where the answer ends, and what it must
            fit.
        place: where the answer begins, as for `AnswerReader`.
        tools: the names of the tools that it may call.
        must_call: whether it has to be a call.
        told: a digest of what it was told of tools.
    """

    parts: tuple[str, ...]
    opening: str
    options: GenerationOptions
    place: Place
    tools: tuple[str, ...]
    must_call: bool
    told: str

    @property
    def prompt(self) -> str:
        """All that is read."""
        return "".join(self.parts) + self.opening

    def reader(self) -> AnswerReader:
        """Return what takes the answer apart: one for each answer."""
        return AnswerReader(
            self.opening, place=self.place, tools=self.tools, only_calls=self.must_call
        )


def write_conversation(
    chat_format: ChatFormat,
    messages: Iterable[Message],
    *,
    tools: Iterable[Tool] = (),
    tool_choice: str = "auto",
    parallel_tool_calls: bool = True,
    after: str | None = None,
    **fitting: Unpack[GrammarOptions],
) -> Written:
    r"""Write a conversation in a format.

    Messages may come in any order: what several say one after the other is put together. Reasoning
    in answers is left out. If the last message is the assistant's, the answer goes on from there.

    Args:
        chat_format: the format.
        messages: at least one.
        tools: what the model may call.
        tool_choice: "auto", "none", "required", or the name of the tool to call.
        parallel_tool_calls: whether it may make several calls at once, if it has to make one.
        after: `Written.told` of what was read before, if these are not the first messages: of tools
            that it knows nothing more is said.
        **fitting: json_schema, regex or grammar: what the answer must fit, without the reasoning
            before it. Of a schema or an expression calls are free, unless `tool_choice` says no.

    Raises:
        InvalidArgumentError: there is no message, or one or something else is not as it should be.

    >>> hello = Message(role="user", content="Hello.")
    >>> write_conversation(ChatFormat.named("g1-think"), [hello]).prompt
    'User: Hello.\n\nAssistant: <think'
    """
    said = list(as_iterable("messages", messages, "messages"))
    known = list(as_iterable("tools", tools, "tools"))
    allowed = _chosen(known, tool_choice)
    must_call = tool_choice not in ("auto", "none")
    writer = _Writer(chat_format, said)
    told = writer.write(_about(chat_format, allowed, must_call), after)
    opening = chat_format.opening if writer.place == "begin" else ""
    opened = must_call and writer.place == "begin" and "<think" not in opening
    if opened:
        opening = (opening or chat_format.lead) + opening_of(chat_format.tools)
    grammar = grammar_of(**fitting)
    if must_call:
        if grammar is not None:
            raise InvalidArgumentError(
                f"tool_choice: expected auto or none with {grammar.option}, got {tool_choice}"
            )
        if writer.begun:
            raise InvalidArgumentError(
                f"tool_choice: expected auto or none to go on with an answer, got {tool_choice}"
            )
        rules = _call_rules(allowed, chat_format, opened, parallel_tool_calls)
        grammar = Grammar("tools", f"start: calls\n{rules}")
    elif grammar is not None and allowed and grammar.option != "grammar":
        rules = _call_rules(allowed, chat_format, False, parallel_tool_calls)
        answer = grammar.lark.replace("start:", "said:", 1)
        grammar = dataclasses.replace(grammar, lark=f"start: said | calls\n{answer}{rules}")
    options = answer_options(
        chat_format, grammar, opening=opening, place=writer.place, begun=writer.begun
    )
    return Written(
        parts=tuple(writer.parts),
        opening=opening,
        options=options,
        place=writer.place,
        tools=tuple(tool.name for tool in allowed),
        must_call=must_call,
        told=told,
    )


def write_history(
    chat_format: ChatFormat,
    messages: Iterable[Message],
    *,
    tools: Iterable[Tool] = (),
    tool_choice: str = "auto",
    after: str | None = None,
) -> tuple[str, str]:
    """Write messages that are over, as they stand in a conversation that goes on.

    Args:
        chat_format: the format.
        messages: at least one; the last is an answer, or a system prompt.
        tools: what the model may call.
        tool_choice: as for `write_conversation`.
        after: the same.

    Returns:
        The text, and `Written.told`.

    Raises:
        InvalidArgumentError: as `write_conversation`; or the user has the last word.
    """
    allowed = _chosen(list(as_iterable("tools", tools, "tools")), tool_choice)
    about = _about(chat_format, allowed, tool_choice not in ("auto", "none"))
    writer = _Writer(chat_format, list(as_iterable("messages", messages, "messages")))
    told = writer.write(about, after, is_over=True)
    return "".join(writer.parts), told


def _about(chat_format: ChatFormat, tools: Sequence[Tool], must_call: bool) -> str:
    return write_tools(tools, chat_format.tools, must_call=must_call) if tools else ""


def answer_options(
    chat_format: ChatFormat,
    grammar: Grammar | None,
    *,
    opening: str,
    place: Place = "begin",
    begun: str = "",
) -> GenerationOptions:
    """Return by what an answer in a format ends, and what it must fit.

    Args:
        chat_format: the format.
        grammar: what the answer must fit, without reasoning before it; None if it is free.
        opening: what the answer is made to begin with.
        place: where it begins.
        begun: what is there of it already, if it is gone on with.
    """
    if grammar is None:
        return {"stop": chat_format.stop}
    before = ""
    tail = opening.rpartition("<think")[2]
    if place == "thinking" or ("<think" in opening and "</think>" not in opening):
        before = _rest_of_thinking(tail, at_mark="<think" in opening and not tail)
    elif place == "begin" and not opening and chat_format.lead:
        before = f"before: {json.dumps(chat_format.lead)}?\n"
    begun = begun if place == "answer" else ""
    grammar = dataclasses.replace(grammar, before=before, begun=begun)
    # What fits may hold what usually ends an answer, and then it may not end there.
    return {"stop": [chat_format.next_turn], "grammar": grammar}


def _rest_of_thinking(tail: str, *, at_mark: bool) -> str:
    """Return rules in Lark for what is to come of reasoning.

    Args:
        tail: what is there of it, after the beginning of its mark.
        at_mark: the end of that mark is still to come.
    """
    _, half = held_back(tail, ["</think>"])
    if half == "</think":  # a format that skips the reasoning
        return "before: />[\\n ]{0,2}/\n"
    thought = ">" * at_mark + "(?s:.)*<\\/think>"
    if half:
        rest = "<\\/think>"[len(half) + ("/" in half) :]
        thought = f"({rest}|{thought})"
    return f"before: think /[\\n ]{{0,2}}/\nthink[lazy]: /{thought}/\n"


def end_tokens(model: Model, tokenizer: Tokenizer, chat_format: ChatFormat) -> list[int]:
    """Return the tokens that end an answer: those that end a text, and the file's end of a turn.

    In World files the latter is an empty line. Where only what follows it ends an answer, as in the
    G1 formats, an answer may hold it.
    """
    tokens = ending(model.end_tokens, tokenizer)
    token = model.info.end_of_turn
    if token is None:
        return tokens
    try:
        text = tokenizer.decode([token])
    except TokenOutOfRangeError:  # of another tokenizer than the file's
        text = ""
    if not (text and any(stop != text and stop.startswith(text) for stop in chat_format.stop)):
        tokens.append(token)
    return tokens


def _chosen(tools: Sequence[Tool], tool_choice: str) -> list[Tool]:
    """Return the tools that may be called."""
    for i, tool in enumerate(tools):
        if not isinstance(tool, Tool):
            raise InvalidArgumentError(
                f"tools[{i}]: expected a Tool, got {type(tool).__name__}: {tool!r:.60}"
            )
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgumentError(f"tools: expected each name once, got {twice} again")
    as_text("tool_choice", tool_choice)
    if tool_choice == "none":
        return []
    if tool_choice == "auto" or (tool_choice == "required" and tools):
        return list(tools)
    if tool_choice not in names:
        choices = ", ".join(["auto", "none", *(["required"] if tools else []), *names])
        raise InvalidArgumentError(
            f"tool_choice: expected one of {choices}, got {tool_choice[:140]!r}"
        )
    return [tool for tool in tools if tool.name == tool_choice]


def _call_rules(tools: Sequence[Tool], chat_format: ChatFormat, opened: bool, several: bool) -> str:
    """Return rules in Lark, of which `calls` is at least one call as we write them."""
    opening = json.dumps(opening_of(chat_format.tools))
    after = json.dumps(CALL_AFTER)
    lines = [
        f"calls: {'' if opened else opening + ' '}call{' more*' * several}",
        f'more: "\\n" {opening} call',
        "call: " + " | ".join(f"call{i}" for i in range(len(tools))),
    ]
    for i, tool in enumerate(tools):
        lines.append(f"call{i}: {json.dumps(call_before(tool.name))} arguments{i} {after}")
        schema = json_rule(tool.schema, f"tools[{i}].parameters", lenient=True)
        lines.append(f"arguments{i}: {schema}")
    return "\n".join(lines) + "\n"


class _Writer:
    """Writes messages, each after the other.

    Attributes:
        parts: their texts.
        place: where the answer begins, as for `AnswerReader`.
        begun: what is there of it already.
    """

    def __init__(self, chat_format: ChatFormat, messages: Sequence[Message]):
        _check(messages)
        self._format = chat_format
        self._messages = messages
        self._waiting: list[Message] = []  # for the turn of the user that they are in
        self._is_named = False  # the assistant's name is the last thing that was written
        self._follows = False  # these are not the first messages
        self.parts: list[str] = []
        self.place: Place = "begin"
        self.begun = ""

    def write(self, about_tools: str, after: str | None, *, is_over: bool = False) -> str:
        """Write all; what is said about tools stands in the system prompt.

        Args:
            about_tools: that.
            after: `Written.told` of what was read before, if anything was.
            is_over: whether the last answer is whole.

        Returns:
            `Written.told`.
        """
        told = hashlib.sha256(about_tools.encode("utf-8", "replace")).hexdigest()
        if told == after or (after is not None and not about_tools):
            about_tools, told = "", after
        self._follows = after is not None
        messages = list(self._messages)
        n_first = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        first = [message.content for message in messages[:n_first]]
        self.parts += [""] * n_first
        begin = self._system("\n".join(each for each in [*first, about_tools] if clean(each)))
        for i, message in enumerate(messages[n_first:], n_first):
            text = ""
            if message.role == "assistant":
                is_last = i == len(messages) - 1 and not is_over
                text = self._assistant(message, is_last=is_last)
            else:
                text = self._user_or_later_system(message, messages[i + 1 : i + 2])
            self.parts.append(text)
        if n_first:
            self.parts[n_first - 1] = begin
        else:
            self.parts[0] = begin + self.parts[0]
        if is_over:
            if self._waiting or self._is_named:
                raise InvalidArgumentError(
                    "messages: expected an answer of the assistant last, or a system prompt that "
                    f"the format {self._format.name} has a place for, got another"
                )
            return told
        if self._waiting:
            self.parts[-1] += self._turn()
        if not self._is_named and self.place == "begin":
            self.parts[-1] += self._format.name_of_assistant.lstrip()
        return told

    def _system(self, text: str) -> str:
        if text and not self._format.system:  # the user says it
            self._waiting.append(Message(role="user", content=text))
            text = ""
        return "" if self._follows and not text else self._format.write_system(text)

    def _user_or_later_system(self, message: Message, following: Sequence[Message]) -> str:
        if message.role == "system" and not self._waiting and self._format.system:
            self._is_named = False
            return self._format.write_system(message.content) if clean(message.content) else ""
        self._waiting.append(message)
        return self._turn() if not following or following[0].role == "assistant" else ""

    def _turn(self) -> str:
        """Return the turn of the user that waits, up to and with the assistant's name."""
        waiting, self._waiting = self._waiting, []
        self._is_named = True
        if self._format.tools == "sections" and any(m.role == "tool" for m in waiting):
            blocks = [self._block(message) for message in waiting]
            return "\n".join(blocks) + self._format.name_of_assistant
        if len(waiting) == 1 and waiting[0].role == "user":
            return self._format.write_user(waiting[0].content, waiting[0].input)
        texts = []
        for each in waiting:
            texts += [each.input] if each.input else []
            texts.append(
                f"Function output:\n{each.content}" if each.role == "tool" else each.content
            )
        # What a tool says is no question that could ask for reasoning.
        unhinted = dataclasses.replace(self._format, hint="")
        chat_format = unhinted if waiting[-1].role == "tool" else self._format
        return chat_format.write_user("\n".join(texts))

    def _block(self, message: Message) -> str:
        if message.role == "tool":
            return f"### Tool Output\n```json\n{message.content.strip()}\n```"
        return self._format.user.partition("{}")[0].format() + clean(message.content)

    def _assistant(self, message: Message, *, is_last: bool) -> str:
        name = self._turn() if self._waiting else ""
        if not self._is_named:
            name += self._format.name_of_assistant.lstrip()
        text = without_thinking(message.content)
        if is_last and not message.tool_calls and message.content.strip():
            self._is_named = True
            self.begun = message.content.lstrip()
            thinks = re.match(r"<think>(?!.*</think>)", self.begun, re.DOTALL)
            self.place = "thinking" if thinks else "answer"
            if not thinks and self.begun.startswith("<think>"):
                self.begun = self.begun.partition("</think>")[2].lstrip()
            return name + self._format.lead + self.begun
        if message.tool_calls:
            calls = write_calls(message.tool_calls, self._format.tools)
            text = f"{text}\n{calls}" if text else calls
        if is_last and not text:  # nothing of it is there yet
            self._is_named = True
            return name
        self._is_named = False
        return name + self._format.write_answer(text)


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise InvalidArgumentError("messages: expected at least one, got none")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Message):
            raise InvalidArgumentError(
                f"{where}: expected a Message, got {type(message).__name__}: {message!r:.60}"
            )
        if message.role not in ("system", "user", "assistant", "tool"):
            raise InvalidArgumentError(
                f"{where}.role: expected system, user, assistant or tool, got {message.role!r:.60}"
            )
        as_text(f"{where}.content", message.content)
        if message.role == "user" and not clean(message.content):
            raise InvalidArgumentError(f"{where}.content: expected something to say, got nothing")
