"""Files that clients keep, and the batches made of them: on the disk, each its owner's."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..database import open_database
from ..errors import InvalidArgumentError
from .errors import ApiError
from .outage import Outage

__all__ = ["FileStore", "StoredFile"]

_log = logging.getLogger("rwkv_py.server")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    owner TEXT NOT NULL,
    ended INTEGER NOT NULL,                   -- whether nothing more is done for it
    content TEXT NOT NULL                     -- as clients see it, in JSON
);
PRAGMA user_version = 1;
"""
_VERSION = 1


@dataclass(frozen=True)
class StoredFile:
    """A file that is kept.

    Attributes:
        id: its name here.
        owner: whose it is; nobody else gets it.
        name: what its owner calls it.
        purpose: "batch", or "batch_output".
        n_bytes: its size.
        created: when, in seconds since 1970.
    """

    id: str
    owner: str
    name: str
    purpose: str
    n_bytes: int
    created: int


class FileStore:
    """All files and batches of a server. Used in the event loop, but for what says otherwise.

    Args:
        folder: where they are; made if it is not there.
        max_bytes: what files may take, all together.
        quota: what those of one owner may take; None: all of it.

    Attributes:
        folder: the same.
        journals: where it is noted what is answered of batches.

    Raises:
        InvalidArgumentError: the folder cannot be used, or a later version made it.
    """

    def __init__(self, folder: Path, max_bytes: int, quota: int | None):
        self.folder = folder
        self.journals = folder / "journals"
        self._max_bytes = max_bytes
        self._quota = quota
        self._outage = Outage()
        self._arriving: dict[str, int] = {}  # bytes of files that are being written, by owner
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.journals.mkdir(mode=0o700, exist_ok=True)
            self._database = open_database(folder / "index.sqlite", _SCHEMA, _VERSION)
            self._remove_strays()
        except (OSError, sqlite3.Error) as error:
            raise InvalidArgumentError(f"{folder}: expected a folder for files, got {error}") from (
                error
            )

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # Files.

    def path_of(self, id: str) -> Path:
        """Return where the content of a file is."""
        return self.folder / id

    def check_room(self, n_bytes: int, owner: str) -> None:
        """Refuse what there is no room for.

        Raises:
            ApiError: so many bytes more are too many.
        """
        with self._on_disk() as database:
            sizes = "SELECT total(bytes), total(bytes * (owner = ?)) FROM files"
            [[taken, own]] = database.execute(sizes, (owner,))
        limits = [(self._max_bytes, taken + sum(self._arriving.values()), "files_full", "")]
        if self._quota is not None:
            own += self._arriving.get(owner, 0)
            limits.append((self._quota, own, "quota_exceeded", " of one key"))
        for most, used, code, whose in limits:
            if n_bytes > most - used:
                left = max(0, int(most - used))
                message = f"files: expected room for {n_bytes} bytes, got {left} of {most}{whose}"
                raise ApiError(400, message, code=code)

    @contextlib.contextmanager
    def arriving(self, n_bytes: int, owner: str) -> Iterator[None]:
        """Keep room for a file while it is being written.

        Raises:
            ApiError: there is none.
        """
        self.check_room(n_bytes, owner)
        self._arriving[owner] = self._arriving.get(owner, 0) + n_bytes
        try:
            yield
        finally:
            self._arriving[owner] -= n_bytes

    def write(self, source: BinaryIO) -> str:
        """Write a content to the disk, in any thread; return the name that it has there.

        Raises:
            OSError: it cannot be written; nothing of it is left.
        """
        id = f"file-{secrets.token_hex(12)}"
        path = self.path_of(id)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                shutil.copyfileobj(source, f, 1 << 20)
                f.flush()
                os.fsync(f.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return id

    def add(self, id: str, owner: str, name: str, purpose: str) -> StoredFile:
        """Keep a content that was written.

        Raises:
            ApiError: the disk fails.
        """
        with self._on_disk() as database, database:
            file = self._describe(id, owner, name, purpose)
            self._insert(database, file)
        return file

    def files(self, owner: str, purpose: str | None = None) -> list[StoredFile]:
        """Return all of an owner, the oldest first.

        Raises:
            ApiError: the disk fails.
        """
        with self._on_disk() as database:
            rows = database.execute(
                "SELECT id, owner, name, purpose, bytes, created FROM files WHERE owner = ? "
                "AND (? IS NULL OR purpose = ?) ORDER BY number",
                (owner, purpose, purpose),
            ).fetchall()
        return [StoredFile(*row) for row in rows]

    def find(self, id: str, owner: str, *, field: str = "file_id") -> StoredFile:
        """Return one.

        Raises:
            ApiError: it is not kept, or is somebody else's; or the disk fails.
        """
        with self._on_disk() as database:
            rows = database.execute(
                "SELECT id, owner, name, purpose, bytes, created FROM files "
                "WHERE id = ? AND owner = ?",
                (_plain(id), owner),
            ).fetchall()
        if not rows:
            raise ApiError(404, f"{field}: expected a file that is kept, got {id[:80]!r}")
        return StoredFile(*rows[0])

    def delete(self, id: str) -> None:
        """Delete one.

        Raises:
            ApiError: a batch that has not ended needs it; or the disk fails.
        """
        if any(batch["input_file_id"] == id for _, batch in self.unfinished()):
            message = "file_id: expected one that no batch needs any more, got another"
            raise ApiError(400, message, code="file_in_use")
        with self._on_disk() as database:
            with database:
                database.execute("DELETE FROM files WHERE id = ?", (id,))
            self.path_of(id).unlink(missing_ok=True)

    # Batches.

    def save(
        self, batch: dict[str, Any], owner: str, outputs: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Keep a batch as it is now, and files that have come of it: all or nothing.

        Args:
            batch: as clients see it.
            owner: whose it is.
            outputs: names of contents that were written, and what they are called.

        Raises:
            ApiError: the disk fails.
        """
        ended = batch["status"] in ("completed", "failed", "cancelled", "expired")
        with self._on_disk() as database, database:
            for id, name in outputs:
                self._insert(database, self._describe(id, owner, name, "batch_output"))
            database.execute(
                "INSERT INTO batches (id, owner, ended, content) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, content = excluded.content",
                (batch["id"], owner, ended, json.dumps(batch)),
            )

    def batches(self, owner: str) -> list[dict[str, Any]]:
        """Return all of an owner, the oldest first.

        Raises:
            ApiError: the disk fails.
        """
        query = "SELECT content FROM batches WHERE owner = ? ORDER BY number"
        with self._on_disk() as database:
            rows = database.execute(query, (owner,)).fetchall()
        return [json.loads(content) for (content,) in rows]

    def find_batch(self, id: str, owner: str) -> dict[str, Any]:
        """Return one.

        Raises:
            ApiError: it is not kept, or is somebody else's; or the disk fails.
        """
        query = "SELECT content FROM batches WHERE id = ? AND owner = ?"
        with self._on_disk() as database:
            rows = database.execute(query, (_plain(id), owner)).fetchall()
        if not rows:
            raise ApiError(404, f"batch_id: expected a batch that is kept, got {id[:80]!r}")
        found: dict[str, Any] = json.loads(rows[0][0])
        return found

    def unfinished(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the owners of batches that something is to be done for, and these; oldest first.

        Raises:
            ApiError: the disk fails.
        """
        query = "SELECT owner, content FROM batches WHERE NOT ended ORDER BY number"
        with self._on_disk() as database:
            rows = database.execute(query).fetchall()
        return [(owner, json.loads(content)) for owner, content in rows]

    def _describe(self, id: str, owner: str, name: str, purpose: str) -> StoredFile:
        n_bytes = self.path_of(id).stat().st_size
        return StoredFile(id, owner, name, purpose, n_bytes, int(time.time()))

    @staticmethod
    def _insert(database: sqlite3.Connection, file: StoredFile) -> None:
        database.execute(
            "INSERT OR REPLACE INTO files (id, owner, name, purpose, bytes, created) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (file.id, file.owner, _plain(file.name), file.purpose, file.n_bytes, file.created),
        )

    def _remove_strays(self) -> None:
        """Remove contents that were written when a process was killed."""
        known = {id for (id,) in self._database.execute("SELECT id FROM files")}
        for path in self.folder.glob("file-*"):
            if path.name not in known:
                path.unlink()

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._database
        except (OSError, sqlite3.Error) as error:
            if self._outage.begins():
                _log.error("files cannot be kept or found: %s", type(error).__name__)
            message = "files: expected a disk that works, got a failure"
            raise ApiError(503, message, retry_after=self._outage.retry_seconds) from error
        self._outage.ends()


def _plain(text: str) -> str:
    """Return a text that SQLite can hold: half a surrogate pair becomes "?"."""
    return text.encode("utf-8", "replace").decode()
