"""Batches being answered: beside what clients wait for, and after a restart where they were."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.requests import Request

from ..batch import Answered, BadLine, Journal, Line, Lines, Outputs, Progress, work_through
from ..batch.output import unanswered_line
from ..errors import InvalidArgumentError
from .batch_answers import BatchAnswers
from .context import Context
from .errors import ApiError
from .file_store import FileStore

__all__ = ["BatchRuns", "BatchRunsOf"]

_T = TypeVar("_T")

_log = logging.getLogger("rwkv_py.server")

_MAX_UNFINISHED = 100  # of one owner
_SHARE = "batch "  # how the shares of batches begin, and no others
_PAUSE = 0.02  # seconds until it is looked again whether a line may begin
_DISK_PAUSE = 30.0  # and whether a disk works again
_SECONDS = {"h": 3600, "d": 86400}


@dataclass
class _Run:
    """A batch that is at work.

    Attributes:
        batch: as clients see it; changed in place.
        work: what answers lines, as far as it has come to that.
        n_at_work: how many lines are being answered.
    """

    batch: dict[str, Any]
    work: asyncio.Task[None] | None = None
    n_at_work: int = 0
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)

    def tell(self, progress: Progress) -> None:
        """Note how far it is."""
        self.batch["request_counts"] = {
            "total": progress.n_lines,
            "completed": progress.n_done - progress.n_failed,
            "failed": progress.n_failed,
        }


class BatchRuns:
    """All batches of a server: of one owner one after the other, of several owners at once.

    Used in the event loop alone.

    Args:
        context: what answers.
        store: where they are kept.

    Attributes:
        store: the same.
    """

    def __init__(self, context: Context, store: FileStore):
        self.store = store
        self._context = context
        self._runs: dict[str, _Run] = {}
        self._owners: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Go on with those that had not ended when the server did."""
        unfinished = self.store.unfinished()
        needed = {batch["id"] for _, batch in unfinished}
        for path in self.store.journals.iterdir():
            if path.name not in needed:
                path.unlink()
        for owner, _ in unfinished:
            self._begin_for(owner)

    async def close(self) -> None:
        """Stop; what is answered is kept, and the rest is done when the server comes again."""
        for task in self._owners.values():
            task.cancel()
        await asyncio.gather(*self._owners.values(), return_exceptions=True)
        self.store.close()

    def create(self, ask: dict[str, Any], owner: str) -> dict[str, Any]:
        """Begin a batch; return it.

        Args:
            ask: the fields of `BatchRequest`.
            owner: whose it is.

        Raises:
            ApiError: there is no room for it, or the disk fails.
        """
        self.store.check_room(1, owner)
        n_unfinished = sum(whose == owner for whose, _ in self.store.unfinished())
        if n_unfinished >= _MAX_UNFINISHED:
            message = (
                f"batches: expected fewer than {_MAX_UNFINISHED} that have not ended, got "
                f"{n_unfinished}"
            )
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=60)
        now = int(time.time())
        window = ask["completion_window"]
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
        batch = {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": "batch",
            **ask,
            "errors": None,
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + int(window[:-1]) * _SECONDS[window[-1]],
            **{f"{name}_at": None for name in (*times, "cancelled")},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        self.store.save(batch, owner)
        self._begin_for(owner)
        return batch

    def all(self, owner: str) -> list[dict[str, Any]]:
        """Return all of an owner, the oldest first.

        Raises:
            ApiError: the disk fails.
        """
        return [self._as_it_is(batch) for batch in self.store.batches(owner)]

    def find(self, id: str, owner: str) -> dict[str, Any]:
        """Return one.

        Raises:
            ApiError: there is none of that name, or the disk fails.
        """
        return self._as_it_is(self.store.find_batch(id, owner))

    def cancel(self, id: str, owner: str) -> dict[str, Any]:
        """Answer no more lines of one; return it. One whose lines are all answered is let alone.

        Raises:
            ApiError: there is none of that name, or it has ended; or the disk fails.
        """
        batch = self.find(id, owner)
        if batch["status"] not in ("validating", "in_progress", "finalizing", "cancelling"):
            status = batch["status"]
            raise ApiError(400, f"batch_id: expected one that has not ended, got one {status}")
        run = self._runs.get(id)
        if batch["status"] in ("validating", "in_progress"):
            _set(batch, "cancelling")
            if (
                run is None and not (self.store.journals / id).exists()
            ):  # nothing has come of it yet
                _set(batch, "cancelled")
            self.store.save(batch, owner)
            if run is not None and run.work is not None:
                run.work.cancel()
        return batch

    def _as_it_is(self, batch: dict[str, Any]) -> dict[str, Any]:
        run = self._runs.get(batch["id"])
        return batch if run is None else run.batch

    # What is done in tasks, one for each owner.

    def _begin_for(self, owner: str) -> None:
        if owner not in self._owners:
            self._owners[owner] = asyncio.create_task(self._work_for(owner))

    async def _work_for(self, owner: str) -> None:
        """Work through the batches of an owner until there are no more."""
        try:
            while True:
                try:
                    left = [each for whose, each in self.store.unfinished() if whose == owner]
                    if not left:
                        return
                    await self._work_through(left[0], owner)
                except (ApiError, OSError, sqlite3.Error) as error:
                    _log.error("a batch cannot go on: %s", type(error).__name__)
                    await asyncio.sleep(_DISK_PAUSE)
        finally:
            del self._owners[owner]

    async def _work_through(self, batch: dict[str, Any], owner: str) -> None:
        """Answer the lines of a batch, or as many as there is time for, and end it."""
        run = self._runs[batch["id"]] = _Run(batch)
        try:
            path = self.store.path_of(batch["input_file_id"])
            most = self._context.settings.max_body_bytes
            try:
                lines = await _to_its_end(functools.partial(Lines, path, max_bytes=most))
            except (InvalidArgumentError, FileNotFoundError):
                message = "input_file_id: expected a file that is kept, got one that is gone"
                self._fail(batch, owner, "file_not_found", message)
                return
            with lines:
                if not len(lines):
                    message = "input_file_id: expected a file with a request, got an empty one"
                    self._fail(batch, owner, "empty_file", message)
                    return
                facts = {"batch": batch["id"], "input": lines.digest}
                place = self.store.journals / batch["id"]
                opening = functools.partial(Journal, place, facts, len(lines))
                with await _to_its_end(opening) as journal:
                    end = await self._answer(run, owner, lines, journal)
                    await self._finish(run, owner, lines, journal, end)
                    journal.delete()
        except (ApiError, OSError, sqlite3.Error):
            raise  # a disk, that may work again
        except Exception as error:
            _log.error("fault: %s in a batch", type(error).__name__)
            message = f"server: expected answers, got {type(error).__name__}"
            self._fail(batch, owner, "fault", message)
        finally:
            del self._runs[batch["id"]]

    async def _answer(self, run: _Run, owner: str, lines: Lines, journal: Journal) -> str:
        """Answer lines until there are no more or there is no more time; return what it ends as."""
        batch = run.batch
        run.tell(Progress(len(lines), journal.n_done, journal.n_failed))
        if batch["status"] == "cancelling":
            return "cancelled"
        if batch["status"] == "validating":
            _set(batch, "in_progress")
            self.store.save(batch, owner)
        work = _work_of(batch)
        share = _SHARE + owner  # not that of what its owner waits for
        answers = BatchAnswers(
            self._context, share, owner, work, int(work, 16), batch["created_at"], batch["endpoint"]
        )

        async def answer(number: int, line: Line | BadLine) -> Answered:
            try:
                return await answers.answer(number, line)
            finally:
                run.n_at_work -= 1

        async def may_begin() -> None:
            async with run.gate:
                while self._n_at_work() >= self._room():
                    await asyncio.sleep(_PAUSE)
                run.n_at_work += 1

        run.work = asyncio.create_task(
            work_through(
                lines,
                journal,
                answer,
                work=work,
                at_once=self._most(),
                may_begin=may_begin,
                progress=run.tell,
            )
        )
        try:
            seconds = max(0.0, batch["expires_at"] - time.time())
            await asyncio.wait({run.work}, timeout=seconds)
        finally:
            run.work.cancel()
            await asyncio.wait({run.work})
        if batch["status"] == "cancelling":
            return "cancelled"
        if run.work.cancelled():
            return "expired"
        run.work.result()
        return "completed"

    async def _finish(
        self, run: _Run, owner: str, lines: Lines, journal: Journal, end: str
    ) -> None:
        """Write what is answered to files, and end the batch."""
        batch = run.batch
        work = _work_of(batch)
        if end == "completed" and batch["status"] != "finalizing":
            _set(batch, "finalizing")
            self.store.save(batch, owner)
        ids = [f"file-{_named(batch, kind)}" for kind in ("output", "error")]
        outputs = Outputs(*map(self.store.path_of, ids))

        def write() -> None:
            if end == "expired":
                for number in range(len(lines)):
                    if not journal.knows(number):
                        _give_up(lines, journal, work, number)
            outputs.write(journal, len(lines))

        await _to_its_end(write)
        run.tell(Progress(len(lines), journal.n_done, journal.n_failed))
        kept = []
        for id, kind, n_lines in (
            (ids[0], "output", journal.n_done - journal.n_failed),
            (ids[1], "error", journal.n_failed),
        ):
            if n_lines:
                kept.append((id, f"{batch['id']}_{kind}.jsonl"))
                batch[f"{kind}_file_id"] = id
        _set(batch, end)
        self.store.save(batch, owner, kept)
        if journal.n_done == journal.n_failed:
            outputs.answers.unlink(missing_ok=True)

    def _fail(self, batch: dict[str, Any], owner: str, code: str, message: str) -> None:
        problem = {"code": code, "message": message, "line": None, "param": None}
        batch["errors"] = {"object": "list", "data": [problem]}
        _set(batch, "failed")
        self.store.save(batch, owner)

    # How much of the models batches take.

    def _most(self) -> int:
        """How many lines are answered at once, at most: who comes finds a free place."""
        return max(1, self._context.settings.max_running * 3 // 4)

    def _room(self) -> int:
        """How many lines may be answered at once now: fewer while clients wait for texts."""
        for served in self._context.models.loaded:
            if any(not share.startswith(_SHARE) for share in served.engine.shares):
                return max(1, self._context.settings.max_running // 4)
        return self._most()

    def _n_at_work(self) -> int:
        return sum(run.n_at_work for run in self._runs.values())


async def _to_its_end(work: Callable[[], _T]) -> _T:
    """Let a thread do something; who does not wait for it any more still sees it end."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        if doing.exception() is None and isinstance(found := doing.result(), Lines | Journal):
            found.close()
        raise


def _set(batch: dict[str, Any], status: str) -> None:
    batch["status"] = status
    batch[f"{status}_at"] = int(time.time())


def _work_of(batch: dict[str, Any]) -> str:
    return _named(batch, "work")[:16]


def _named(batch: dict[str, Any], kind: str) -> str:
    """Return a name that follows from that of the batch, which clients know."""
    text = f"{kind} {batch['id']}".encode()
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def _give_up(lines: Lines, journal: Journal, work: str, number: int) -> None:
    """Note that there was no time for a line."""
    try:
        name: str | None = lines.parse(number).custom_id
    except BadLine as error:
        name = error.custom_id
    message = "batch: expected an answer within its completion_window, got none"
    told = unanswered_line(work, number, name, "batch_expired", message)
    journal.add(number, told, failed=True)


def _runs_of(request: Request) -> BatchRuns:
    runs: BatchRuns | None = request.app.state.batches
    if runs is not None:
        return runs
    context: Context = request.app.state.context
    if context.settings.state_dir is not None:
        raise ApiError(503, "files: expected a disk that works, got a failure", retry_after=60)
    message = (
        "server: expected one that was given --state-dir, where files and batches are kept, got "
        "one without"
    )
    raise ApiError(400, message, code="no_state_dir")


BatchRunsOf = Annotated[BatchRuns, Depends(_runs_of)]
"""As the type of a route's parameter: the batches of the server that was asked."""
