"""Second moments of what matrices multiply, the same to the bit whatever the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Workers", "add_moments", "mirror"]

# Columns of a piece of the work. The pieces are the same for any number of threads, and each is
# computed by one: so sums are formed in the same order.
_PANEL = 512


class Workers:
    """Threads, each of which computes products of matrices alone."""

    def __init__(self, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="rwkv-calibrate")

    def run(self, tasks: Iterable[Callable[[], Any]]) -> list[Any]:
        """Do all tasks; return what they return, in order, or raise what one raises."""
        pending = [self._pool.submit(task) for task in tasks]
        try:
            return [task.result() for task in pending]
        finally:
            for task in pending:
                task.cancel()

    @classmethod
    @contextmanager
    def started(cls, n_threads: int) -> Iterator[Workers]:
        """Yield workers, while whose BLAS has no threads of its own.

        Raises:
            ImportError: threadpoolctl is not installed.
        """
        from threadpoolctl import threadpool_limits

        workers = cls(n_threads)
        with threadpool_limits(1, user_api="blas"), workers._pool:
            yield workers


def add_moments(
    moments: NDArray[np.float32], rows: NDArray[np.float32]
) -> Iterator[Callable[[], None]]:
    """Yield tasks that add rows^T rows to the lower triangle of `moments`.

    Args:
        moments: (columns, columns).
        rows: (n, columns), which must stay as they are until the tasks are done.
    """
    columns = rows.shape[1]

    def add(begin: int, end: int) -> None:
        moments[begin:end, :end] += rows[:, begin:end].T @ rows[:, :end]

    for begin in range(0, columns, _PANEL):
        end = min(begin + _PANEL, columns)
        yield lambda begin=begin, end=end: add(begin, end)  # type: ignore[misc]


def mirror(moments: NDArray[np.float32]) -> None:
    """Fill the upper triangle from the lower one, in place."""
    columns = len(moments)
    for begin in range(0, columns, _PANEL):
        end = min(begin + _PANEL, columns)
        moments[:begin, begin:end] = moments[begin:end, :begin].T
        corner = moments[begin:end, begin:end]
        lower = np.tril(corner)
        corner[...] = lower + np.tril(corner, -1).T
