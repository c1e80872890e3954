"""Texts to vectors: what a model makes of each, for search and comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from ._arguments import StrPath, Tokens, TokenSequence
from ._options import takes_options_of
from .beginning import OpeningOptions, begin
from .errors import InvalidArgumentError
from .model import Model
from .prompt import PIECE_TOKENS, pieces
from .sequence import Sequence

__all__ = ["embed"]

# How many texts are read at once: each takes the memory of a state.
_AT_ONCE = 32


@takes_options_of(begin)
def embed(
    model: Model | StrPath,
    prompts: Iterable[str | bytes | TokenSequence],
    *,
    pooling: Literal["mean", "last"] = "mean",
    progress: Callable[[int, int], None] | None = None,
    **opening: Unpack[OpeningOptions],
) -> NDArray[np.float32]:
    """Read each text by itself, and return its final hidden state as a vector.

    Args:
        model: a `Model`, or the path of a model file.
        prompts: texts or tokens; each has at least one token.
        pooling: "mean" over the tokens of a text, or that after its "last" token.
        progress: called after each step with how many tokens are read, and of how many; what it
            raises ends the work.
        **opening: threads, ln_x_eps, tokenizer, cache (which is not used) and time_state, as for
            `Session`.

    Returns:
        float32 (n_prompts, n_embd): of the final hidden states, normed as for the head.

    Raises:
        InvalidArgumentError: a text has no token, or `pooling` is another.
        TokenOutOfRangeError, NoTokenizerError: as `Session.feed`.

    >>> vectors = embed(model, ["json", "The module json."])
    >>> vectors.shape, vectors.dtype
    ((2, 256), dtype('float32'))
    """
    if pooling not in ("mean", "last"):
        raise InvalidArgumentError(f"pooling: expected 'mean' or 'last', got {pooling!r}")
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
        raise InvalidArgumentError(
            f"prompts: expected a list of them, got one: {prompts!r}", remedy="Try [prompt]"
        )
    beginning = begin(model, **opening)
    given = [beginning.prompt(prompt).tokens for prompt in prompts]
    for i, tokens in enumerate(given):
        if not tokens.size:
            raise InvalidArgumentError(f"prompts[{i}]: expected at least one token, got none")
    vectors = np.zeros((len(given), beginning.model.info.n_embd), np.float32)
    waiting = [_Text(*each, pooling) for each in zip(given, vectors, strict=True)]
    reading: list[_Text] = []
    n_read, n_all = 0, sum(tokens.size for tokens in given)
    while waiting or reading:
        while waiting and len(reading) < _AT_ONCE:
            waiting[0].sequence = beginning.new_sequence()
            reading.append(waiting.pop(0))
        chosen, room = [], PIECE_TOKENS
        for text in reading:
            if text.pieces[0].size <= room:
                chosen.append(text)
                room -= text.pieces[0].size
        found = beginning.model.step(
            [(text.sequence, text.pieces[0]) for text in chosen], logits="hidden"
        )
        for text, hidden in zip(chosen, found, strict=True):
            assert hidden is not None
            n_read += text.take(hidden)
        # Those that were read from go to the end of the line.
        reading = [text for text in reading if text not in chosen] + [
            text for text in chosen if text.pieces
        ]
        if progress is not None:
            progress(n_read, n_all)
    return vectors


class _Text:
    """A text being read, in the pieces in which every prompt is."""

    sequence: Sequence

    def __init__(self, tokens: Tokens, vector: NDArray[np.float32], pooling: str):
        self.pieces = pieces(tokens)
        self._n_tokens = tokens.size
        self._vector = vector
        self._pooling = pooling
        self._sum = np.zeros(vector.size)

    def take(self, hidden: NDArray[np.float32]) -> int:
        """Note the hidden states of the first piece; return how many there were."""
        n_tokens = self.pieces.pop(0).size
        self._sum += hidden.sum(axis=0, dtype=np.float64)
        if not self.pieces:
            mean = self._sum / self._n_tokens
            self._vector[:] = mean if self._pooling == "mean" else hidden[-1]
            del self.sequence
        return n_tokens
