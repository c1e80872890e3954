"""How a conversation is written for a model: the formats that RWKV models were trained on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from ._arguments import as_text
from .errors import InvalidArgumentError
from .sampling import SamplingOptions
from .tools import ToolCall, ToolStyle

__all__ = ["CHAT_FORMATS", "ChatFormat", "Effort", "Message", "Role"]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh"]

_CHATTY: SamplingOptions = {
    "temperature": 1.0,
    "top_p": 0.3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "penalty_decay": 0.996,
}
_REASONING: SamplingOptions = {"temperature": 1.0, "top_p": 0.5, "penalty_decay": 0.997}


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that was said.

    Attributes:
        role: who said it.
        content: what.
        thinking: what the assistant reasoned before; the model does not remember it.
        input: what an instruction is about, if the format has that.
        tool_calls: the tools that the assistant called.
    """

    role: Role
    content: str
    thinking: str = ""
    input: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    r"""The text around what user and assistant say.

    A conversation is `system` (`begin`, if there is no system prompt), then for each turn `user`,
    the answer after `lead`, and `end`. While an answer is written, `opening` stands in the place of
    `lead`; it is not kept.

    Attributes:
        name: as in `CHAT_FORMATS`.
        system: text around a system prompt, which stands for `{}`; "" where there is none.
        begin: what a conversation without a system prompt begins with.
        user: text around what the user says, up to and with the name of the assistant.
        user_with_input: the same, for an instruction and its input; "" where there is none.
        opening: what the assistant's answer is made to begin with, such as `" <think"`.
        lead: what stands between the name of the assistant and an answer in the history.
        end: what ends a turn.
        stop: strings that end an answer: the beginning of what would follow it.
        sampling: the options of `Sampler` that suit it.
        tools: how tools, and calls of them, are written.
        hint: what is added to what the user says.

    Raises:
        InvalidArgumentError: a text is of the wrong type, or has not the `{}` that it needs.

    >>> CHAT_FORMATS["world"].user.format("Hi")
    'User: Hi\n\nAssistant:'
    """

    name: str
    system: str = "System: {}\n\n"
    begin: str = ""
    user: str = "User: {}\n\nAssistant:"
    user_with_input: str = ""
    opening: str = ""
    lead: str = " "
    end: str = "\n\n"
    stop: tuple[str, ...] = ("\n\n",)
    sampling: SamplingOptions = field(default_factory=lambda: _CHATTY)
    tools: ToolStyle = "list"
    hint: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "system", "begin", "user", "user_with_input"):
            as_text(name, getattr(self, name))
        for name in ("opening", "lead", "end", "hint"):
            as_text(name, getattr(self, name))
        for name, n_places in (("system", 1), ("user", 1), ("user_with_input", 2)):
            if template := getattr(self, name):
                _check_template(name, template, n_places)
        if isinstance(self.stop, str) or not all(isinstance(stop, str) for stop in self.stop):
            raise InvalidArgumentError(f"stop: expected strings in a tuple, got {self.stop!r}")
        if not self.user:
            raise InvalidArgumentError("user: expected a text with one {}, got ''")

    def __repr__(self) -> str:
        return f"<ChatFormat {self.name}: {self.user!r}>"

    @staticmethod
    def named(name: str) -> ChatFormat:
        """Return the format of that name.

        Raises:
            InvalidArgumentError: there is none.
        """
        if not isinstance(name, str) or name not in CHAT_FORMATS:
            raise InvalidArgumentError(
                f"format: expected one of {', '.join(CHAT_FORMATS)}, got {name!r}"
            )
        return CHAT_FORMATS[name]

    def with_effort(self, effort: Effort | None) -> ChatFormat:
        r"""Return the format that lets a model reason more or less before it answers.

        Args:
            effort: "none" and "minimal" skip it. None leaves the format as it is; so does anything
                for a format that knows no reasoning.

        Raises:
            InvalidArgumentError: there is no such effort.

        >>> format = CHAT_FORMATS["g1"].with_effort("low")
        >>> format.write_user("Why?") + format.opening
        'User: Why? (think a bit)\n\nAssistant: <think'
        """
        if effort is None:
            return self
        if not isinstance(effort, str) or effort not in _EFFORTS:
            raise InvalidArgumentError(
                f"effort: expected one of {', '.join(_EFFORTS)}, got {effort!r}"
            )
        if not (self.name.startswith("g1") or "<think" in self.opening):
            return self
        before = self.opening.partition("<think")[0] or self.lead
        hint = _EFFORTS[effort]
        if not hint:
            return dataclasses.replace(self, opening=f"{before}<think>\n</think", hint="")
        hint = hint if self.tools == "list" else ""  # it was taught with these
        return dataclasses.replace(self, opening=f"{before}<think", hint=hint)

    @property
    def name_of_assistant(self) -> str:
        """What stands between what the user says and the answer."""
        return self.user.partition("{}")[2].format()

    @property
    def next_turn(self) -> str:
        """What follows an answer: the beginning of the next turn, which no answer should hold."""
        following = self.end + self.user.partition("{}")[0].format()
        beginning = re.match(r"\s*\S.{0,20}", following)  # enough to tell it by
        return beginning[0].rstrip() if beginning else following

    def write_system(self, text: str) -> str:
        """Return what a conversation begins with: the system prompt, if there is one.

        Raises:
            InvalidArgumentError: there is one, and the format has no place for it.
        """
        if not text:
            return self.begin
        if not self.system:
            raise InvalidArgumentError(
                f"system: expected none in the format {self.name}, got one",
                remedy="Try to say it in the first question",
            )
        return self.system.format(clean(text))

    def write_user(self, text: str, input: str | None = None) -> str:
        """Return the text of a user's turn, up to where the answer begins.

        Raises:
            InvalidArgumentError: there is nothing to say, or an input that the format has no place
                for.
        """
        if not clean(as_text("text", text)):
            raise InvalidArgumentError("text: expected something to say, got nothing")
        said = f"{clean(text)}{self.hint}"
        if input is None:
            return self.user.format(said)
        if not self.user_with_input:
            raise InvalidArgumentError(
                f"input: expected none in the format {self.name}, got one",
                remedy="Try the format instruct",
            )
        return self.user_with_input.format(said, clean(as_text("input", input)))

    def write_answer(self, text: str) -> str:
        """Return the text of an answer in the history, with what ends the turn."""
        return (self.lead + text if text else "") + self.end


