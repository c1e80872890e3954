"""Work of which one piece is done at a time, for many clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from ..waiting_line import refusal

__all__ = ["Turns"]


class Turns:
    """Lets one at a time work: of those who wait, whoever had a turn the longest ago comes next.

    Used in the event loop alone.

    Args:
        max_waiting: how many wait, at most; a client may not take more places than it leaves free.
    """

    def __init__(self, max_waiting: int):
        self._max_waiting = max_waiting
        self._busy = False
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._had: dict[str, float] = {}  # when each that is here had its last turn
        self._seconds = 0.0  # that a turn takes, lately
        self._begun = 0.0  # when the one at work began

    @property
    def seconds_to_begin(self) -> float:
        """How long one who comes now waits for a turn, as it was lately."""
        return self._seconds_each() * (len(self._still_waiting()) + self._busy)

    @contextlib.asynccontextmanager
    async def turn(self, share: str) -> AsyncIterator[None]:
        """Wait for a turn, and work.

        Args:
            share: whose work it is.

        Raises:
            EngineFullError: too many wait.
        """
        await self._wait(share)
        self._begun = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - self._begun
            self._seconds += (took - self._seconds) / 8 if self._seconds else took
            self._had[share] = time.monotonic()
            self._pass_on()

    async def _wait(self, share: str) -> None:
        if not self._busy:
            self._busy = True
            return
        self._waiting = self._still_waiting()
        own = sum(each == share for each, _ in self._waiting)
        refused = refusal(self._max_waiting, len(self._waiting), own, self._seconds_each())
        if refused is not None:
            raise refused
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was just given
                self._pass_on()
            raise

    def _still_waiting(self) -> list[tuple[str, asyncio.Future[None]]]:
        """Return those who have not gone away."""
        return [(share, turn) for share, turn in self._waiting if not turn.cancelled()]

    def _seconds_each(self) -> float:
        if self._seconds:
            return self._seconds
        # Nobody has had a turn yet: at least what the first takes.
        return time.monotonic() - self._begun if self._busy else 0.0

    def _pass_on(self) -> None:
        self._waiting = self._still_waiting()
        self._busy = bool(self._waiting)
        if not self._waiting:
            self._had.clear()
            return
        share, turn = min(self._waiting, key=lambda one: self._had.get(one[0], 0.0))
        self._waiting.remove((share, turn))
        turn.set_result(None)
