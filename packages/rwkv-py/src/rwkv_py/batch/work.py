"""The work itself: many lines at once, so that the model is never without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .journal import Journal
from .line import BadLine, Line
from .lines import Lines
from .output import answer_line

__all__ = ["Answer", "Answered", "NotNow", "Progress", "work_through"]

# How often what is noted is made safe from power cuts, and how long what is full or broken is let
# alone before the next try, in seconds.
_SYNC_SECONDS = 5.0
_MAX_PAUSE = 60.0
_MAX_TRIES = 10


class Answered(NamedTuple):
    """An answer.

    Attributes:
        status: as of HTTP; from 400 on it is a failure.
        body: JSON.
        n_tokens: how many were read and written for it.
    """

    status: int
    body: bytes
    n_tokens: int


class NotNow(Exception):
    """There is no room for a line now, or something is broken that may be mended.

    Attributes:
        answered: the failure that is told if it stays so; None: it is tried again for ever.
    """

    def __init__(self, answered: Answered | None):
        super().__init__()
        self.answered = answered


Answer: TypeAlias = Callable[[int, Line | BadLine], Awaitable[Answered]]
"""From a line's number and what it says to its answer; raises `NotNow`."""


@dataclass
class Progress:
    """How far the work is.

    Attributes:
        n_lines: how many lines there are.
        n_done: how many have an answer.
        n_failed: how many of those are failures.
        n_tokens: how many tokens were read and written since it began, or went on.
    """

    n_lines: int
    n_done: int
    n_failed: int
    n_tokens: int = 0


async def work_through(
    lines: Lines,
    journal: Journal,
    answer: Answer,
    *,
    work: str,
    at_once: int,
    may_begin: Callable[[], Awaitable[None]] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> None:
    """Answer all lines that the journal does not know, and note the answers there.

    Args:
        lines: the requests.
        journal: what is known.
        answer: answers one.
        work: its name, see `answer_line`.
        at_once: how many are worked on at once.
        may_begin: waits until a line may begin; None: each may at once.
        progress: called after each line.

    Raises:
        InvalidArgumentError: the lines are not as they were.
        OSError: the journal cannot be written.
    """
    told = Progress(len(lines), journal.n_done, journal.n_failed)
    left = (int(number) for number in lines.order if not journal.knows(number))

    async def one_after_the_other(left: Iterator[int]) -> None:
        for number in left:
            if may_begin is not None:
                await may_begin()
            line: Line | BadLine
            try:
                line = lines.parse(number)
            except BadLine as error:
                line = error
            answered = await _patiently(answer, number, line)
            failed = answered.status >= 400
            name = line.custom_id
            record = answer_line(work, number, name, answered.status, answered.body)
            journal.add(number, record, failed=failed)
            told.n_done += 1
            told.n_failed += failed
            told.n_tokens += answered.n_tokens
            if progress is not None:
                progress(told)

    if progress is not None:
        progress(told)
    syncing = asyncio.create_task(_sync(journal))
    workers = [asyncio.create_task(one_after_the_other(left)) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in (syncing, *workers):
            task.cancel()
        await asyncio.gather(syncing, *workers, return_exceptions=True)
    lines.check_unchanged()


async def _patiently(answer: Answer, number: int, line: Line | BadLine) -> Answered:
    """Return the answer to a line, after more tries if need be."""
    n_tries = 0
    while True:
        try:
            return await answer(number, line)
        except NotNow as refusal:
            n_tries += 1
            if refusal.answered is not None and n_tries == _MAX_TRIES:
                return refusal.answered
            await asyncio.sleep(min(_MAX_PAUSE, 0.1 * 2**n_tries))


async def _sync(journal: Journal) -> None:
    while True:
        await asyncio.sleep(_SYNC_SECONDS)
        with contextlib.suppress(OSError):  # writing says what is wrong
            await asyncio.to_thread(journal.sync)
