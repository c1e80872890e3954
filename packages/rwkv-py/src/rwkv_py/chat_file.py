"""A chat as a file: what was said, and the states to go on from."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from ._arguments import StrPath, as_path
from ._files import appearing, kind_of
from .chat_format import Message, Role
from .errors import RwkvError, StateFileError, StateMismatchError
from .session import Session

__all__ = ["SavedChat", "read_chat", "write_chat"]

_VERSION = 1

# A reader of a file that somebody sent holds its text in memory, up to nine times: the bytes, the
# text and its strings, which take four bytes a character if one of them is beyond U+FFFF. So this
# is a million tokens and no more.
_MAX_TEXT_BYTES = 4 << 20

# Of JSON, what is not within strings: each of its bytes may become an object of 30. A message has
# about 80, spaces included.
_MAX_SKELETON_BYTES = 1 << 19
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)

# Of the archive's directory, in which a member takes less than a hundred.
_MAX_DIRECTORY_BYTES = 1024

_OF_A_MESSAGE = {"role", "content", "thinking", "input"}
_REQUIRED = {"chat.json", "start.state", "now.state"}
_OPTIONAL = {"before.state"}


@dataclass(frozen=True, kw_only=True)
class SavedChat:
    """What the file of a chat holds.

    Attributes:
        format: the name of the chat's format.
        messages: what was said: perhaps a system prompt, then user and assistant in turn; the last
            may be a question.
        states: sessions by name: "start", after the system prompt; "now"; and "before", before what
            the user said last, unless it is not known.
    """

    format: str
    messages: Sequence[Message]
    states: Mapping[str, Session]


def write_chat(path: StrPath, chat: SavedChat, *, dtype: Literal["fp32", "fp16"]) -> None:
    """Write a chat to a file, which appears under its name when it is complete.

    Raises:
        StateFileError: it cannot be written, or a state cannot be written in this type.
    """
    path = _as_path(path)
    messages = [
        {name: value for name, value in vars(message).items() if name in _OF_A_MESSAGE}
        for message in chat.messages
    ]
    said = {"rwkv_chat": _VERSION, "format": chat.format, "messages": messages}
    text = json.dumps(said, indent=1, ensure_ascii=False).encode()
    try:
        _at_most(_MAX_TEXT_BYTES, len(text), "of text")
        _at_most(_MAX_SKELETON_BYTES, _skeleton_bytes(text), "beside its strings")
    except ValueError as error:
        raise StateFileError(f"{path}: not written: a chat of {error}") from None
    try:
        with (
            appearing(path) as folder,
            zipfile.ZipFile(folder / "complete", "w", zipfile.ZIP_STORED) as archive,
        ):
            archive.writestr("chat.json", text)
            for name, session in chat.states.items():
                file = folder / f"{name}.state"
                with _naming(path, file):
                    session.save_state(file, dtype=dtype)
                archive.write(file, file.name)
    except OSError as error:
        raise StateFileError(
            f"{path}: cannot be written: {error.strerror or error}", remedy="Try another folder"
        ) from None


def read_chat(path: StrPath, session: Session) -> SavedChat:
    """Read a file that `write_chat` wrote with a session of the same model.

    What the file holds is not trusted. Only a file that is no larger than a chat of this model can
    be is opened, and only members that are stored as they are, so that nothing in it can grow:
    it takes at most twice its size of memory and 64 MB.

    Raises:
        StateFileError: it cannot be read, is not a chat, or a damaged one.
        StateMismatchError: it was held with another model.
    """
    path = _as_path(path)
    try:
        _check_size(path, session)
        with path.open("rb") as file, _archive_in(file) as archive:
            _check_members(archive)
            said = _parse(archive.read("chat.json"))
            chat_format, messages = _understand(said)
            states = {
                name: _read_state(path, archive, f"{name}.state", session)
                for name in ("start", "now", "before")
                if f"{name}.state" in archive.namelist()
            }
    except (RwkvError, MemoryError):
        raise
    except OSError as error:
        raise StateFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    # Damaged archives and texts make zipfile and json raise whatever they meet: BadZipFile, zlib's
    # and struct's errors, RuntimeError, NotImplementedError, RecursionError, ...
    except Exception as error:
        raise StateFileError(
            f"{path}: expected a chat that was saved, got: {_shown(error)}",
            remedy="Try saving it again",
        ) from None
    return SavedChat(format=chat_format, messages=messages, states=states)


def _as_path(path: StrPath) -> Path:
    return Path(os.fsdecode(as_path(path)))


@contextmanager
def _naming(path: Path, file: Path) -> Iterator[None]:
    """Let an error about a state's temporary file name the chat's file, and the member."""
    try:
        yield
    except (StateFileError, StateMismatchError) as error:
        complaint = error.message.removeprefix(f"{file}: ")
        raise type(error)(f"{path}: {file.name}: {complaint}", remedy=error.remedy) from None


def _check_size(path: Path, session: Session) -> None:
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):  # opening a named pipe would wait for its writer
        raise StateFileError(f"{path}: expected a file, got {kind_of(info.st_mode)}")
    n_states = len(_REQUIRED | _OPTIONAL) - 1
    largest = _MAX_TEXT_BYTES + n_states * (4 * session.model.state_size + 4096)
    if info.st_size > largest:
        raise StateMismatchError(
            f"{path}: expected at most {largest} bytes for a chat with {session.model.path}, got "
            f"{info.st_size}",
            remedy="Try the model that the chat was held with",
        )


def _shown(error: Exception) -> str:
    """What an error says, which may quote the file: a line of some length."""
    text = str(error)[:200]
    return text if text.isprintable() else ascii(text)


def _archive_in(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive of a few members: of all that its directory has, zipfile makes objects."""
    file.seek(-min(42, file.seek(0, os.SEEK_END)), os.SEEK_END)
    tail = file.read()
    before, end = tail[:-22], tail[-22:]
    # The record that ends a directory, without a comment. A longer one before it, for archives
    # beyond 4 GB, would be believed in its place.
    if not (end[:4] == b"PK\5\6" and end[20:] == b"\0\0") or before[:4] == b"PK\6\7":
        raise ValueError("an end that is no archive's")
    _at_most(_MAX_DIRECTORY_BYTES, int.from_bytes(end[12:16], "little"), "of a directory")
    return zipfile.ZipFile(file)


