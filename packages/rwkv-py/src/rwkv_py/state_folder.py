"""States in a folder: what outlives the process that computed it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

from . import _core
from ._arguments import StrPath, as_count, as_path
from .errors import InvalidArgumentError, RwkvError, StateFileError
from .model import Model
from .sequence import Place, ReadText
from .tokenizer import Tokenizer

__all__ = ["SavedState", "StateFolder", "TextName"]

_log = logging.getLogger("rwkv_py.state_folder")

# What waits to be written, at most: more is let go of, and read again some day.
_MAX_WAITING = 128 << 20

_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    id TEXT PRIMARY KEY,      -- of the file states/ID.state
    model TEXT NOT NULL,      -- whose state: fingerprint, kernels, eps
    n_bytes INTEGER NOT NULL, -- of the file
    used_at REAL NOT NULL,    -- seconds since 1970
    saved TEXT,               -- what whoever saved it noted, in JSON; NULL: it may go
    pieces BLOB,              -- Place.pieces, and so on; NULL where saved is not
    begin BLOB,
    vocabulary BLOB,          -- what renders its text; NULL: not known as text
    n_text INTEGER,
    text BLOB
);
PRAGMA user_version = 1;
"""
_VERSION = 1


class TextName(NamedTuple):
    """A text that was read, as it is known from one run to the next.

    Attributes:
        begin: `Place.begin`.
        vocabulary: a digest of what each token stands for.
        n_bytes: the text's length.
        digest: that of its bytes.
    """

    begin: bytes
    vocabulary: bytes
    n_bytes: int
    digest: bytes


class SavedState(NamedTuple):
    """A state that somebody saved under a name.

    Attributes:
        id: its name, made here.
        model: whose state it is, as `StateFolder.model_name` says.
        n_bytes: the size of its file.
        notes: what was noted with it.
    """

    id: str
    model: str
    n_bytes: int
    notes: Mapping[str, Any]


# Of a state that may go: its model, as `model_name` says, and `Place.pieces`.
_Key: TypeAlias = tuple[str, bytes]


class _Kept(NamedTuple):
    id: str
    text: TextName | None


class _Waiting(NamedTuple):
    model: str
    core: _core.Session
    pieces: bytes
    text: TextName | None
    n_bytes: int


