"""Files of SQLite: private, and of this version or an earlier one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from .errors import InvalidArgumentError

__all__ = ["open_database"]


def open_database(path: Path | None, schema: str, version: int) -> sqlite3.Connection:
    """Open a file of SQLite for all threads, which take turns.

    Args:
        path: of the file; made if there is none, for this user alone. None: it is in memory.
        schema: makes what is not there yet, and says `PRAGMA user_version`.
        version: the one that the schema says.

    Raises:
        InvalidArgumentError: a later version made it.
        OSError, sqlite3.Error: it cannot be read or written.
    """
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = sqlite3.connect(path or ":memory:", check_same_thread=False)
    try:
        [[found]] = database.execute("PRAGMA user_version")
        if found > version:
            raise InvalidArgumentError(
                f"{path}: expected version {version} or earlier, got {found}",
                remedy="Try a newer rwkv-py, or another folder",
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(schema)
    except BaseException:
        database.close()
        raise
    return database
