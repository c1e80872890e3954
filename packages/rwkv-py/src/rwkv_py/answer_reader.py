"""An answer that comes in pieces: reasoning, what is said, tool calls; without space around."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .call_parser import CallParser
from .think_text import Place, ThinkSplitter
from .tools import ToolCall

__all__ = ["AnswerPart", "AnswerReader"]


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A piece of an answer.

    Attributes:
        kind: "thinking", of the reasoning; "answer", of what is said; "call", a tool call begins;
            "arguments", of the call's arguments, JSON text.
        text: the piece; of a "call", the name of the tool, whole.
        index: which call it is of, from 0.
    """

    kind: Literal["thinking", "answer", "call", "arguments"]
    text: str
    index: int = 0


class AnswerReader:
    """Takes an answer apart as its text comes.

    Args:
        opening: what the answer is made to begin with.
        place: where it begins, if not at the beginning.
        tools: the names of the tools that may be called.
        only_calls: as for `CallParser`.

    Attributes:
        calls: the calls so far.

    >>> reader = AnswerReader(" <think")
    >>> reader.push(">Hm.</think")
    [AnswerPart(kind='thinking', text='Hm.', index=0)]
    >>> reader.push(">Yes.") + reader.finish()
    [AnswerPart(kind='answer', text='Yes.', index=0)]
    """

    def __init__(
        self,
        opening: str = "",
        *,
        place: Place = "begin",
        tools: Iterable[str] = (),
        only_calls: bool = False,
    ):
        names = list(tools)
        self._splitter = ThinkSplitter(opening, place)
        self._calls = CallParser(names, only_calls=only_calls) if names else None
        # What goes on from the middle of an answer may begin with the space between two words.
        self._trimmers = {"thinking": _Trimmer(), "answer": _Trimmer(begun=place == "answer")}
        self.calls: list[ToolCall] = []

    def push(self, text: str) -> list[AnswerPart]:
        """Let a piece of text come next; return what has become certain of the answer."""
        thought, answer = self._splitter.push(text)
        return self._parts(thought, answer, is_last=False)

    def finish(self) -> list[AnswerPart]:
        """Return what was held back: nothing more will come."""
        thought, answer = self._splitter.finish()
        return self._parts(thought, answer, is_last=True)

    def _parts(self, thought: str, answer: str, *, is_last: bool) -> list[AnswerPart]:
        parts: list[AnswerPart] = []
        if thinking := self._trimmers["thinking"].push(thought):
            parts.append(AnswerPart("thinking", thinking))
        if self._calls is None:
            if said := self._trimmers["answer"].push(answer):
                parts.append(AnswerPart("answer", said))
            return parts
        found = self._calls.push(answer)
        if is_last:
            found += self._calls.finish()
        for part in found:
            kind, text, index = part.kind, part.text, part.index
            if kind == "call":
                self.calls.append(ToolCall(name=text, arguments=""))
            elif kind == "arguments":
                call = self.calls[index]
                self.calls[index] = ToolCall(name=call.name, arguments=call.arguments + text)
            else:
                text = self._trimmers["answer"].push(text)
            if text:
                parts.append(AnswerPart(kind, text, index))
        return parts


class _Trimmer:
    """Strips white space from the ends of a text that comes in pieces."""

    def __init__(self, *, begun: bool = False) -> None:
        self._begun = begun
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        self._begun = self._begun or bool(kept)
        return kept
