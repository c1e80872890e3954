"""Guesses from the text itself: what followed the last time that it read so.

The longest suffix of the text that occurred before is found by a suffix automaton (Blumer et al.
1985), built while the text grows: amortised a constant time a token, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

__all__ = ["LookupGuesser"]

# Texts that grow longer are looked through from their last half on: each token takes some hundred
# bytes.
_MAX_TOKENS = 1 << 16


class LookupGuesser:
    """Guesses that what followed the longest suffix of the text before follows it again.

    >>> guesser = LookupGuesser()
    >>> guesser.begin(list(b"import os; import o"))
    >>> LookupGuesser.guess([(guesser, 4)])[0] == list(b"s; i")
    True
    """

    is_free = True

    def __init__(self) -> None:
        self._build([])

    def _build(self, tokens: list[int]) -> None:
        self._text: list[int] = []
        # A state is a set of substrings that end at the same places of the text. Of each: the next
        # state by token, the length of its longest substring, the state of the longest suffix that
        # ends at more places (-1: the empty one's), and the place after the last end that is known.
        self._next: list[dict[int, int]] = [{}]
        self._length = [0]
        self._link = [-1]
        self._end = [0]
        self._last = 0
        self._match = (0, 0)  # how long the suffix is that occurred before, and the place after it
        for token in tokens:
            self._extend(token)

    @property
    def source(self) -> str:
        """Return "lookup" with the length of the match, by powers of two; "" if there is none."""
        length = self._match[0]
        return f"lookup {min(length.bit_length(), 6)}" if length else ""

    def begin(self, text: list[int]) -> None:
        """Know the text so far, from its beginning; it may go on with the last one."""
        n_known = len(self._text)
        if text[:n_known] != self._text or len(text) > _MAX_TOKENS:
            self._build(text[-_MAX_TOKENS // 2 :])
            return
        for token in text[n_known:]:
            self._extend(token)

    def read(self, token: int) -> None:
        """Know that the text goes on with this."""
        self._extend(token)
        if len(self._text) > _MAX_TOKENS:
            self._build(self._text[-_MAX_TOKENS // 2 :])

    @classmethod
    def guess(cls, wanted: Sequence[tuple[Self, int]]) -> list[list[int]]:
        """Guess for several texts at once: for each at most so many tokens."""
        return [guesser._guess(n) for guesser, n in wanted]

    def _guess(self, n: int) -> list[int]:
        length, at = self._match
        if not length:
            return []
        found = self._text[at : at + n]
        period = len(found)
        while len(found) < n:  # it ran into the end: the text repeats itself
            found.append(found[-period])
        return found

    def _extend(self, token: int) -> None:
        text, next_, length, link = self._text, self._next, self._length, self._link
        text.append(token)
        new = len(next_)
        next_.append({})
        length.append(len(text))
        self._end.append(len(text))
        state = self._last
        while state >= 0 and token not in next_[state]:
            next_[state][token] = new
            state = link[state]
        if state < 0:
            link.append(0)
        else:
            target = next_[state][token]
            if length[target] == length[state] + 1:
                link.append(target)
            else:  # only its shorter substrings end here, too: they become a state of their own
                clone = len(next_)
                link.append(clone)
                next_.append(next_[target].copy())
                length.append(length[state] + 1)
                link.append(link[target])
                self._end.append(self._end[target])
                link[target] = clone
                while state >= 0 and next_[state].get(token) == target:
                    next_[state][token] = clone
                    state = link[state]
        self._last = new
        # The longest suffix that occurred before is the link's. From now on its last end is here.
        suffix = link[new]
        self._match = (length[suffix], self._end[suffix])
        if suffix:
            self._end[suffix] = len(text)
