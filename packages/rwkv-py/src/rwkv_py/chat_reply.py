"""An answer being written: reasoning told from answer, and white space around both left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from .text_stream import FinishReason, TextStream

__all__ = ["Reply", "ReplyPart", "ReplySplitter"]


class ReplyPart(NamedTuple):
    """A piece of a reply."""

    kind: Literal["thinking", "answer"]
    text: str


class Reply(Iterator[str]):
    """An answer being written: an iterator over its pieces, without the reasoning.

    `parts` gives the reasoning too, `read` the whole answer at once. A reply that is left before
    its end keeps what was written so far: with `close`, or when the chat is used again.
    """

    def __init__(self, stream: TextStream, opening: str, settle: Callable[[], None]):
        """`settle` is called once the reply has ended."""
        self._stream = stream
        self._splitter = ReplySplitter(opening)
        self._settle = settle
        self._pending: list[ReplyPart] = []
        self._pieces: dict[str, list[str]] = {"answer": [], "thinking": []}
        self._ended = False

    def __repr__(self) -> str:
        how = "being written"
        if self._ended:
            how = f"finish_reason {self.finish_reason!r}" if self.finish_reason else "left early"
        return f"<Reply: {len(self.tokens)} tokens, {how}>"

    @property
    def ended(self) -> bool:
        """Whether nothing more is written: it came to its end, or was left."""
        return self._ended

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces["answer"])

    @property
    def thinking(self) -> str:
        """The reasoning so far."""
        return "".join(self._pieces["thinking"])

    @property
    def tokens(self) -> list[int]:
        """The tokens drawn so far, those of the reasoning too."""
        return self._stream.tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """As of `TextStream`; None while there may be more, and for a reply that was left."""
        return self._stream.finish_reason

    def __next__(self) -> str:
        for part in self.parts():
            if part.kind == "answer":
                return part.text
        raise StopIteration

    def parts(self) -> Iterator[ReplyPart]:
        """Write on: yield pieces of reasoning and answer, none of them empty."""
        while True:
            while self._pending:
                part = self._pending.pop(0)
                self._pieces[part.kind].append(part.text)
                yield part
            if self._ended:
                return
            text = next(self._stream, None)
            if text is None:
                self._pending += self._splitter.finish()
                self._take_pending_and_settle()
            else:
                self._pending += self._splitter.push(text)

    def read(self) -> str:
        """Write to the end, and return the answer."""
        for _ in self.parts():
            pass
        return self.text

    def close(self) -> None:
        """Leave it here: what was written so far is the answer."""
        if not self._ended:
            self.abandon()
            self._settle()

    def abandon(self) -> None:
        """End it without telling the chat, which is about to forget it."""
        self._ended = True
        self._stream.close()
        for part in self._pending:
            self._pieces[part.kind].append(part.text)
        self._pending.clear()

    def _take_pending_and_settle(self) -> None:
        """End: the chat remembers the answer before the last pieces are handed out."""
        parts, self._pending = self._pending, []
        for part in parts:
            self._pieces[part.kind].append(part.text)
        self._ended = True
        self._settle()
        for part in parts:  # they are counted again as they are handed out
            self._pieces[part.kind].pop()
        self._pending = parts


class ReplySplitter:
    """Tells reasoning from answer, `<think>...</think>` at the beginning, as text comes."""

    _BEGIN, _END = "<think>", "</think>"

    def __init__(self, opening: str):
        self._opening = opening
        self._held = opening
        self._place: Literal["begin", "thinking", "answer"] = "begin"
        self._trimmers = {"thinking": _Trimmer(), "answer": _Trimmer()}

    def push(self, text: str) -> list[ReplyPart]:
        """Let a piece of text come next; return what has become certain of it."""
        parts: list[ReplyPart] = []
        text, self._held = self._held + text, ""
        if self._place == "begin":
            begin = text.lstrip()
            if len(begin) < len(self._BEGIN) and self._BEGIN.startswith(begin):
                self._held = text
                return []
            if begin.startswith(self._BEGIN):
                self._place = "thinking"
                text = begin.removeprefix(self._BEGIN)
            else:
                self._place = "answer"
        if self._place == "thinking":
            thought, found, text = text.partition(self._END)
            if found:
                self._place = "answer"
            else:
                lengths = range(len(self._END) - 1, 0, -1)
                n_held = next((n for n in lengths if thought.endswith(self._END[:n])), 0)
                self._held = thought[len(thought) - n_held :]
                thought = thought[: len(thought) - n_held]
            self._add(parts, "thinking", thought)
        if self._place == "answer":
            self._add(parts, "answer", text)
        return parts

    def finish(self) -> list[ReplyPart]:
        """Return what was held back: nothing more will come."""
        parts: list[ReplyPart] = []
        if self._held != self._opening:  # of which alone no answer is made
            self._add(parts, "answer" if self._place == "begin" else "thinking", self._held)
        return parts

    def _add(self, parts: list[ReplyPart], kind: Literal["thinking", "answer"], text: str) -> None:
        if trimmed := self._trimmers[kind].push(text):
            parts.append(ReplyPart(kind, trimmed))


class _Trimmer:
    """Strips white space from the ends of a text that comes in pieces."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        self._begun = self._begun or bool(kept)
        return kept
