"""Whether the machine is quiet: what other processes do while we do nothing."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

QUIET = 0.1
"""Cores that other processes may use, all together, while figures for docs/ are measured."""

PAUSE = 0.3
"""Seconds of a look. The kernel counts in steps of 10 ms on each core."""


class Others:
    """Looks at the other processes, each time for PAUSE seconds, in which our own must wait."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def look(self) -> float:
        """Cores that were busy meanwhile, with what a host takes for its other guests."""
        before, start = _busy_seconds(), time.monotonic()
        time.sleep(PAUSE)
        used = (_busy_seconds() - before) / (time.monotonic() - start)
        self._seen.append(used)
        return used

    def median(self) -> float:
        """Of all looks since the last call."""
        seen, self._seen = self._seen, []
        return statistics.median(seen)


def _busy_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Processor time of all cores since the start that was neither idle nor waiting for a disk."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, stat.read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def now() -> float:
    """Cores that others use: the median of a few looks."""
    others = Others()
    for _ in range(5):
        others.look()
    return others.median()


def require(used: float) -> None:
    """Refuses a machine that is not quiet.

    Raises:
        SystemExit: other processes use more than QUIET cores.
    """
    if used > QUIET:
        raise SystemExit(
            f"--docs: other processes, expected at most {QUIET} cores in use, got {used:.2f}. "
            "Try again when the machine is quiet, or without --docs"
        )
