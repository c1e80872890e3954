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
        # Rows in order; of each the mean seconds, and of how many passes. Replaced as a whole:
        # several threads use it.
        self._known: tuple[list[int], list[float], list[int]] = ([], [], [])

    def learn(self, n_rows: int, seconds: float) -> None:
        """Know of another pass."""
        rows, means, counts = self._known
        rows, means, counts = rows[:], means[:], counts[:]
        i = bisect.bisect_left(rows, n_rows)
        if i == len(rows) or rows[i] != n_rows:
            rows.insert(i, n_rows)
            means.insert(i, seconds)
            counts.insert(i, 1)
        else:
            if counts[i] >= 3:
                seconds = min(seconds, 3 * means[i])  # the machine was busy with something else
            counts[i] = min(counts[i] + 1, _N_PASSES)
            means[i] += (seconds - means[i]) / counts[i]
        self._known = rows, means, counts

    def of(self, n_rows: int) -> float | None:
        """Return the seconds that a pass of `n_rows` should take; None before any was measured."""
        rows, means, _ = self._known
        if not rows:
            return None
        i = bisect.bisect_left(rows, n_rows)
        if i == len(rows):
            return means[-1] * (1 + _UNKNOWN_ROW * (n_rows - rows[-1]))
        if i == 0 or rows[i] == n_rows:
            return means[i]
        share = (n_rows - rows[i - 1]) / (rows[i] - rows[i - 1])
        return means[i - 1] + share * (means[i] - means[i - 1])
