"""Text that comes in pieces, what a model reasons first told from its answer."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Place", "ThinkSplitter", "without_thinking"]

_BEGIN, _END = "<think>", "</think>"

Place: TypeAlias = Literal["begin", "thinking", "answer"]


class ThinkSplitter:
    """Tells reasoning from answer: `<think>...</think>` at the beginning.

    Args:
        opening: what the text is made to begin with; its part of reasoning and answer counts.
        place: where it begins, if not at the beginning.
    """

    def __init__(self, opening: str = "", place: Place = "begin"):
        self._opening = opening
        self._held = opening
        self._place: Place = place

    def push(self, text: str) -> tuple[str, str]:
        """Let a piece come next; return the reasoning and the answer that have become certain."""
        thought = ""
        text, self._held = self._held + text, ""
        if self._place == "begin":
            begin = text.lstrip()
            if len(begin) < len(_BEGIN) and _BEGIN.startswith(begin):
                self._held = text
                return "", ""
            if begin.startswith(_BEGIN):
                self._place = "thinking"
                text = begin.removeprefix(_BEGIN)
            else:
                self._place = "answer"
        if self._place == "thinking":
            thought, found, text = text.partition(_END)
            if not found:
                thought, self._held = held_back(thought, [_END])
                return thought, ""
            self._place = "answer"
        return thought, text

    def finish(self) -> tuple[str, str]:
        """Return what was held back: nothing more will come."""
        held, self._held = self._held, ""
        if held == self._opening:  # of which alone no answer is made
            return "", ""
        return (held, "") if self._place == "thinking" else ("", held)


def held_back(text: str, marks: list[str]) -> tuple[str, str]:
    """Divide a text before its end that may be the beginning of one of the marks.

    >>> held_back("a < b </th", ["</think>"])
    ('a < b ', '</th')
    """
    longest = 0
    for mark in marks:
        lengths = range(min(len(mark) - 1, len(text)), longest, -1)
        longest = next((n for n in lengths if text.endswith(mark[:n])), longest)
    cut = len(text) - longest
    return text[:cut], text[cut:]


def without_thinking(text: str) -> str:
    """Return an answer without the reasoning that stands before it.

    >>> without_thinking("<think>Hm.</think>Yes.")
    'Yes.'
    """
    splitter = ThinkSplitter()
    (_, answer), (_, rest) = splitter.push(text), splitter.finish()
    return (answer + rest).strip()
