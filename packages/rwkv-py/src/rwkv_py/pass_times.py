"""How long a pass of so many rows takes on this machine, as measured while passes are made."""

from __future__ import annotations

import bisect

__all__ = ["PassTimes"]

# How many of the last passes of as many rows count.
_N_PASSES = 16

# What another row is expected to add where nothing was measured: a share of the pass, hopeful, so
# that it is tried.
_UNKNOWN_ROW = 0.01

# What a number of rows between others is guessed to take more than the smaller one: this part of
# what a line between them says.
_HOPE = 0.75

# What was not measured for so many passes is old, and doubted with each pass: by this share of what
# it takes more than the next smaller number of rows.
_OLD = 32
_DOUBT = 0.01


class PassTimes:
    """Seconds by number of rows: means of what was measured, and guesses between them.

    A guess is hopeful, so that what is guessed comes to be tried: kernels take rows by twos and by
    fours, so times climb in steps, and four rows may take as long as two where five take a half
    more.

    What is known of a number of rows decides whether it is used again. So what was measured in a
    bad moment must not stay: what is old comes to be tried again, at the cost of a slow pass among
    many; and a pass of more rows than any before, which asks for memory, says nothing of the next.

    >>> times = PassTimes()
    >>> [times.learn(rows, seconds) for rows, seconds in [(1, 1.5), (1, 1.0), (5, 4.0), (5, 3.0)]]
    [1.5, 1.0, 4.0, 3.0]
    >>> times.of(3)
    1.75
    """

    def __init__(self) -> None:
        # Rows in order; of each the mean seconds, of how many passes, and which pass was the last.
        # Replaced as a whole: several threads use it.
        self._known: tuple[list[int], list[float], list[int], list[int]] = ([], [], [], [])
        self._n_passes = 0
        self._most_rows = 0

    def learn(self, n_rows: int, seconds: float) -> float:
        """Know of another pass; return how long such a pass takes, or took if that is all."""
        if n_rows > self._most_rows:
            self._most_rows = n_rows
            return seconds
        rows, means, counts, last = self._known
        rows, means, counts, last = rows[:], means[:], counts[:], last[:]
        self._n_passes = now = self._n_passes + 1
        i = bisect.bisect_left(rows, n_rows)
        if i == len(rows) or rows[i] != n_rows:
            rows.insert(i, n_rows)
            means.insert(i, seconds)
            counts.insert(i, 1)
            last.insert(i, now)
        else:
            if counts[i] >= 3:
                seconds = min(seconds, 3 * means[i])  # the machine was busy with something else
            counts[i] = min(counts[i] + 1, _N_PASSES)
            means[i] += (seconds - means[i]) / counts[i]
            last[i] = now
        for k, each in enumerate(last):
            if now - each < _OLD:
                continue
            counts[k] = 1
            # More rows never take less time than fewer.
            if k < i:
                means[k] = min(means[k], means[i])
            else:
                means[k] = max(means[k], means[i])
                means[k] -= _DOUBT * max(means[k] - means[k - 1], 0.0)
        self._known = rows, means, counts, last
        return means[i]

    def of(self, n_rows: int) -> float | None:
        """Return the seconds that a pass of `n_rows` should take; None before any was measured."""
        rows, means, _, _ = self._known
        if not rows:
            return None
        i = bisect.bisect_left(rows, n_rows)
        if i == len(rows):
            return means[-1] * (1 + _UNKNOWN_ROW * (n_rows - rows[-1]))
        if i == 0 or rows[i] == n_rows:
            return means[i]
        share = (n_rows - rows[i - 1]) / (rows[i] - rows[i - 1])
        return means[i - 1] + _HOPE * share * (means[i] - means[i - 1])
