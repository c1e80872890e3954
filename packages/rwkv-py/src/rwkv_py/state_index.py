"""The index of a folder of states: what there is of each, in SQLite."""

from __future__ import annotations

import hashlib
import json
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from .database import open_database
from .sequence import ReadText
from .text_index import TextIndex
from .tokenizer import Tokenizer

__all__ = ["SavedState", "StateIndex", "TextName", "text_name"]

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
    anchor BLOB,
    n_text INTEGER,
    text BLOB
);
CREATE INDEX IF NOT EXISTS by_use ON states (used_at) WHERE saved IS NULL;
PRAGMA user_version = 1;
"""
_VERSION = 1


class TextName(NamedTuple):
    """A text that was read, as it is known from one run to the next.

    Attributes:
        begin: `Place.begin`.
        vocabulary: a digest of what each token stands for.
        anchor: `ReadText.anchor`.
        n_bytes: the text's length.
        digest: that of its bytes.
    """

    begin: bytes
    vocabulary: bytes
    anchor: bytes
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
Key: TypeAlias = tuple[str, bytes]


class _Kept(NamedTuple):
    id: str
    text: TextName | None
    n_bytes: int


class StateIndex:
    """What there is in a folder. Used by one thread at a time; `key in index` by any.

    Args:
        path: of the file; made if there is none, for this user alone.

    Attributes:
        n_bytes: of all files together.
        n_saved_bytes: of those that somebody saved.

    Raises:
        InvalidArgumentError: a later version made it.
        OSError, sqlite3.Error: it cannot be read or written.
    """

    def __init__(self, path: Path):
        self._index = open_database(path, _SCHEMA, _VERSION)
        # Of those that may go: all, by model and pieces, and by text.
        self._kept: dict[Key, _Kept] = {}
        self._texts: dict[tuple[str, TextName], bytes] = {}
        self._lengths = TextIndex()
        self._used: dict[str, float] = {}  # since the last time that this was written down
        self.n_bytes = self.n_saved_bytes = 0

    def read(self, is_there: Iterable[str]) -> set[str]:
        """Read what there is; forget those of which there is no file, and the older of two.

        Args:
            is_there: the names of the states that have a file.

        Returns:
            Those of them that it knows.
        """
        files = set(is_there)
        known = set()
        rows = self._index.execute(
            "SELECT id, model, n_bytes, saved, pieces, begin, vocabulary, anchor, n_text, text"
            " FROM states ORDER BY used_at"
        ).fetchall()
        for id, model, n_bytes, saved, pieces, *text in rows:
            if id not in files:
                self._index.execute("DELETE FROM states WHERE id = ?", (id,))
                continue
            if saved is None and (older := self._kept.get((model, pieces))):
                self._index.execute("DELETE FROM states WHERE id = ?", (older.id,))
                self.n_bytes -= older.n_bytes
                known.discard(older.id)
            known.add(id)
            self.n_bytes += n_bytes
            if saved is not None:
                self.n_saved_bytes += n_bytes
            else:
                name = None if text[1] is None else TextName(*text)
                self._know(model, pieces, _Kept(id, name, n_bytes))
        self._index.commit()
        return known

    def close(self) -> None:
        """Write down what was used when, and close it."""
        try:
            self.note_uses()
        finally:
            self._index.close()

    # Those that may go.

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def id_of(self, key: Key) -> str | None:
        """Return the name of the file of a state, if there is one."""
        kept = self._kept.get(key)
        return None if kept is None else kept.id

    def lengths(self, model: str, begin: bytes, vocabulary: bytes, anchor: bytes) -> list[int]:
        """Return how long the texts are that were read so."""
        return self._lengths.lengths((model, begin, vocabulary, anchor))

    def pieces_of(self, model: str, text: TextName) -> bytes | None:
        """Return the `Place.pieces` of a text, if there is a state for it."""
        return self._texts.get((model, text))

    def keep(self, id: str, key: Key, n_bytes: int, text: TextName | None) -> None:
        """Note a state whose file is there."""
        columns = text or (None,) * len(TextName._fields)
        with self._index as index:
            index.execute(
                "INSERT INTO states VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)",
                (id, key[0], n_bytes, time.time(), key[1], *columns),
            )
        self.n_bytes += n_bytes
        self._know(*key, _Kept(id, text, n_bytes))

    def use(self, id: str) -> None:
        """Note that a state was used now."""
        self._used[id] = time.time()

    def note_uses(self) -> None:
        """Write down what was used when."""
        with self._index as index:
            index.executemany(
                "UPDATE states SET used_at = ? WHERE id = ?",
                [(used_at, id) for id, used_at in self._used.items()],
            )
        self._used.clear()

    def unused_longest(self, n_bytes: int) -> list[Key]:
        """Return the states to let go of, to have so many bytes less, or all that there are."""
        going: list[Key] = []
        if n_bytes <= 0:
            return going
        for model, pieces, size in self._index.execute(
            "SELECT model, pieces, n_bytes FROM states WHERE saved IS NULL ORDER BY used_at"
        ):
            going.append((model, pieces))
            n_bytes -= size
            if n_bytes <= 0:
                break
        return going

    def drop(self, key: Key) -> str:
        """Forget a state, and return the name of its file."""
        gone = self._kept.pop(key)
        model, pieces = key
        if gone.text is not None and self._texts.get((model, gone.text)) == pieces:
            del self._texts[model, gone.text]
            self._lengths.discard(_length_key(model, gone.text), gone.text.n_bytes)
        self._used.pop(gone.id, None)
        self.n_bytes -= gone.n_bytes
        with self._index as index:
            index.execute("DELETE FROM states WHERE id = ?", (gone.id,))
        return gone.id

    # Those that somebody saved.

    def save(self, state: SavedState) -> None:
        """Note a state that somebody saved, whose file is there."""
        with self._index as index:
            index.execute(
                "INSERT INTO states (id, model, n_bytes, used_at, saved) VALUES (?, ?, ?, ?, ?)",
                (state.id, state.model, state.n_bytes, time.time(), json.dumps(dict(state.notes))),
            )
        self.n_bytes += state.n_bytes
        self.n_saved_bytes += state.n_bytes

    def saved(self, id: str | None = None) -> list[SavedState]:
        """Return all that were saved, in the order of saving; or the one of a name."""
        which, values = ("", ()) if id is None else (" AND id = ?", (id,))
        rows = self._index.execute(
            f"SELECT id, model, n_bytes, saved FROM states WHERE saved IS NOT NULL{which}"
            " ORDER BY used_at, rowid",
            values,
        ).fetchall()
        return [SavedState(id, model, n, json.loads(notes)) for id, model, n, notes in rows]

    def delete(self, id: str) -> bool:
        """Forget what was saved under a name; tells whether there was such a state."""
        found = self.saved(id)
        with self._index as index:
            index.execute("DELETE FROM states WHERE id = ? AND saved IS NOT NULL", (id,))
        for state in found:
            self.n_bytes -= state.n_bytes
            self.n_saved_bytes -= state.n_bytes
        return bool(found)

    def _know(self, model: str, pieces: bytes, kept: _Kept) -> None:
        self._kept[model, pieces] = kept
        if (text := kept.text) is not None:
            if (model, text) not in self._texts:
                self._lengths.add(_length_key(model, text), text.n_bytes)
            self._texts[model, text] = pieces


def text_name(begin: bytes, text: ReadText) -> TextName:
    """Return the name of a text that was read after `begin`."""
    digest = text.hash.digest()
    return TextName(begin, digest_of(text.tokenizer), text.anchor, text.n_bytes, digest)


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


def _length_key(model: str, text: TextName) -> tuple[str, bytes, bytes, bytes]:
    return model, text.begin, text.vocabulary, text.anchor
