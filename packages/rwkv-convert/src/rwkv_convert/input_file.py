"""An input file, open to be read at any offset, and known again if it is opened anew."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import DOWNLOAD_AGAIN, CheckpointError, reason

_AT_ONCE = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Tells a file from another one that took its name, and from itself after a change."""

    device: int
    inode: int
    size: int
    modified_ns: int

    def is_of(self, path: Path) -> bool:
        """Whether a path leads to this file, changed or not."""
        try:
            found = os.stat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


class InputFile:
    """A regular file that is open for reading.

    Attributes:
        path: the file, as it was given.
        stamp: what it was when it was opened.
    """

    def __init__(self, path: str | os.PathLike[str], expected: FileStamp | None = None) -> None:
        """Opens a file.

        Args:
            path: where it is.
            expected: the stamp from when it was opened before, if it was.

        Raises:
            CheckpointError: it cannot be opened, is no regular file, or has changed.
        """
        self.path = Path(path)
        if not os.fspath(path):
            raise CheckpointError("input: expected the name of a file, got an empty one")
        try:
            # Looked at before it is opened, which pipes and devices notice, and after, because it
            # may be another file by then; without waiting for somebody to write into it.
            self._check_kind(os.stat(path))
            self._file = open(  # noqa: SIM115
                path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | _AT_ONCE)
            )
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            raise CheckpointError(f"{self.path}: cannot be opened: {reason(error)}") from error
        try:
            self._check_kind(self._status())
            self.stamp = self._stamp()
            if expected is not None:
                self._compare(expected)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # what was read was read
            self._file.close()

    @property
    def size(self) -> int:
        """Bytes in the file when it was opened."""
        return self.stamp.size

    def read(self, offset: int, count: int, what: str = "") -> bytes:
        """The bytes from an offset on; `what` they are, for the message if the file is too short.

        Raises:
            CheckpointError: the file ends before, or cannot be read.
        """
        # Before the memory is taken: `count` may be a number from a damaged file.
        if offset + count > self.size:
            raise CheckpointError(
                f"{self.path}: truncated, expected {count} bytes{what and f' for {what}'} at "
                f"offset {offset}, got {max(0, self.size - offset)}",
                remedy=DOWNLOAD_AGAIN,
            )
        data = bytearray(count)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fills `out` from an offset on, which lies inside the file as it was opened.

        Raises:
            CheckpointError: the file ends before by now, or cannot be read.
        """
        done = 0
        try:
            self._file.seek(offset)
            while done < len(out):
                count = self._file.readinto(out[done:])
                if not count:
                    raise self._changed()
                done += count
        except OSError as error:
            raise self._cannot_be_read(error) from error

    def check_unchanged(self) -> None:
        """Makes sure that nobody wrote into the file since it was opened.

        Raises:
            CheckpointError: somebody did.
        """
        self._compare(self._stamp())

    def _check_kind(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or pipe"
            raise CheckpointError(f"{self.path}: expected a checkpoint file, got {kind}")

    def _stamp(self) -> FileStamp:
        found = self._status()
        return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _status(self) -> os.stat_result:
        try:
            return os.fstat(self._file.fileno())
        except OSError as error:
            raise self._cannot_be_read(error) from error

    def _cannot_be_read(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self.path}: cannot be read: {reason(error)}")

    def _compare(self, other: FileStamp) -> None:
        if other != self.stamp:
            raise self._changed()

    def _changed(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: changed while it was read, expected the same file throughout",
            remedy="Try again when nothing writes into it",
        )
