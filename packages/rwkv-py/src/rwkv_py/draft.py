"""Guesses of a smaller model with the same vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ._arguments import Tokens, as_tokens
from .model import Model
from .prefix_cache import MIN_TOKENS, PrefixCache
from .prompt import PIECE_TOKENS, Prompt
from .sequence import place_of_state

__all__ = ["DraftGuesser"]


_FRESH = place_of_state(None, None)

# What a draft model keeps of beginnings that it has read: a state of the 0.1B shape is 2.4 MB.
_CACHE_BYTES = 128 << 20


def _cache_of(model: Model) -> PrefixCache:
    if model._draft_cache is None:
        model._draft_cache = PrefixCache(model, budget=_CACHE_BYTES, exact=True)
    cache: PrefixCache = model._draft_cache
    return cache


class DraftGuesser:
    """Guesses what a draft model holds most probable, token after token.

    It has two sequences: one that has read the text, and one that reads guesses on. Several texts'
    drafts are computed together. What was not read of a text for long is read a piece at a time, so
    that others are not kept waiting; there are no guesses before it is done. Beginnings that other
    texts had are in a cache, which is the draft model's: the next turn of a conversation costs its
    draft what is new, as it does the model itself.

    Args:
        model: the draft model.
    """

    is_free = False
    source = "draft"

    def __init__(self, model: Model):
        self._model = model
        self._sequence = model._new_sequence(_FRESH)
        self._ahead = model._new_sequence()
        self._read: list[int] = []  # by `_sequence`
        self._unread: list[int] = []
        self._keeps = False  # in the cache, what has been read at the end of a piece

    @property
    def model(self) -> Model:
        """The draft model."""
        return self._model

    def begin(self, text: list[int]) -> None:
        """Know the text so far, from its beginning; it may go on with the last one."""
        if text[: len(self._read)] != self._read:
            self._sequence.core.reset()
            self._sequence.was_reset(_FRESH)
            self._read = []
        self._keeps = not self._read and len(text) >= MIN_TOKENS
        if self._keeps:
            n_found = _cache_of(self._model)._find(self._sequence, Prompt(as_tokens(text)))
            self._read = text[:n_found]
        self._unread = text[len(self._read) :]

    def read(self, token: int) -> None:
        """Know that the text goes on with this."""
        self._unread.append(token)

    @classmethod
    def guess(cls, wanted: Sequence[tuple[Self, int]]) -> list[list[int]]:
        """Guess for several texts at once: for each at most so many tokens."""
        guesses: dict[Self, list[int]] = {guesser: [] for guesser, _ in wanted}
        for model in dict.fromkeys(guesser._model for guesser, _ in wanted):
            cls._guess_with(model, [each for each in wanted if each[0]._model is model], guesses)
        return [guesses[guesser] for guesser, _ in wanted]

    @classmethod
    def _guess_with(
        cls, model: Model, wanted: Sequence[tuple[Self, int]], guesses: dict[Self, list[int]]
    ) -> None:
        behind = [guesser for guesser, _ in wanted if guesser._unread]
        found = model.step([(guesser._sequence, guesser._piece()) for guesser in behind])
        for guesser in behind:
            guesser._read += guesser._unread[:PIECE_TOKENS]
            del guesser._unread[:PIECE_TOKENS]
            if guesser._keeps:
                _cache_of(model)._keep(guesser._sequence)
                guesser._keeps = bool(guesser._unread)
        logits: dict[Self, NDArray[np.float32] | None] = dict(zip(behind, found, strict=True))
        drafting = []
        for guesser, n in wanted:
            if not guesser._unread and n > 0:
                last = logits.get(guesser)
                drafting.append((guesser, n, guesser._sequence.logits if last is None else last))
                guesser._ahead.copy_from(guesser._sequence)
        while True:
            reading = []
            for guesser, n, last in drafting:
                n_guessed = len(guesses[guesser])
                guesses[guesser].append(guesser._most_probable(last, n_guessed))
                if len(guesses[guesser]) < n:
                    reading.append((guesser, n))
            if not reading:
                return
            found = model.step([(guesser._ahead, guesses[guesser][-1:]) for guesser, _ in reading])
            drafting = [
                (guesser, n, last)
                for (guesser, n), last in zip(reading, found, strict=True)
                if last is not None
            ]

    def _most_probable(self, logits: NDArray[np.float32], n_guessed: int) -> int:
        """Return the next guess, after `n_guessed` of them."""
        return int(np.argmax(logits))

    def _piece(self) -> Tokens:
        return as_tokens(self._unread[:PIECE_TOKENS])
