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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError, RwkvError, StateFileError, StateMismatchError
from ..session import Session
from ..state_folder import SavedState, StateFolder
from .errors import ApiError
from .models import Served
from .settings import Settings

__all__ = ["StateStore", "fingerprint_of", "labelled", "open_folder"]

_log = logging.getLogger("rwkv_py.server")

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
        if not _is_of_the_disk(error.__cause__):
            raise
        _log.error("states cannot be kept: %s", error.__cause__.__class__.__name__)
        return None


class StateStore:
    """The states that clients keep: each its owner's, none ever changed.

    Args:
        lasting: the folder that outlives the server. None: they are kept until the server ends, in
            a temporary folder that is made when there is something to keep.
        max_bytes: what they may take.
    """

    def __init__(self, lasting: StateFolder | None, max_bytes: int):
        self.lasting = lasting
        self._max_bytes = max_bytes
        self._folder = lasting
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._saving = asyncio.Lock()  # so that their sizes are known while one is added

    async def saved(self, owner: str) -> list[SavedState]:
        """Return all of an owner, in the order of saving."""
        if self._folder is None:
            return []
        every = await asyncio.to_thread(self._folder.saved)
        return [state for state in every if state.notes["owner"] == owner]

    async def find(self, name: str, owner: str, *, field: str = "state") -> SavedState:
        """Return one.

        Raises:
            ApiError: it is not kept, or is somebody else's.
        """
        found = None
        id = re.fullmatch(r"state_([0-9a-f]{32})", name)
        if self._folder is not None and id is not None:
            found = await asyncio.to_thread(self._folder.find, id[1])
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
            message = "state: expected one that is kept, got one whose file cannot be read"
            raise ApiError(404, message, code="state_not_found") from None

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
            message = "state: expected one that is kept, got one whose file cannot be read"
            raise ApiError(404, message, code="state_not_found") from None

    async def save(self, session: Session, notes: Mapping[str, Any]) -> SavedState:
        """Keep what a session remembers.

        Raises:
            ApiError: there is no room for it.
        """

        def save(folder: StateFolder) -> SavedState:
            return folder.save(session.model, session._moving().core, notes)

        return await self._saved(4 * session.model.state_size, save)

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

        return await self._saved(len(data), save)

    async def fork(self, state: SavedState, notes: Mapping[str, Any]) -> SavedState:
        """Keep a state once more.

        Raises:
            ApiError: there is no room for it, or it is gone.
        """
        return await self._saved(state.n_bytes, lambda folder: folder.copy(state, notes))

    async def delete(self, state: SavedState) -> None:
        """Delete one; a request that began there goes on."""
        assert self._folder is not None
        await asyncio.to_thread(self._folder.delete, state.id)

    def close(self) -> None:
        """Write what waits to be written, and delete what is temporary."""
        if self._folder is not None:
            self._folder.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _saved(self, n_bytes: int, save: Any) -> SavedState:
        async with self._saving:
            folder = await asyncio.to_thread(self._open)
            left = self._max_bytes - folder.saved_bytes
            if n_bytes > left:
                raise ApiError(
                    400,
                    f"states: expected room for {n_bytes} bytes, got {left} of {self._max_bytes}",
                    code="states_full",
                )
            try:
                saved: SavedState = await asyncio.to_thread(save, folder)
            except StateFileError as error:
                _log.error("a state cannot be kept: %s", type(error).__name__)
                message = "states: expected a disk that can be written, got a failure"
                raise ApiError(503, message, retry_after=30) from error
            return saved

    def _open(self) -> StateFolder:
        if self._folder is None:
            try:
                self._temporary = tempfile.TemporaryDirectory(prefix="rwkv-states-")
            except OSError as error:
                message = "states: expected a folder to keep them in, got none"
                raise ApiError(503, message, retry_after=30) from error
            path = Path(os.fsdecode(self._temporary.name))
            self._folder = StateFolder(path, budget=self._max_bytes)
        return self._folder


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


def _is_of_the_disk(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_ERRORS
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _no_state() -> ApiError:
    return ApiError(400, "file: expected a state file, got another or a damaged one")