def _check_template(name: str, template: str, n_places: int) -> None:
    places = ["{}"] * n_places
    try:
        fits = template.format(*places) == template.replace("{{", "{").replace("}}", "}")
        fits = fits and template.count("{}") == n_places
    except (ValueError, IndexError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise InvalidArgumentError(
            f"{name}: expected a text with {' and '.join(places)}, got {template!r}",
            remedy="Try {{ and }} for braces that are meant",
        )


def clean(text: str) -> str:
    r"""Return a text that cannot end a turn: empty lines do that, so there are none.

    >>> clean("  one\r\n\r\n\r\ntwo\n")
    'one\ntwo'
    """
    return re.sub(r"\n\s*\n", "\n", text.replace("\r\n", "\n")).strip()


# What is added to what the user says, as G1 models were taught.
_EFFORTS = {
    "none": "",
    "minimal": "",
    "low": " (think a bit)",
    "medium": " (think)",
    "high": " (think a lot)",
    "xhigh": " (think a lot)",
}

_G1_STOP = ("\n\nUser:", "\n\nSystem:", "\nUser:")
_INSTRUCT_STOP = ("\n\nInstruction:", "\n\nInput:", "\n\nResponse:")
_RAVEN = (
    "\nBelow is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n# Instruction:\n{}\n\n"
)

CHAT_FORMATS: Mapping[str, ChatFormat] = MappingProxyType(
    {
        chat_format.name: chat_format
        for chat_format in (
            ChatFormat(name="world"),
            ChatFormat(name="g1", stop=_G1_STOP, sampling=_REASONING),
            # The models write the last character of an opening themselves.
            ChatFormat(name="g1-think", opening=" <think", stop=_G1_STOP, sampling=_REASONING),
            ChatFormat(
                name="g1-fast-think",
                opening=" <think>\n</think",
                stop=_G1_STOP,
                sampling=_REASONING,
            ),
            ChatFormat(
                name="g1-tools",
                system="### System\n{}\n",
                user="### User\n{}\n### Assistant\n",
                opening="<think></think",
                lead="",
                end="\n",
                stop=("\n### User", "\n### System", "\n### Assistant", "\n### Tool Output"),
                sampling=_REASONING,
                tools="sections",
            ),
            ChatFormat(
                name="instruct",
                system="{}\n\n",
                user="Instruction: {}\n\nResponse:",
                user_with_input="Instruction: {}\n\nInput: {}\n\nResponse:",
                stop=_INSTRUCT_STOP,
            ),
            ChatFormat(
                name="raven",
                system="{}\n\n",
                user=_RAVEN + "# Response:\n",
                user_with_input=_RAVEN + "# Input:\n{}\n\n# Response:\n",
                lead="",
                stop=("\n\n# Instruction:", "\n\n# Input:", "\nBelow is an instruction"),
            ),
            ChatFormat(name="raven-chat", system="{}\n\n", user="Bob: {}\n\nAlice:"),
        )
    }
)
"""The formats by name.

`world` is for the World models; `g1` (the answer at once), `g1-think` (it reasons first) and
`g1-fast-think` (it skips the reasoning) for the G1 models, and `g1-tools`, with headings, for those
that are to call tools; `instruct` for instructions with or
without an input; `raven` and `raven-chat` for RWKV-4 Raven.
"""
