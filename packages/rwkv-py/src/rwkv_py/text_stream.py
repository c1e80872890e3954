"""Drawn tokens -> pieces of text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, Self, TypeAlias

from . import _core
from ._arguments import as_count, as_integers, as_stops, as_token, one_token
from .prompt import END_OF_DOCUMENT
from .speculation import SpeculationCounts
from .tokenizer import Tokenizer

__all__ = ["FinishReason", "TextBuilder", "TextStream"]

FinishReason: TypeAlias = Literal["end", "stop", "length"]


class TextBuilder:
    r"""Makes text of drawn tokens, one after the other, and knows when it ends.

    `Session` and `Engine` both draw tokens until their builder says that the text has ended.

    Args:
        tokenizer: what the tokens stand for.
        max_tokens: how many tokens the text has at most.
        stop: strings that end the text and are left out of it, wherever tokens begin or end.
        stop_tokens: tokens that end the text.

    Attributes:
        tokens: the tokens taken: those pushed, but for the one that ended the text.
        stop_tokens: the same, in order.
        finish_reason: None while there may be more; see `TextStream`.
        ended_by: the token that ended the text and was not taken, if one did.

    >>> builder = TextBuilder(Tokenizer.bytewise(), max_tokens=9, stop="\n", stop_tokens=[0])
    >>> [builder.push(token) for token in "né\n".encode()], builder.finish_reason
    (['n', '', 'é', ''], 'stop')
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int = 256,
        stop: str | bytes | Iterable[str | bytes] = (),
        stop_tokens: Iterable[int] = (END_OF_DOCUMENT,),
    ):
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.ended_by: int | None = None
        self._tail = b""
        self._pieces = tokenizer._pieces(continuing=True)
        self._max_tokens = as_count("max_tokens", max_tokens)
        self.stop_tokens = tuple(sorted(set(as_integers("stop_tokens", stop_tokens))))
        self._stops = as_stops(stop)
        self._stream = _core.TextStream(self._stops)

    @property
    def full(self) -> bool:
        """Whether there are `max_tokens` tokens: nothing is left but to `end`."""
        return self.n_left == 0

    @property
    def n_left(self) -> int:
        """How many more tokens there may be."""
        return self._max_tokens - len(self.tokens)

    def push(self, token: int) -> str:
        """Let a drawn token come next; return the text that has become certain, which may be "".

        Afterwards either the token was taken, or `finish_reason` is set.
        """
        if token in self.stop_tokens:
            self.ended_by = token
            return self.end("end")
        certain = self._add(self._pieces.push(one_token(as_token(token))))
        if self._stream.stopped:
            self.finish_reason = "stop"
            self.ended_by = token
        else:
            self.tokens.append(token)
        return certain

    @property
    def stopped_by(self) -> bytes | None:
        """The stop string that ended the text, if one did: of several there the longest."""
        found = [(self._tail.find(stop), -len(stop), stop) for stop in self._stops]
        return min((each for each in found if each[0] >= 0), default=(0, 0, None))[2]

    def give_back(self) -> None:
        """Let the token that was taken last not be one of the text: it could not be read."""
        self.tokens.pop()

    def end(self, reason: FinishReason) -> str:
        """End the text here; return what was held back."""
        self.finish_reason = reason
        rest = self._add(self._pieces.finish())
        if self._stream.stopped:
            self.finish_reason = "stop"
            return rest
        return rest + self._stream.finish()

    def _add(self, data: bytes) -> str:
        """Let bytes come next, and know enough of the last to tell what stopped the text."""
        longest = max(map(len, self._stops), default=0)
        self._tail = (self._tail + data)[-(longest + len(data)) :]
        return self._stream.push(data)


class Writer(Protocol):
    """What a stream draws tokens from."""

    @property
    def speculation(self) -> SpeculationCounts | None:
        """What guesses have given so far; None if there are none."""

    def begin(self, stream: TextStream) -> None:
        """Read the prompt; from now on nothing else may move the session."""

    def draw(self) -> int:
        """Return the next token."""

    def take(self, token: int) -> None:
        """Let the sampler and the session have a token that was drawn."""

    def end(self, *, finished: bool) -> None:
        """Let go of the session; `finished` if the text has ended by itself. Called once."""


class TextStream(Iterator[str]):
    """Text being generated: an iterator over its pieces, none of them empty.

    Every piece consists of whole characters: bytes that are not UTF-8 become U+FFFD, and an
    unfinished character at the very end is left out. Nothing is computed before the first piece is
    asked for; `Session.stream` makes streams.

    From then on the session is the stream's, until the text has ended or the stream is left: with
    `close`, at the end of a `with` block, by an exception, or because nobody has it any more, as
    after `break` in `for piece in session.stream(...)`.
    """

    def __init__(self, writer: Writer, builder: TextBuilder):
        self._writer = writer
        self._builder = builder
        self._begun = False
        self._closed = False

    def __repr__(self) -> str:
        state = self.finish_reason or ("closed" if self._closed else "writing")
        return f"<TextStream: {len(self._builder.tokens)} tokens, {state}>"

    @property
    def tokens(self) -> list[int]:
        """The tokens drawn so far and read by the session: all but the one that ended the text.

        A copy.
        """
        return list(self._builder.tokens)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ended; None while there may be more, and for a stream that was left.

        "end" (a stop token, such as the end of the document), "stop" (a stop string) or "length"
        (`max_tokens`).
        """
        return self._builder.finish_reason

    @property
    def speculation(self) -> SpeculationCounts | None:
        """What guesses have given so far, for a text with `speculate`; else None."""
        return self._writer.speculation

    def close(self) -> None:
        """Leave the text here: nothing more comes, and the session is free for other things."""
        if not self._closed:
            self._closed = True
            if self._begun:
                self._writer.end(finished=self.finish_reason is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> str:
        try:
            while not self._closed:
                text = self._advance()
                if self.finish_reason is not None:
                    self.close()
                if text:
                    return text
        except BaseException:  # after which an iterator has ended, as a generator has
            self.close()
            raise
        raise StopIteration

    def _advance(self) -> str:
        """Draw a token, and return the text that has become certain."""
        if not self._begun:
            self._begun = True
            self._writer.begin(self)
        if self._builder.full:
            return self._builder.end("length")
        token = self._writer.draw()
        text = self._builder.push(token)
        if self._builder.finish_reason is None:
            try:
                self._writer.take(token)
            except BaseException:
                self._builder.give_back()
                raise
            if self._builder.full:
                text += self._builder.end("length")
        return text
