"""Those who wait for their turn: who may join them, who comes next, how long it takes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from .errors import EngineFullError
from .request import Request
from .task import Task

__all__ = ["WaitingLine", "refusal"]

_MEMORY = 32
"""How many texts count in what is measured: the work may be of another kind now."""


class WaitingLine:
    """The requests of an engine that wait for their turn; the engine's lock guards it.

    Who could begin at once does not count as waiting, even if nobody has called him yet.

    Args:
        max_running: how many are at work at once, at most.
        max_waiting: how many wait, at most; None: any number.
    """

    def __init__(self, max_running: int, max_waiting: int | None):
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._tasks: deque[Task] = deque()
        self._n_measured = 0
        self._seconds = 0.0  # that a text takes once its turn has come, on average

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def clear(self) -> None:
        """Let nobody wait any more."""
        self._tasks.clear()

    def join(self, task: Task) -> None:
        """Let one wait; first ask whether it may."""
        self._tasks.append(task)

    def refusal(self, share: str, running: list[Task]) -> EngineFullError | None:
        """Return why one may not wait, if it may not, see the function of that name.

        Args:
            share: whose request it is; "" is nobody's.
            running: who is at work.
        """
        if self._max_waiting is None:
            return None
        at_work, waiting = _there(running), _there(self._tasks)
        n_waiting = len(waiting) + len(at_work) - self._max_running
        if n_waiting < 0:
            return None
        own = min(n_waiting, sum(task.share == share for task in waiting)) if share else 0
        return refusal(self._max_waiting, n_waiting, own, self._seconds_each(at_work))

    def seconds_to_begin(self, running: list[Task]) -> float:
        """Return how long one who comes now waits for a turn, as it was lately."""
        at_work = _there(running)
        n_leaving = len(_there(self._tasks)) + len(at_work) - self._max_running + 1
        return max(0, n_leaving) * self._seconds_each(at_work)

    def seconds_to_end(self, running: list[Task]) -> float:
        """Return how long it takes until all have left, as it was lately."""
        at_work = _there(running)
        return (len(_there(self._tasks)) + len(at_work)) * self._seconds_each(at_work)

    def take(self, running: list[Task]) -> list[Task]:
        """Return those whose turn it is, beside those at work; they wait no more.

        Of those who wait, the first of whoever has the fewest at work comes next.
        """
        self._tasks = deque(task for task in self._tasks if not task.request.done)
        shares = Counter(task.share for task in running)
        taken: list[Task] = []
        while self._tasks and len(running) + len(taken) < self._max_running:
            task = min(self._tasks, key=lambda task: shares[task.share])  # of equals the first
            self._tasks.remove(task)
            shares[task.share] += 1
            taken.append(task)
        return taken

    def learn(self, request: Request) -> None:
        """Measure how long a text took that has ended."""
        if request.started_at is not None and request.finished_at is not None:
            self._n_measured = min(self._n_measured + 1, _MEMORY)
            took = request.finished_at - request.started_at
            self._seconds += (took - self._seconds) / self._n_measured

    def _seconds_each(self, at_work: list[Task]) -> float:
        """Return how much time lies between two that leave, as it was lately."""
        if self._n_measured:
            seconds = self._seconds
        else:  # nobody has left yet: at least what those take that are there
            now = time.monotonic()
            begun = [task.request.started_at for task in at_work]
            seconds = max((now - at for at in begun if at is not None), default=0.0)
        return seconds / max(1, len(at_work))


def _there(tasks: Iterable[Task]) -> list[Task]:
    return [task for task in tasks if not task.request.done]


def refusal(max_waiting: int, n_waiting: int, own: int, seconds: float) -> EngineFullError | None:
    """Return why one more may not wait, if it may not.

    A share may have no more places than it leaves to others: alone half of them, beside another
    that wants as many a third. So there is always one for who has none.

    Args:
        max_waiting: how many wait, at most.
        n_waiting: how many do.
        own: how many of them are of the share.
        seconds: between two that leave.
    """
    free = max_waiting - n_waiting
    if free > own:
        return None
    what = (
        f"expected fewer than {free} requests of one client in line while {free} places are free, "
        f"got {own}"
        if free > 0
        else f"expected fewer than {max_waiting} requests in line, got {n_waiting}"
    )
    return EngineFullError(
        f"engine: {what}",
        remedy="Try again later, or Engine(..., max_waiting=) with more",
        retry_seconds=seconds * (own - free + 1),  # as many must leave as are missing
    )
