"""Tool calls in an answer that comes in pieces, told from what is said as soon as is certain.

Two forms are understood, each any number of times: JSON in a fence, and the same under the words
"Tool Call". So is an answer that is nothing but JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from .think_text import held_back
from .tools import CALL_MARK, FENCE

__all__ = ["CallParser", "CallPart"]

_MARKS = [CALL_MARK, FENCE]
_SPACE = " \t\r\n"
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class CallPart:
    """A piece of an answer with calls.

    Attributes:
        kind: "answer", what is said; "call", a call begins, of which `text` is the tool's name;
            "arguments", a piece of the call's arguments, JSON text.
        text: the piece.
        index: which call it is of, from 0.
    """

    kind: Literal["answer", "call", "arguments"]
    text: str
    index: int = 0


class CallParser:
    """Takes calls out of an answer.

    What begins like a call and is none, of a tool that there is not or no JSON, is said.

    Args:
        names: of the tools.
        only_calls: the answer is made to be nothing but calls: the beginning of one that was cut
            off is no text.
    """

    def __init__(self, names: Iterable[str], *, only_calls: bool = False):
        self._names = frozenset(names)
        self._only_calls = only_calls
        self._text = ""  # held: it may be the beginning of a mark
        self._is_begun = False  # something was said that is not a space
        self._block: _Block | None = None
        self._n_calls = 0

    def push(self, text: str) -> list[CallPart]:
        """Let a piece of the answer come next; return what has become certain of it."""
        parts: list[CallPart] = []
        while text:
            if self._block is None:
                text = self._say(parts, self._text + text)
            else:
                text = self._read(parts, self._block, text)
        if self._block is not None:
            self._take(parts, self._block)
        return _joined(parts)

    def finish(self) -> list[CallPart]:
        """Return what was held back: nothing more will come."""
        parts: list[CallPart] = []
        while self._block is not None and not self._block.n_calls:
            rest = self._refuse(parts, self._block, "")
            if rest:
                parts += self.push(rest)
        if self._block is not None:
            self._take(parts, self._block)
        parts.append(CallPart("answer", self._text))
        self._text = ""
        if self._only_calls:
            parts = [part for part in parts if part.kind != "answer"]
        return _joined(parts)

    def _say(self, parts: list[CallPart], text: str) -> str:
        """Look for the beginning of a call; return what stands after it."""
        self._text = ""
        found = [(place, mark) for mark in _MARKS if (place := text.find(mark)) >= 0]
        place, mark = min(found, default=(len(text), ""))
        begin = text[:place].lstrip(_SPACE)[:1]
        if begin in ("{", "[") and not self._is_begun:
            place, mark = text.index(begin), begin
        said, rest = text[:place], text[place + len(mark) :]
        if not mark:
            said, self._text = held_back(said, _MARKS)
        self._is_begun = self._is_begun or bool(said.strip(_SPACE))
        parts.append(CallPart("answer", said))
        if mark:
            self._block = _Block(mark, self._names)
            if mark in "{[":
                rest = mark + rest
        return rest

    def _read(self, parts: list[CallPart], block: _Block, text: str) -> str:
        """Let the calls read on; return what they leave."""
        for place, char in enumerate(text):
            if not block.read(char):
                self._take(parts, block)
                if block.n_calls:
                    self._block = None
                    self._is_begun = True
                    return text[place:]
                return self._refuse(parts, block, text[place:])
        return ""

    def _take(self, parts: list[CallPart], block: _Block) -> None:
        for kind, text in block.take():
            if kind == "call":
                self._n_calls += 1
            parts.append(CallPart(kind, text, self._n_calls - 1))

    def _refuse(self, parts: list[CallPart], block: _Block, rest: str) -> str:
        """What began like a call is none: its mark is said, and what follows is looked at anew."""
        self._block = None
        self._is_begun = True
        mark = block.mark
        parts.append(CallPart("answer", mark))
        return block.raw[len(mark) :] + rest


class _Block:
    """One object, or a list of them, in a fence or not."""

    def __init__(self, mark: str, names: frozenset[str]):
        self.mark = mark
        self.raw = "" if mark in "{[" else mark  # what was read of it
        self.n_calls = 0
        self._names = names
        self._state = "fence" if mark == CALL_MARK else "open"
        self._is_fenced = mark == FENCE
        self._is_list = False
        self._fence = ""  # what was read of one
        self._out: list[tuple[Literal["call", "arguments"], str]] = []
        self._begin_object()

    def take(self) -> list[tuple[Literal["call", "arguments"], str]]:
        """Return what has become certain since the last time."""
        out, self._out = self._out, []
        return out

    def read(self, char: str) -> bool:
        """Read on; return False where the character is not part of the block."""
        fits = getattr(self, f"_read_{self._state}")(char)
        if fits:
            self.raw += char
        return bool(fits)

    def _begin_object(self) -> None:
        self._key = ""
        self._value: _Value | None = None
        self._streams = False
        self._has_name = False
        self._has_arguments = False
        self._early = ""  # arguments that come before the name

    def _read_fence(self, char: str) -> bool:
        """After "Tool Call", before the fence."""
        if not self._fence and char in _SPACE:
            return True
        if not self._fence and char in "{[":
            self._state = "open"
            return self._read_open(char)
        if not FENCE.startswith(self._fence + char):
            if self._fence == "```":  # one without a language
                self._is_fenced = True
                self._state = "open"
                return self._read_open(char)
            return False
        self._fence += char
        if self._fence == FENCE:
            self._is_fenced = True
            self._state = "open"
        return True

    def _read_open(self, char: str) -> bool:
        if char == "[" and not self._is_list:
            self._is_list = True
        elif char == "{":
            self._begin_object()
            self._state = "key"
        elif char not in _SPACE:
            return False
        return True

    def _read_key(self, char: str) -> bool:
        if self._value is not None:
            return self._read_string(char, "colon")
        if char == '"':
            self._value = _Value(char)
            return True
        if char == "}":
            return self._end_object()
        return char in _SPACE + ","

    def _read_string(self, char: str, state: str) -> bool:
        """Read on a string that is wanted whole, and then go on in another state."""
        assert self._value is not None
        self._value.read(char)
        if not self._value.is_complete:
            return True
        try:
            text = json.loads(self._value.text, strict=False)
        except ValueError:
            return False
        self._value = None
        self._state = state
        if state == "colon":
            self._key = text
            return True
        return self._name(text)

    def _name(self, name: str) -> bool:
        if name not in self._names or self._has_name:
            return False
        self._has_name = True
        self.n_calls += 1
        self._out.append(("call", name))
        if self._early:
            self._out.append(("arguments", self._early))
        return True

    def _read_colon(self, char: str) -> bool:
        if char == ":":
            self._state = "value"
            return True
        return char in _SPACE

    def _read_value(self, char: str) -> bool:
        if self._value is None:
            if char in _SPACE:
                return True
            if char in ",}]:":
                return False
            self._value = _Value(char)
            # An object of arguments is handed on as it comes.
            self._streams = char == "{" and self._key in _ARGUMENTS
            if self._streams:
                self._hand_on(char)
            return self._key != "name" or char == '"'
        if self._key == "name":
            return self._read_string(char, "key")
        if not self._value.read(char):  # of a number or a word, which its neighbour ends
            self._end_value()
            return self._read_key(char)
        if self._streams:
            self._hand_on(char)
        if self._value.is_complete:
            self._end_value()
        return True

    def _hand_on(self, text: str) -> None:
        self._has_arguments = True
        if self._has_name:
            self._out.append(("arguments", text))
        else:
            self._early += text

    def _end_value(self) -> None:
        assert self._value is not None
        text = self._value.text
        if self._key in _ARGUMENTS and text[0] == '"':
            try:
                self._hand_on(json.loads(text, strict=False))  # JSON in a string
            except ValueError:
                self._hand_on(text)
        self._value = None
        self._state = "key"

    def _end_object(self) -> bool:
        if not self._has_name:
            return False
        if not self._has_arguments:
            self._hand_on("{}")
        self._state = "after"
        self._fence = ""
        return True

    def _read_after(self, char: str) -> bool:
        """After an object: another one of a list, or the end."""
        if self._is_list and not self._fence:
            if char == ",":
                self._state = "open"
                return True
            if char == "]":
                self._is_list = False
                return True
        if self._is_fenced and len(self._fence) < 3 and char == "`":
            self._fence += char
            return True
        return self._fence == "" and (self._is_fenced or self._is_list) and char in _SPACE


class _Value:
    """A JSON value that is read character by character, to see where it ends."""

    def __init__(self, first: str):
        self._pieces = [first]
        self._depth = 1 if first in "{[" else 0
        self._in_string = first == '"'
        self._is_word = not (self._depth or self._in_string)
        self._escaped = False
        self.is_complete = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def read(self, char: str) -> bool:
        """Read on; return False where the character is not part of the value."""
        if self._is_word and char in _SPACE + ",}]":
            return False
        self._pieces.append(char)
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = False
                self.is_complete = self._depth == 0
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self.is_complete = self._depth == 0
        return True


def _joined(parts: list[CallPart]) -> list[CallPart]:
    """Join neighbours of one kind, and leave empty pieces out; a call's name stands alone."""
    joined: list[CallPart] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last and part.kind == last.kind != "call" and part.index == last.index:
            joined[-1] = replace(last, text=last.text + part.text)
        elif part.text:
            joined.append(part)
    return joined
