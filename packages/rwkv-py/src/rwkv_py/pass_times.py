"""How long a pass of so many rows takes on this machine, as measured while passes are made."""

from __future__ import annotations

import bisect

__all__ = ["PassTimes"]

# How many of the last passes of as many rows count.
_N_PASSES = 16

# What another row is expected to add where nothing was measured: a share of the pass, hopeful, so
# that it is tried.
_UNKNOWN_ROW = 0.01


class PassTimes:
    """Seconds by number of rows: means of what was measured, and lines between them.

    >>> times = PassTimes()
    >>> times.learn(1, 0.010)
    >>> times.learn(5, 0.012)
    >>> times.of(3)
    0.011
    """

    def __init__(self) -> None:
        self._rows: list[int] = []  # in order
        self._means: list[float] = []  # of each, seconds
        self._counts: list[int] = []

    def learn(self, n_rows: int, seconds: float) -> None:
        """Know of another pass."""
        i = bisect.bisect_left(self._rows, n_rows)
        if i == len(self._rows) or self._rows[i] != n_rows:
            self._rows.insert(i, n_rows)
            self._means.insert(i, seconds)
            self._counts.insert(i, 1)
            return
        if self._counts[i] >= 3:
            seconds = min(seconds, 3 * self._means[i])  # the machine was busy with something else
        self._counts[i] = min(self._counts[i] + 1, _N_PASSES)
        self._means[i] += (seconds - self._means[i]) / self._counts[i]

    def of(self, n_rows: int) -> float | None:
        """Return the seconds that a pass of `n_rows` should take; None before any was measured."""
        rows, means = self._rows, self._means
        if not rows:
            return None
        i = bisect.bisect_left(rows, n_rows)
        if i == len(rows):
            return means[-1] * (1 + _UNKNOWN_ROW * (n_rows - rows[-1]))
        if i == 0 or rows[i] == n_rows:
            return means[i]
        share = (n_rows - rows[i - 1]) / (rows[i] - rows[i - 1])
        return means[i - 1] + share * (means[i] - means[i - 1])