class StateFolder:
    """States as files, with an index, for this process and those after it.

    It holds two kinds: those that prefix caches let go of, or want to find again after a restart,
    which are written when there is time and go when there is no room; and those that somebody
    saved, which are on the disk when `save` returns and stay until they are deleted.

    A file is written under another name, is complete on the disk before it gets its own, and is
    known only when it is in the index: whatever ends the process at whatever moment, each state is
    found whole or not at all. What is not in the index when a folder is opened is deleted.

    One process at a time uses a folder; a forked child finds nothing in it and keeps nothing.
    A disk that is full or fails costs what would have been kept, never an answer.

    Args:
        path: the folder; made if there is none, for this user alone.
        budget: bytes of files at most, of those that may go; the longest unused go first.

    Raises:
        InvalidArgumentError: the folder cannot be used, is used by another process, or was made by
            a later version.

    >>> with StateFolder("states", budget=1 << 30) as folder:
    ...     cache = PrefixCache(model, folder=folder)
    ...     logits = Session(model, cache=cache).feed("A long beginning of many a question. " * 3)
    >>> with StateFolder("states") as folder:  # in another process, perhaps
    ...     cache = PrefixCache(model, folder=folder)
    ...     again = Session(model, cache=cache).feed("A long beginning of many a question. " * 3)
    >>> bool((logits == again).all()), cache.tokens_read
    (True, 0)
    """

    def __init__(self, path: StrPath, *, budget: int = 8 << 30):
        self.path = Path(os.fsdecode(as_path(path)))
        self.budget = as_count("budget", budget)
        self._files = self.path / "states"
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._n_waiting = 0  # bytes, with what is being written
        self._closed = False
        self._thread: threading.Thread | None = None
        # What the index holds of those that may go: by model and pieces, and by text.
        self._kept: dict[_Key, _Kept] = {}
        self._texts: dict[tuple[str, TextName], bytes] = {}
        self._used: dict[str, float] = {}  # since the last time that this was written down
        try:
            self._files.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = _locked(self.path / "lock")
            self._index = _opened(self.path / "index.sqlite")
            self._read_index()
        except (OSError, sqlite3.Error) as error:
            raise InvalidArgumentError(
                f"{self.path}: expected a folder for states, got {error}"
            ) from error

    def __repr__(self) -> str:
        return f"<StateFolder {str(self.path)!r}: {len(self._kept)} states kept>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits to be written, and let another process have the folder."""
        if self._process != os.getpid():
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._changed:
            if self._lock_file >= 0:
                with contextlib.suppress(sqlite3.Error):
                    self._note_uses()
                self._index.close()
                os.close(self._lock_file)
                self._lock_file = -1

    def flush(self) -> None:
        """Wait until what waits to be written is on the disk, or could not be written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._n_waiting or self._is_gone)

    @staticmethod
    def model_name(model: Model) -> str:
        """Return what tells whose a state is: the same for models that compute the same bits."""
        info = model.info
        return f"{info.fingerprint:016x}-{info.kernels}-{info.ln_x_eps:g}"

    # Those that somebody saved.

    def save(self, model: Model, core: _core.Session, notes: Mapping[str, Any]) -> SavedState:
        """Keep a state until it is deleted; it is on the disk when this returns.

        Args:
            model: whose state.
            core: where it is; used by this thread alone meanwhile.
            notes: what JSON can hold.

        Raises:
            StateFileError: it cannot be written.
        """
        return self._saved(model, lambda path: core.save_state(os.fsencode(path), False), notes)

    def add(self, model: Model, data: bytes, notes: Mapping[str, Any]) -> SavedState:
        """Keep the state in the bytes of a state file, as `save` does.

        Raises:
            StateFileError: they are no state of this model; or it cannot be written.
        """

        def write(path: Path) -> None:
            _write_whole(path, data)
            try:
                model._new_sequence(None).core.load_state(os.fsencode(path))
            except RwkvError:
                path.unlink()
                raise

        return self._saved(model, write, notes)

    def saved(self) -> list[SavedState]:
        """Return all that were saved, in the order of saving."""
        with self._changed:
            self._check_open()
            rows = self._index.execute(
                "SELECT id, model, n_bytes, saved FROM states WHERE saved IS NOT NULL"
                " ORDER BY used_at, rowid"
            ).fetchall()
        return [SavedState(id, model, n, json.loads(notes)) for id, model, n, notes in rows]

    def find(self, id: str) -> SavedState | None:
        """Return what was saved under a name; None if nothing was."""
        return next((state for state in self.saved() if state.id == id), None)

    def file_of(self, state: SavedState) -> Path:
        """Return the file of a saved state, in the form that `Session.load_state` reads."""
        return self._files / f"{state.id}.state"

    def delete(self, id: str) -> bool:
        """Delete what was saved under a name; tells whether there was such a state."""
        with self._changed:
            self._check_open()
            with self._index as index:
                done = index.execute(
                    "DELETE FROM states WHERE id = ? AND saved IS NOT NULL", (id,)
                ).rowcount
            if done:
                (self._files / f"{id}.state").unlink(missing_ok=True)
        return bool(done)

    # Those of prefix caches. A folder that is closed, or another process's, has none.

    def _has(self, model: str, pieces: bytes) -> bool:
        return not self._is_gone and (model, pieces) in self._kept

    def _lengths(self, model: str, begin: bytes, vocabulary: bytes) -> set[int]:
        """Return how long the texts are that were read after `begin`."""
        if self._is_gone:
            return set()
        with self._changed:
            return {
                name.n_bytes
                for owner, name in self._texts
                if owner == model and name.begin == begin and name.vocabulary == vocabulary
            }

    def _named(self, model: str, text: TextName) -> bytes | None:
        """Return the `Place.pieces` of a text, if there is a state for it."""
        return None if self._is_gone else self._texts.get((model, text))

    def _load(self, model: str, pieces: bytes, core: _core.Session) -> bool:
        """Give `core` a state. False: there is none any more, and `core` is as it was."""
        key = (model, pieces)
        with self._changed:
            if self._is_gone or (kept := self._kept.get(key)) is None:
                return False
            try:
                core.load_state(os.fsencode(self._files / f"{kept.id}.state"))
            except RwkvError as error:
                _log.warning("a state cannot be read, and is dropped: %s", type(error).__name__)
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._drop(key)
                return False
            self._used[kept.id] = time.time()
        return True

    def _keep(self, model: str, core: _core.Session, place: Place, n_bytes: int) -> None:
        """Write a state when there is time. `core` is the folder's own from now on."""
        if self._is_gone or n_bytes > self.budget:
            return
        text = place.text and text_name(place.begin, place.text)
        with self._changed:
            if (model, place.pieces) in self._kept or any(
                one.pieces == place.pieces and one.model == model for one in self._waiting
            ):
                return
            while self._waiting and self._n_waiting + n_bytes > _MAX_WAITING:
                self._n_waiting -= self._waiting.popleft().n_bytes
            self._waiting.append(_Waiting(model, core, place.pieces, text, n_bytes))
            self._n_waiting += n_bytes
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write_behind, name="rwkv states", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    # The index.

    @property
    def _is_gone(self) -> bool:
        return self._closed or self._process != os.getpid()

    def _check_open(self) -> None:
        if self._is_gone:
            raise InvalidArgumentError(
                f"{self.path}: expected an open StateFolder, got a closed one"
            )

    def _read_index(self) -> None:
        """Read what there is, and delete what belongs to nothing."""
        ids = set()
        for id, model, saved, pieces, *text in self._index.execute(
            "SELECT id, model, saved, pieces, begin, vocabulary, n_text, text FROM states"
            " ORDER BY used_at"
        ).fetchall():
            if not (self._files / f"{id}.state").is_file():
                self._index.execute("DELETE FROM states WHERE id = ?", (id,))
                continue
            ids.add(id)
            if saved is None:
                self._know(id, model, pieces, None if text[1] is None else TextName(*text))
        self._index.commit()
        self._make_room(0)
        for path in self._files.iterdir():
            if path.suffix != ".state" or path.stem not in ids:
                _remove(path)

    def _know(self, id: str, model: str, pieces: bytes, text: TextName | None) -> None:
        self._kept[model, pieces] = _Kept(id, text)
        if text is not None:
            self._texts[model, text] = pieces

    def _saved(self, model: Model, write: Any, notes: Mapping[str, Any]) -> SavedState:
        id, text = uuid.uuid4().hex, json.dumps(dict(notes))
        path = self._files / f"{id}.state"
        self._check_open()
        write(path)
        state = SavedState(id, self.model_name(model), path.stat().st_size, json.loads(text))
        with self._changed:
            try:
                self._check_open()
                with self._index as index:
                    index.execute(
                        "INSERT INTO states (id, model, n_bytes, used_at, saved)"
                        " VALUES (?, ?, ?, ?, ?)",
                        (id, state.model, state.n_bytes, time.time(), text),
                    )
            except BaseException as error:
                path.unlink(missing_ok=True)
                if isinstance(error, sqlite3.Error):
                    raise StateFileError(f"{self.path}: cannot be written: {error}") from error
                raise
        return state

    def _write_behind(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                one = self._waiting.popleft()
            try:
                self._write(one)
            except (OSError, sqlite3.Error, RwkvError) as error:
                _log.warning("a state cannot be written: %s", type(error).__name__)
            finally:
                with self._changed:
                    self._n_waiting -= one.n_bytes
                    self._changed.notify_all()

    def _write(self, one: _Waiting) -> None:
        id = uuid.uuid4().hex
        path = self._files / f"{id}.state"
        one.core.save_state(os.fsencode(path), False)
        n_bytes = path.stat().st_size
        text = one.text or (None,) * len(TextName._fields)
        try:
            with self._changed:
                self._note_uses()
                self._make_room(n_bytes)
                with self._index as index:
                    index.execute(
                        "INSERT INTO states VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?)",
                        (id, one.model, n_bytes, time.time(), one.pieces, *text),
                    )
                self._know(id, one.model, one.pieces, one.text)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _note_uses(self) -> None:
        with self._index as index:
            index.executemany(
                "UPDATE states SET used_at = ? WHERE id = ?",
                [(used_at, id) for id, used_at in self._used.items()],
            )
        self._used.clear()

    def _make_room(self, n_bytes: int) -> None:
        [[total]] = self._index.execute("SELECT total(n_bytes) FROM states WHERE saved IS NULL")
        unused_longest_first = self._index.execute(
            "SELECT model, pieces, n_bytes FROM states WHERE saved IS NULL ORDER BY used_at"
        )
        going = []
        for model, pieces, size in unused_longest_first:
            if total + n_bytes <= self.budget:
                break
            going.append((model, pieces))
            total -= size
        for key in going:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        """Forget one of those that may go, then delete its file."""
        gone = self._kept.pop(key)
        if gone.text is not None and self._texts.get((key[0], gone.text)) == key[1]:
            del self._texts[key[0], gone.text]
        self._used.pop(gone.id, None)
        with self._index as index:
            index.execute("DELETE FROM states WHERE id = ?", (gone.id,))
        (self._files / f"{gone.id}.state").unlink(missing_ok=True)


def text_name(begin: bytes, text: ReadText) -> TextName:
    """Return how what was read after `begin` is known from one run to the next."""
    return TextName(begin, digest_of(text.tokenizer), text.n_bytes, text.hash.digest())


def digest_of(tokenizer: Tokenizer) -> bytes:
    """Return a digest of what each token of a vocabulary stands for."""
    digest = _digests.get(tokenizer)
    if digest is None:
        running = hashlib.blake2b(digest_size=16)
        missing = set(tokenizer.missing(tokenizer.n_vocab))
        for token in range(tokenizer.n_vocab):
            text = b"" if token in missing else tokenizer.decode_bytes([token])
            running.update(b"%d:" % len(text) + text)
        digest = _digests[tokenizer] = running.digest()
    return digest


_digests: weakref.WeakKeyDictionary[Tokenizer, bytes] = weakref.WeakKeyDictionary()


def _locked(path: Path) -> int:
    """Open a file that one process has at a time."""
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise InvalidArgumentError(
            f"{path.parent}: expected a folder that nobody uses, got one that another process uses",
            remedy="Try a folder of its own for each process",
        ) from None
    return file


def _opened(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, check_same_thread=False)
    [[version]] = index.execute("PRAGMA user_version")
    if version > _VERSION:
        raise InvalidArgumentError(
            f"{path}: expected version {_VERSION} or earlier, got {version}",
            remedy="Try a newer rwkv-py, or another folder",
        )
    index.execute("PRAGMA journal_mode = WAL")
    index.executescript(_SCHEMA)
    return index


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StateFileError(f"{path.parent}: cannot be written: {error}") from error


def _remove(path: Path) -> None:
    """Remove what an earlier process left unfinished."""
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
