"""States in a folder: what outlives the process that computed it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from . import _core
from ._arguments import StrPath, as_count, as_path
from ._system import lock_file
from .errors import InvalidArgumentError, ModelFileError, RwkvError, StateFileError
from .model import Model
from .sequence import Place, ReadText
from .state_index import Key, SavedState, StateIndex, TextName, digest_of, text_name
from .tokenizer import Tokenizer

__all__ = ["SavedState", "StateFolder", "locked"]

_log = logging.getLogger("rwkv_py.state_folder")

# What waits to be written, at most: more is let go of, and read again some day.
_MAX_WAITING = 128 << 20


class _Waiting(NamedTuple):
    key: Key
    core: _core.Session
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
    A disk that is full or fails costs what would have been kept, never an answer; the log says so
    once.

    Args:
        path: the folder; made if there is none, for this user alone.
        budget: bytes of files at most. Those that may go do so when there would be more, the
            longest unused first; those that somebody saved count too, but stay.

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
        self._writing: Key | None = None
        self._n_waiting = 0  # bytes, with what is being written
        self._closed = False
        self._thread: threading.Thread | None = None
        self._has_failed = False  # the last writing, as the log says
        self._lock_file = -1
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files.mkdir(mode=0o700, exist_ok=True)
            self._lock_file = locked(self.path / "lock")
            self._index = StateIndex(self.path / "index.sqlite")
            self._read_index()
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            raise InvalidArgumentError(
                f"{self.path}: expected a folder for states, got {error}"
            ) from error
        except BaseException:
            self._unlock()
            raise

    def __repr__(self) -> str:
        return f"<StateFolder {str(self.path)!r}: {len(self._index)} states kept>"

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
                    self._index.close()
                self._unlock()

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

    @property
    def saved_bytes(self) -> int:
        """The size of all that was saved."""
        return self._index.n_saved_bytes

    def save(self, model: Model, core: _core.Session, notes: Mapping[str, Any]) -> SavedState:
        """Keep a state until it is deleted; it is on the disk when this returns.

        Args:
            model: whose state.
            core: where it is; used by this thread alone meanwhile.
            notes: what JSON can hold.

        Raises:
            StateFileError: it cannot be written.
        """
        name = self.model_name(model)
        return self._saved(name, lambda path: core.save_state(os.fsencode(path), False), notes)

    def add(self, model: Model, data: bytes, notes: Mapping[str, Any]) -> SavedState:
        """Keep the state in the bytes of a state file, as `save` does.

        Raises:
            StateFileError: they are no state; or it cannot be written.
            StateMismatchError: they are one of another model.
        """

        def write(path: Path) -> None:
            _write_whole(path, data)
            model._new_sequence(None).core.load_state(os.fsencode(path))

        return self._saved(self.model_name(model), write, notes)

    def copy(self, state: SavedState, notes: Mapping[str, Any]) -> SavedState:
        """Keep a saved state once more, with other notes.

        Raises:
            StateFileError: it is there no more; or it cannot be written.
        """
        try:
            data = self.file_of(state).read_bytes()
        except OSError as error:
            raise StateFileError(f"{self.path}: cannot be read: {error}") from error
        return self._saved(state.model, lambda path: _write_whole(path, data), notes)

    def saved(self) -> list[SavedState]:
        """Return all that were saved, in the order of saving."""
        with self._changed, self._file_errors():
            self._check_open()
            return self._index.saved()

    def find(self, id: str) -> SavedState | None:
        """Return what was saved under a name; None if nothing was."""
        with self._changed, self._file_errors():
            self._check_open()
            return next(iter(self._index.saved(id)), None)

    def file_of(self, state: SavedState) -> Path:
        """Return the file of a saved state, in the form that `Session.load_state` reads."""
        return self._file(state.id)

    def delete(self, id: str) -> bool:
        """Delete what was saved under a name; tells whether there was such a state.

        Raises:
            StateFileError: it cannot be deleted.
        """
        with self._changed, self._file_errors():
            self._check_open()
            done = self._index.delete(id)
            if done:
                self._file(id).unlink(missing_ok=True)
        return done

    # Those of prefix caches. A folder that is closed, or another process's, has none.

    def _has(self, model: str, pieces: bytes) -> bool:
        return not self._is_gone and (model, pieces) in self._index

    def _lengths(self, model: str, begin: bytes, tokenizer: Tokenizer, anchor: bytes) -> list[int]:
        """Return how long the texts with that anchor are that were read after `begin`."""
        if self._is_gone:
            return []
        with self._changed:
            return self._index.lengths(model, begin, digest_of(tokenizer), anchor)

    def _named(self, model: str, begin: bytes, text: ReadText) -> bytes | None:
        """Return the `Place.pieces` of a text read after `begin`, if there is a state for it."""
        return None if self._is_gone else self._index.pieces_of(model, text_name(begin, text))

    def _load(self, model: str, pieces: bytes, core: _core.Session) -> bool:
        """Give `core` a state. False: there is none any more, and `core` is as it was."""
        key = (model, pieces)
        with self._changed:
            if self._is_gone or (id := self._index.id_of(key)) is None:
                return False
            try:
                core.load_state(os.fsencode(self._file(id)))
            except RwkvError as error:
                _log.warning("a state cannot be read, and is dropped: %s", type(error).__name__)
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._drop(key)
                return False
            self._index.use(id)
        return True

    def _keep(self, model: str, core: _core.Session, place: Place, n_bytes: int) -> None:
        """Write a state when there is time. `core` is the folder's own from now on."""
        if self._is_gone or n_bytes > self.budget:
            return
        text = place.text and text_name(place.begin, place.text)
        with self._changed:
            key = (model, place.pieces)
            if key in self._index or key == self._writing:
                return
            if any(one.key == key for one in self._waiting):
                return
            while self._waiting and self._n_waiting + n_bytes > _MAX_WAITING:
                self._n_waiting -= self._waiting.popleft().n_bytes
            self._waiting.append(_Waiting(key, core, text, n_bytes))
            self._n_waiting += n_bytes
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write_behind, name="rwkv states", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    # Files and the index.

    def _unlock(self) -> None:
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    @property
    def _is_gone(self) -> bool:
        return self._closed or self._process != os.getpid()

    def _check_open(self) -> None:
        if self._is_gone:
            raise InvalidArgumentError(
                f"{self.path}: expected an open StateFolder, got a closed one"
            )

    @contextlib.contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Let what a disk fails with be a StateFileError, which has a cause then."""
        try:
            yield
        except (OSError, sqlite3.Error, ModelFileError) as error:
            raise StateFileError(f"{self.path}: cannot be used: {error}") from error

    def _file(self, id: str) -> Path:
        return self._files / f"{id}.state"

    def _read_index(self) -> None:
        """Read what there is, and delete what belongs to nothing."""
        with os.scandir(self._files) as entries:  # there may be many
            there = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
        states = {name[:-6] for name in there if there[name] and name.endswith(".state")}
        known = {f"{id}.state" for id in self._index.read(states)}
        self._make_room(0)
        for name in there.keys() - known:
            _remove(self._files / name)

    def _saved(
        self, model: str, write: Callable[[Path], None], notes: Mapping[str, Any]
    ) -> SavedState:
        """Write a file, and note it in the index: both or nothing."""
        id, noted = uuid.uuid4().hex, json.loads(json.dumps(dict(notes)))
        path = self._file(id)
        self._check_open()
        try:
            with self._file_errors():
                write(path)
                path.chmod(0o600)
                state = SavedState(id, model, path.stat().st_size, noted)
                with self._changed:
                    self._check_open()
                    self._make_room(state.n_bytes)
                    self._index.save(state)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return state

    def _write_behind(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                one = self._waiting.popleft()
                self._writing = one.key
            try:
                self._write(one)
                self._has_failed = False
            except Exception as error:  # or all would wait for ever that wait for this thread
                if not self._has_failed:
                    kind = type(error).__name__
                    _log.warning("states cannot be written, and are not kept: %s", kind)
                self._has_failed = True
            finally:
                with self._changed:
                    self._writing = None
                    self._n_waiting -= one.n_bytes
                    self._changed.notify_all()

    def _write(self, one: _Waiting) -> None:
        id = uuid.uuid4().hex
        path = self._file(id)
        try:
            one.core.save_state(os.fsencode(path), False)
            path.chmod(0o600)
            n_bytes = path.stat().st_size
            with self._changed:
                self._index.note_uses()
                self._make_room(n_bytes)
                if self._index.n_bytes + n_bytes > self.budget:
                    path.unlink()  # what was saved has all the room
                    return
                self._index.keep(id, one.key, n_bytes, one.text)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise

    def _make_room(self, n_bytes: int) -> None:
        """Let states go, so that there is room for a file of so many bytes."""
        for key in self._index.unused_longest(self._index.n_bytes + n_bytes - self.budget):
            self._drop(key)

    def _drop(self, key: Key) -> None:
        """Forget one of those that may go, then delete its file."""
        self._file(self._index.drop(key)).unlink(missing_ok=True)


def locked(path: Path) -> int:
    """Open a file that one process has at a time; the system takes it from one that ends.

    Raises:
        InvalidArgumentError: another has it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if not lock_file(file):
        os.close(file)
        raise InvalidArgumentError(
            f"{path.parent}: expected a folder that nobody uses, got one that another process uses",
            remedy="Try a folder of its own for each process",
        )
    return file


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
