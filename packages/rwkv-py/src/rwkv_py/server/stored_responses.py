"""Responses that a later request may go on from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chat_format import Message
from ..database import open_database
from ..errors import InvalidArgumentError
from ..tools import ToolCall
from .errors import ApiError
from .outage import Outage

__all__ = ["Ending", "Stored", "StoredResponses"]

_log = logging.getLogger("rwkv_py.server")

# Texts of all that is kept, at most.
_MAX_BYTES = 64 << 20

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- the last used has the largest
    id TEXT UNIQUE NOT NULL,
    owner TEXT NOT NULL,
    content TEXT NOT NULL                     -- of Stored, in JSON
);
PRAGMA user_version = 1;
"""
_VERSION = 1


@dataclass(frozen=True)
class Ending:
    """What a model had read when a response ended, so that its state can be made again.

    Attributes:
        model: its name.
        whose: the model itself, as `StateFolder.model_name` says.
        state: the name of the state that it began at; None began anew.
        told: `Written.told`; None for what is no conversation.
        read: for each text what was read, one after the other.
    """

    model: str
    whose: str
    state: str | None
    told: str | None
    read: tuple[tuple[str | list[int], ...], ...]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A response that has ended.

    Attributes:
        id: its name.
        owner: who asked for it; nobody else gets it.
        ending: what the model had read.
        response: as it was sent, if that can be asked for.
        messages: all that was said, the answer too, without instructions.
    """

    id: str
    owner: str
    ending: Ending
    response: dict[str, Any] | None = None
    messages: tuple[Message, ...] = ()


class StoredResponses:
    """The last responses, as many as are kept. What a disk fails with costs them, and no answer.

    Args:
        most: how many.
        path: a file that outlives the server; None keeps them in memory.

    Raises:
        InvalidArgumentError: the file cannot be used, or is a later version's.
    """

    def __init__(self, most: int, path: Path | None = None):
        self._most = most
        self._outage = Outage()
        try:
            self._index = open_database(path, _SCHEMA, _VERSION)
            # A process that is killed loses none.
            self._index.execute("PRAGMA synchronous = NORMAL")
            size = "SELECT count(*), total(length(content)) FROM responses"
            [[self._n, self._n_bytes]] = self._index.execute(size)
            self._make_room()
        except (OSError, sqlite3.Error) as error:
            raise InvalidArgumentError(
                f"{path}: expected a file of responses, got {error}"
            ) from error

    def keep(self, stored: Stored) -> None:
        """Keep one; those that were not used for the longest time go, if there are too many."""
        content = json.dumps(dataclasses.asdict(stored))
        try:
            with self._index as index:
                index.execute(
                    "INSERT INTO responses (id, owner, content) VALUES (?, ?, ?)",
                    (stored.id, stored.owner, content),
                )
            self._n += 1
            self._n_bytes += len(content)
            self._make_room()
            self._outage.ends()
        except sqlite3.Error as error:
            if self._outage.begins():
                _log.error("responses cannot be kept: %s", type(error).__name__)

    def find(self, name: str, owner: str, *, field: str = "response_id") -> Stored:
        """Return one.

        Raises:
            ApiError: it is not kept, or is somebody else's.
        """
        rows = []
        with contextlib.suppress(sqlite3.Error, UnicodeError):
            rows = self._index.execute(
                "SELECT content FROM responses WHERE id = ? AND owner = ?", (name, owner)
            ).fetchall()
        if not rows:
            message = f"{field}: expected a response that is kept, got {name[:80]!r}"
            raise ApiError(404, message, code="previous_response_not_found")
        with contextlib.suppress(sqlite3.Error), self._index as index:
            index.execute(
                "UPDATE responses SET number = (SELECT max(number) + 1 FROM responses)"
                " WHERE id = ?",
                (name,),
            )
        [[content]] = rows
        return _stored(json.loads(content))

    def delete(self, name: str, owner: str) -> None:
        """Forget one.

        Raises:
            ApiError: as `find`; or the disk cannot be written.
        """
        self.find(name, owner)
        try:
            self._remove("id = ?", name)
            self._outage.ends()
        except sqlite3.Error as error:
            self._outage.begins()
            message = "responses: expected a disk that can be written, got a failure"
            raise ApiError(503, message, retry_after=self._outage.retry_seconds) from error

    def close(self) -> None:
        """Close the file."""
        self._index.close()

    def _make_room(self) -> None:
        while self._n > self._most or self._n_bytes > _MAX_BYTES:
            self._remove("number = (SELECT min(number) FROM responses)")

    def _remove(self, which: str, *values: str) -> None:
        size = f"SELECT count(*), total(length(content)) FROM responses WHERE {which}"
        with self._index as index:
            [[n, n_bytes]] = index.execute(size, values)
            index.execute(f"DELETE FROM responses WHERE {which}", values)
        self._n -= n
        self._n_bytes -= n_bytes


def _stored(content: dict[str, Any]) -> Stored:
    messages = []
    for message in content["messages"]:
        calls = tuple(ToolCall(**call) for call in message["tool_calls"])
        messages.append(Message(**{**message, "tool_calls": calls}))
    ending = content["ending"]
    read = tuple(map(tuple, ending["read"]))
    return Stored(
        id=content["id"],
        owner=content["owner"],
        ending=Ending(**{**ending, "read": read}),
        response=content["response"],
        messages=tuple(messages),
    )