def _check_members(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if len(set(names)) != len(names) or not _REQUIRED <= set(names) <= _REQUIRED | _OPTIONAL:
        raise ValueError(f"members {', '.join(sorted(names)[:8])}")
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{info.filename} compressed, expected it stored")
    _at_most(_MAX_TEXT_BYTES, archive.getinfo("chat.json").file_size, "of text")


def _read_state(path: Path, archive: zipfile.ZipFile, name: str, session: Session) -> Session:
    """Return a session of the same model in the state that is a member of the archive."""
    content = archive.read(name)
    found = session.fork()
    try:
        with tempfile.TemporaryDirectory(prefix="rwkv-") as folder:
            file = Path(folder, name)
            file.write_bytes(content)
            with _naming(path, file):
                found.load_state(file)
    except OSError as error:
        raise StateFileError(
            f"{path}: {name} cannot be unpacked: {error.strerror or error}",
            remedy="Try a folder with more room in the environment variable TMPDIR",
        ) from None
    return found


def _parse(text: bytes) -> Any:
    """Return what `chat.json` holds, or raise ValueError, RecursionError and such."""
    _at_most(_MAX_SKELETON_BYTES, _skeleton_bytes(text), "beside its strings")
    return json.loads(text.decode())


def _skeleton_bytes(text: bytes) -> int:
    return len(_STRING.sub(b"", text))


def _at_most(most: int, n_bytes: int, what: str) -> None:
    if n_bytes > most:
        raise ValueError(f"{n_bytes} bytes {what}, expected at most {most}")


def _understand(said: Any) -> tuple[str, list[Message]]:
    """Take a `chat.json` apart, or raise ValueError."""
    if not isinstance(said, dict) or said.keys() != {"rwkv_chat", "format", "messages"}:
        raise ValueError("a chat.json without rwkv_chat, format and messages")
    if said["rwkv_chat"] != _VERSION:
        raise ValueError(f"version {said['rwkv_chat']!r:.40}, expected {_VERSION}")
    if not isinstance(said["format"], str) or not isinstance(said["messages"], list):
        raise ValueError("a chat.json whose format is no text, or whose messages are no list")
    messages = [_message(i, entry) for i, entry in enumerate(said["messages"])]
    roles = [message.role for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns != (["user", "assistant"] * len(turns))[: len(turns)]:
        raise ValueError("messages that are not of user and assistant in turn")
    return said["format"], messages


def _message(number: int, entry: Any) -> Message:
    where = f"messages[{number}]"
    if not isinstance(entry, dict) or not entry.keys() <= _OF_A_MESSAGE:
        raise ValueError(f"{where} that is no message")
    role, content = entry.get("role"), entry.get("content")
    thinking, input = entry.get("thinking", ""), entry.get("input")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"{where} of the role {role!r:.40}")
    for text in (content, thinking, "" if input is None else input):
        if not isinstance(text, str):
            raise ValueError(f"{where} that is no text")
        text.encode()  # raises ValueError for a lone surrogate, which no tokenizer takes
    return Message(
        role=cast(Role, role), content=cast(str, content), thinking=thinking, input=input
    )
