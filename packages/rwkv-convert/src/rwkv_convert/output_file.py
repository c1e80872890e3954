"""An output file that appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import OutputError, reason

Writer = Callable[[int, "bytes | memoryview"], None]
"""Writes bytes at a byte offset."""


def check_destination(path: str | os.PathLike[str], *, force: bool) -> Path:
    """Refuses early what would fail late.

    Returns:
        the file to write: where a symbolic link leads, so that links stay, and those of /dev too.

    Raises:
        OutputError: the path exists (and `force` is not set), or cannot be a file.
    """
    shown = Path(path)
    if not os.fspath(path):
        raise OutputError("output: expected the name of a file to write, got an empty one")
    try:
        real = Path(os.path.realpath(path)) if os.path.islink(path) else shown
        kind = _kind(path)
        if kind is not None:
            raise OutputError(f"{shown}: expected the name of a file to write, got {kind}")
        if os.path.lexists(path) and not force:
            raise OutputError(
                f"{shown}: exists, expected a new name",
                remedy="Try another name, or force=True to replace it",
            )
        if not real.parent.is_dir():
            raise OutputError(
                f"{shown}: expected a folder {real.parent} to write into, got none",
                remedy="Try to make it first",
            )
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise _cannot_be_written(shown, error) from error
    return real


def _kind(path: str | os.PathLike[str]) -> str | None:
    """What a path is that cannot be replaced by a file; None if it can."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(mode):
        return "a folder"
    return None if stat.S_ISREG(mode) else "a device or pipe"


def temporary_name(path: Path) -> Path:
    """A new name beside `path`, short whatever the length of the name that it stands for."""
    return path.with_name(f".rwkv-{secrets.token_hex(4)}.part")


@contextlib.contextmanager
def temporary_output(path: Path, *, force: bool) -> Iterator[OutputFile]:
    """A file beside `path` that takes its name when the block succeeds, and vanishes when it fails.

    Raises:
        OutputError: it cannot be created, or `path` came into being meanwhile.
    """
    temporary = temporary_name(path)
    try:
        with _told_of(path):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield OutputFile(temporary, path)
        with _told_of(path):
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            check_destination(path, force=force)
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that is being written.

    Attributes:
        temporary: its present name.
        path: the name that it will take, and that errors tell.
    """

    temporary: Path
    path: Path

    @contextlib.contextmanager
    def open(self) -> Iterator[Writer]:
        """Opens it for one thread, and gives what writes all of some bytes at a byte offset.

        Raises:
            OutputError: it cannot be opened or written.
        """
        with _told_of(self.path):
            file = self.temporary.open("rb+", buffering=0)

        def write_at(offset: int, data: bytes | memoryview) -> None:
            with _told_of(self.path):
                file.seek(offset)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]

        try:
            yield write_at
        finally:
            with _told_of(self.path):  # some file systems tell only now that there is no room
                file.close()


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable where the system can (not on Windows, not on every file system)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Turns the system's errors into ours, about the file that the user named."""
    try:
        yield
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def _cannot_be_written(path: Path, error: Exception) -> OutputError:
    too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    return OutputError(
        f"{path}: cannot be written: {reason(error)}",
        remedy="Try a shorter name" if too_long else "",
    )
