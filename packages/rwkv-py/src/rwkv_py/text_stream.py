"""Drawn tokens -> pieces of text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

from .errors import InvalidArgumentError
from .tokenizer import Tokenizer

__all__ = ["FinishReason", "StopMatcher", "TextStream"]

FinishReason: TypeAlias = Literal["end", "stop", "length"]


class StopMatcher:
    r"""Finds stop strings in bytes that come piece by piece.

    Bytes that could still become a stop string are held back.

    >>> matcher = StopMatcher(["\n\nUser"])
    >>> [matcher.push(piece) for piece in (b"Yes.\n", b"\n", b"No.", b"\n\nUser: ")]
    [b'Yes.', b'', b'\n\nNo.', b'']
    >>> matcher.found
    True
    """

    def __init__(self, stops: Iterable[str | bytes]):
        self._stops = [stop.encode() if isinstance(stop, str) else stop for stop in stops]
        if not all(self._stops):
            raise InvalidArgumentError("stop: expected no empty string, got one")
        self._held = b""
        self.found = False

    def push(self, piece: bytes) -> bytes:
        """Return the bytes that are certain; those before the stop string once it is `found`."""
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            self._held = b""
            return text[: min(places)]
        n_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> bytes:
        """Return what was held back: nothing more will come."""
        held, self._held = self._held, b""
        return held


def _overlap(text: bytes, stop: bytes) -> int:
    """Return the length of the longest end of `text` with which `stop` begins but does not end."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0


class TextStream(Iterator[str]):
    """Text being generated: an iterator over its pieces, none of them empty.

    Every piece consists of whole characters: bytes that are not UTF-8 become U+FFFD, and an
    unfinished character at the very end is left out. Nothing is computed before the first piece is
    asked for; `Session.stream` makes streams.

    Attributes:
        tokens: the tokens that the session has read since the prompt: those drawn so far, but for
            the one that ended the text.
        finish_reason: None while there may be more; then "end" (a stop token, such as the end of
            the document), "stop" (a stop string) or "length" (`max_tokens`).
    """

    def __init__(
        self,
        draw: Callable[[], int],
        take: Callable[[int], None],
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        stop: str | bytes | Iterable[str | bytes],
        stop_tokens: Iterable[int],
    ):
        """`draw` returns the next token, `take` lets the sampler and the session have it."""
        if max_tokens < 0:
            raise InvalidArgumentError(f"max_tokens: expected 0 or more, got {max_tokens}")
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._draw = draw
        self._take = take
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._stop_tokens = frozenset(stop_tokens)
        self._matcher = StopMatcher([stop] if isinstance(stop, str | bytes) else stop)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def __next__(self) -> str:
        while self.finish_reason is None:
            if text := self._utf8.decode(self._advance()):
                return text
        raise StopIteration

    def _advance(self) -> bytes:
        """Draw a token, and return the bytes that have become certain."""
        if len(self.tokens) == self._max_tokens:
            self.finish_reason = "length"
            return self._matcher.finish()
        token = self._draw()
        if token in self._stop_tokens:
            self.finish_reason = "end"
            return self._matcher.finish()
        certain = self._matcher.push(self._tokenizer.decode_bytes([token]))
        if self._matcher.found:
            self.finish_reason = "stop"
        else:
            self._take(token)
            self.tokens.append(token)
        return certain
