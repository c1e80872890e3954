"""The three standard streams: what is closed, full or slow says so, and two consoles."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import BinaryIO

from rich.console import Console

from ..errors import InvalidArgumentError

# More than a day's reading for any model; what never ends, such as /dev/zero, is refused by it.
_MAX_TEXT_BYTES = 1 << 30


class NobodyReads(BaseException):
    """The other end of stdout is closed. Of an OSError Typer and rich would make an end."""


class _Stream(io.FileIO):
    """A standard stream whose errors name it, and that waits where the other end is not ready."""

    def __init__(self, file: int, mode: str, name: str):
        super().__init__(file, mode, closefd=False)
        self.name = name

    def write(self, data: object) -> int:
        while True:
            with self._errors():
                n_written: int | None = super().write(data)  # type: ignore[arg-type]
            if n_written is not None:
                return n_written
            select.select([], [self], [])  # somebody made the pipe non-blocking

    def readinto(self, buffer: object) -> int:
        while True:
            with self._errors():
                n_read: int | None = super().readinto(buffer)  # type: ignore[arg-type]
            if n_read is not None:
                return n_read
            select.select([self], [], [])

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EPIPE and self.name == "stdout":
                raise NobodyReads from None
            closed = error.errno == errno.EBADF
            error.filename = self.name
            error.strerror = "it is closed" if closed else error.strerror
            raise


def prepare() -> None:
    """Take over stdin, stdout and stderr.

    One that was closed (`>&-`, some services) is None to Python, and what is written to it is lost
    in silence; besides, the next file that is opened gets its number. Here it becomes one that
    refuses to be read or written; but to a closed stderr nothing can be said, so it takes all.
    """
    closed = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_RDWR}
    for file, (name, flags) in enumerate(closed.items()):
        old = getattr(sys, name)
        number = file if old is not None else os.open(os.devnull, flags)
        raw = _Stream(number, "r" if name == "stdin" else "w", name)
        buffer = io.BufferedReader(raw) if name == "stdin" else io.BufferedWriter(raw)
        new = io.TextIOWrapper(
            buffer,
            encoding=old.encoding if old is not None else "utf-8",
            # A terminal may lack a character of a text, and a text need not be UTF-8.
            errors="backslashreplace" if name == "stderr" else "replace",
            # write_through is Python's word for PYTHONUNBUFFERED.
            line_buffering=old is None or old.line_buffering or old.write_through,
        )
        setattr(sys, name, new)


def flush() -> None:
    """Write out what stdout still holds, while an error can still be told."""
    sys.stdout.flush()


def abandon() -> None:
    """Let what stdout and stderr still hold go, if it cannot be written: Python would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, NobodyReads):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def read_all(stream: BinaryIO, name: str) -> bytes:
    """Read a text to its end.

    Raises:
        InvalidArgumentError: it is longer than any text that a model can read.
        OSError: it cannot be read.
    """
    pieces, n_bytes = [], 0
    while piece := stream.read(1 << 20):
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > _MAX_TEXT_BYTES:
            raise InvalidArgumentError(
                f"{name}: expected at most {_MAX_TEXT_BYTES} bytes of text, got more"
            )
    return b"".join(pieces)


def read_stdin() -> bytes:
    """Read stdin to its end: bytes, which need not be UTF-8."""
    return read_all(sys.stdin.buffer, "stdin")


# What is printed is what a model, a user or a file says, and never markup.
stdout = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def complain(text: str) -> None:
    """Say in one line on stderr what is wrong; if that cannot be said, the exit code tells."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    with contextlib.suppress(OSError):
        stderr.print(line, style="red")
