"""A prompt being read, piece by piece, with what a prefix cache knows of it left out."""

from __future__ import annotations

from ._arguments import Tokens
from .prefix_cache import MIN_TOKENS, PrefixCache
from .prompt import Prompt, pieces
from .sequence import Sequence

__all__ = ["Reading"]


class Reading:
    """Reads a prompt into a sequence: whoever has the time reads `piece`, then calls `advance`.

    Both `Session`, which reads a prompt at once, and `Engine`, which reads it between the tokens of
    others, read so: a prompt is cut in the same places wherever it enters.

    Args:
        sequence: what reads; it is moved at once past what the cache has.
        prompt: what to read.
        cache: where to look, and to keep states; None reads all.

    Attributes:
        n_found: how many tokens of the prompt the cache had.
    """

    def __init__(self, sequence: Sequence, prompt: Prompt, cache: PrefixCache | None):
        self.n_found = 0
        self._sequence = sequence
        self._n_tokens = prompt.tokens.size
        # Shorter prompts cost less to read than to keep.
        self._cache = cache if self._n_tokens >= MIN_TOKENS else None
        if self._cache is not None:
            self.n_found = self._cache._find(sequence, prompt)
        self._pieces = pieces(prompt.tokens[self.n_found :])
        self._n_read = 0
        if not self._pieces:
            self._count()

    @property
    def piece(self) -> Tokens | None:
        """The tokens to read next; None if the whole prompt has been read."""
        return self._pieces[self._n_read] if self._n_read < len(self._pieces) else None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after `piece`: the logits are then wanted."""
        return self._n_read + 1 == len(self._pieces)

    def advance(self) -> None:
        """Note that the sequence has read `piece`."""
        self._n_read += 1
        if self._cache is not None:
            self._cache._keep(self._sequence, is_end=self.piece is None)
        if self._n_read == len(self._pieces):
            self._count()

    def _count(self) -> None:
        if self._cache is not None:
            self._cache._count(self.n_found, self._n_tokens - self.n_found)
