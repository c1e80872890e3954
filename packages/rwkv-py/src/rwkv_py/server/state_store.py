"""States that clients keep, and the folder that they and the prefix caches keep them in."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidArgumentError, RwkvError, StateFileError, StateMismatchError
from ..session import Session
from ..state_folder import SavedState, StateFolder
from .errors import ApiError
from .models import Served
from .outage import Outage
from .settings import Settings

__all__ = ["StateStore", "fingerprint_of", "is_of_the_disk", "labelled", "open_folder"]

_log = logging.getLogger("rwkv_py.server")

_T = TypeVar("_T")

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_SQLITE_ERRORS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}


def open_folder(settings: Settings) -> StateFolder | None:
    """Open the folder that outlives the server; None if there is to be none.

    A disk that is full or cannot be written is told in the log, and the server goes on without.

    Raises:
        InvalidArgumentError: it is no folder, is used by another server, or a later version's.
    """
    if settings.state_dir is None:
        return None
    try:
        return StateFolder(settings.state_dir, budget=settings.state_disk_bytes)
    except InvalidArgumentError as error:
        if not is_of_the_disk(error.__cause__):
            raise
        _log.error("states cannot be kept: %s", error.__cause__.__class__.__name__)
        return None


class StateStore:
    """The states that clients keep: each its owner's, none ever changed.

    Args:
        lasting: the folder that outlives the server. None: they are kept until the server ends, in
            a temporary folder that is made when there is something to keep.
        max_bytes: what they may take.
        quota: what those of one owner may take; None: all of it.
    """

    def __init__(self, lasting: StateFolder | None, max_bytes: int, quota: int | None):
        self.lasting = lasting
        self._max_bytes = max_bytes
        self._quota = quota
        self._folder = lasting
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._changing = asyncio.Lock()  # so that their sizes are known while one is added
        self._taken: Counter[str] | None = None  # by owner; None: not known yet
        self._unreadable = Outage()
        self._unwritable = Outage()

    async def saved(self, owner: str) -> list[SavedState]:
        """Return all of an owner, in the order of saving.

        Raises:
            ApiError: the disk fails.
        """
        if self._folder is None:
            return []
        every = await self._on_disk(self._unreadable, self._folder.saved)
        return [state for state in every if state.notes["owner"] == owner]

    async def find(self, name: str, owner: str, *, field: str = "state") -> SavedState:
        """Return one.

        Raises:
            ApiError: it is not kept, or is somebody else's; or the disk fails.
        """
        found = None
        id = re.fullmatch(r"state_([0-9a-f]{32})", name)
        if self._folder is not None and id is not None:
            found = await self._on_disk(self._unreadable, self._folder.find, id[1])
        if found is None or found.notes["owner"] != owner:
            message = f"{field}: expected a state that is kept, got {name[:80]!r}"
            raise ApiError(404, message, code="state_not_found")
        return found

    async def session(self, state: SavedState, served: Served) -> Session:
        """Return a session that begins at a state.

        Raises:
            ApiError: it is another model's, or cannot be read.
        """
        self.check(state, served)

        def load() -> Session:
            assert self._folder is not None
            session = Session(served.model, tokenizer=served.tokenizer, cache=served.cache)
            session.load_state(self._folder.file_of(state))
            return session

        try:
            return await asyncio.to_thread(load)
        except StateFileError:
            raise _not_readable() from None

    @staticmethod
    def check(state: SavedState, served: Served) -> None:
        """Refuse the state of another model.

        Raises:
            ApiError: it is one.
        """
        own = fingerprint_of(StateFolder.model_name(served.model))
        if fingerprint_of(state.model) != own:
            raise ApiError(
                400,
                f"state: expected one of the model {served.name}, whose fingerprint is {own}, got "
                f"one of a model with fingerprint {fingerprint_of(state.model)}",
                code="state_of_another_model",
            )

    async def content(self, state: SavedState) -> bytes:
        """Return a state as a file.

        Raises:
            ApiError: it cannot be read.
        """
        assert self._folder is not None
        try:
            return await asyncio.to_thread(self._folder.file_of(state).read_bytes)
        except OSError:
            raise _not_readable() from None

    async def save(self, session: Session, notes: Mapping[str, Any]) -> SavedState:
        """Keep what a session remembers.

        Raises:
            ApiError: there is no room for it.
        """

        def save(folder: StateFolder) -> SavedState:
            return folder.save(session.model, session._moving().core, notes)

        return await self._saved(4 * session.model.state_size, notes["owner"], save)

    async def add(self, served: Served, data: bytes, notes: Mapping[str, Any]) -> SavedState:
        """Keep the state in the bytes of a file.

        Raises:
            ApiError: they are no state of that model; or there is no room for it.
        """

        def save(folder: StateFolder) -> SavedState:
            try:
                return folder.add(served.model, data, notes)
            except StateMismatchError:
                message = f"file: expected a state of the model {served.name}, got another model's"
                raise ApiError(400, message, code="state_of_another_model") from None
            except StateFileError as error:
                if error.__cause__ is not None:  # what the disk failed with
                    raise
                raise _no_state() from None
            except RwkvError:
                raise _no_state() from None

        return await self._saved(len(data), notes["owner"], save)

    async def fork(self, state: SavedState, notes: Mapping[str, Any]) -> SavedState:
        """Keep a state once more.

        Raises:
            ApiError: there is no room for it, or it is gone.
        """

        def copy(folder: StateFolder) -> SavedState:
            if not folder.file_of(state).is_file():  # it may have been deleted just now
                raise _not_readable()
            return folder.copy(state, notes)

        return await self._saved(state.n_bytes, notes["owner"], copy)

    async def delete(self, state: SavedState) -> None:
        """Delete one; a request that began there goes on.

        Raises:
            ApiError: the disk fails.
        """
        await asyncio.shield(self._delete(state))

    def close(self) -> None:
        """Write what waits to be written, and delete what is temporary."""
        if self._folder is not None:
            self._folder.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _saved(
        self, n_bytes: int, owner: str, save: Callable[[StateFolder], SavedState]
    ) -> SavedState:
        # What has begun is counted, also if nobody waits for it any more.
        return await asyncio.shield(self._save(n_bytes, owner, save))

    async def _save(
        self, n_bytes: int, owner: str, save: Callable[[StateFolder], SavedState]
    ) -> SavedState:
        """Keep one, of about so many bytes, if there is room for what it takes in the end."""
        async with self._changing:
            folder = await asyncio.to_thread(self._open)
            if self._taken is None:
                self._taken = await self._on_disk(self._unreadable, _taken_by_owner, folder)
            left = [(self._max_bytes - folder.saved_bytes, self._max_bytes, "states_full", "")]
            if self._quota is not None:
                of_owner = self._quota - self._taken[owner]
                left.append((of_owner, self._quota, "quota_exceeded", " of one key"))
            _check_room(n_bytes, left)
            saved = await self._on_disk(self._unwritable, save, folder)
            try:
                _check_room(saved.n_bytes, left)
            except ApiError:
                await self._on_disk(self._unwritable, folder.delete, saved.id)
                raise
            self._taken[owner] += saved.n_bytes
            return saved

    async def _delete(self, state: SavedState) -> None:
        assert self._folder is not None
        async with self._changing:
            delete = self._folder.delete
            was_there = await self._on_disk(self._unwritable, delete, state.id)
            if was_there and self._taken is not None:
                self._taken[state.notes["owner"]] -= state.n_bytes

    async def _on_disk(self, outage: Outage, work: Callable[..., _T], *args: Any) -> _T:
        """Let a thread do something with the folder.

        Raises:
            ApiError: the disk fails; and as `work`.
        """
        try:
            done = await asyncio.to_thread(work, *args)
        except StateFileError as error:
            if outage.begins():
                _log.error("a state cannot be kept or found: %s", type(error).__name__)
            message = "states: expected a disk that works, got a failure"
            raise ApiError(503, message, retry_after=outage.retry_seconds) from error
        outage.ends()
        return done

    def _open(self) -> StateFolder:
        if self._folder is None:
            try:
                self._temporary = tempfile.TemporaryDirectory(prefix="rwkv-states-")
            except OSError as error:
                self._unwritable.begins()
                message = "states: expected a folder to keep them in, got none"
                raise ApiError(503, message, retry_after=self._unwritable.retry_seconds) from error
            path = Path(os.fsdecode(self._temporary.name))
            self._folder = StateFolder(path, budget=self._max_bytes)
        return self._folder


def _taken_by_owner(folder: StateFolder) -> Counter[str]:
    taken: Counter[str] = Counter()
    for state in folder.saved():
        taken[state.notes["owner"]] += state.n_bytes
    return taken


def _check_room(n_bytes: int, left: Iterable[tuple[int, int, str, str]]) -> None:
    """Refuse what there is no room for.

    Args:
        n_bytes: what it takes.
        left: of each limit what is left, the limit, its code and whose it is.

    Raises:
        ApiError: it is more than what is left.
    """
    for n_left, most, code, whose in left:
        if n_bytes > n_left:
            message = f"states: expected room for {n_bytes} bytes, got {n_left} of {most}{whose}"
            raise ApiError(400, message, code=code)


def labelled(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is noted with a state that is kept now.

    Args:
        notes: owner, model (its name), tokens (how many were read, None if that is not known), told
            (`Written.told`, None for what is no conversation), and what its owner calls it: name
            and metadata.
    """
    return {"name": None, "metadata": {}, **notes, "created": int(time.time())}


def fingerprint_of(model_name: str) -> str:
    """Return the model's fingerprint, of `StateFolder.model_name`."""
    return model_name.partition("-")[0]


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an exception says that a disk is full, or does not work."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_ERRORS
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _not_readable() -> ApiError:
    message = "state: expected one that is kept, got one whose file cannot be read"
    return ApiError(404, message, code="state_not_found")


def _no_state() -> ApiError:
    return ApiError(400, "file: expected a state file, got another or a damaged one")
