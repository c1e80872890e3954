"""Which texts are kept, so that those that a new text begins with are found among many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator

from .sequence import ReadText, next_anchor

__all__ = ["TextIndex", "beginnings"]


class TextIndex:
    """The lengths of texts, by what they were read after and by their `ReadText.anchor`.

    A new text need be compared with those alone that have its own anchors: it has one for each
    doubling of its length. However many texts are kept, of those of another beginning it sees none.
    """

    def __init__(self) -> None:
        self._lengths: dict[Hashable, dict[int, int]] = {}  # and of how many texts each is

    def add(self, key: Hashable, n_bytes: int) -> None:
        """Note a text: `key` is what it was read after, with its anchor."""
        lengths = self._lengths.setdefault(key, {})
        lengths[n_bytes] = lengths.get(n_bytes, 0) + 1

    def discard(self, key: Hashable, n_bytes: int) -> None:
        """Forget a text that was noted."""
        lengths = self._lengths[key]
        lengths[n_bytes] -= 1
        if not lengths[n_bytes]:
            del lengths[n_bytes]
        if not lengths:
            del self._lengths[key]

    def lengths(self, key: Hashable) -> list[int]:
        """Return the lengths of the texts noted so."""
        return list(self._lengths.get(key, ()))


def beginnings(
    before: ReadText, text: bytes, lengths: Callable[[bytes], Collection[int]]
) -> Iterator[ReadText]:
    """Return what has been read after each beginning of `text` that may be a known one.

    Args:
        before: what was read before it.
        text: the bytes that come next.
        lengths: returns how long the known texts with an anchor are.

    Returns:
        Each beginning of at least one byte, the shortest first.
    """
    here, end = before, before.n_bytes + len(text)

    def read_to(n_bytes: int) -> ReadText:
        return here.followed_by(text[here.n_bytes - before.n_bytes : n_bytes - before.n_bytes])

    while True:
        for n_bytes in sorted(lengths(here.anchor)):
            if before.n_bytes < n_bytes <= end:
                here = read_to(n_bytes)
                yield here
        anchor = next_anchor(here.n_bytes)
        if anchor > end:
            return
        here = read_to(anchor)
