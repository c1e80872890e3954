"""What is known so far of the answers to a file of requests: on the disk, whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._system import lock_file, read_at
from ..errors import InvalidArgumentError

__all__ = ["Journal", "JournalOfOtherWorkError", "naming"]

_FORM = "rwkv batch journal 1"


class JournalOfOtherWorkError(InvalidArgumentError):
    """A journal is of other lines, or of lines that were to be answered in another way."""


class Journal:
    """Answers in the order in which they came, each a line; what is half written counts as nothing.

    The first line says what the answers are of. Each other is a checksum, a number, "+" for an
    answer or "-" for a failure, and what is told.

    Args:
        path: the file; it is made if there is none, and one process has it at a time.
        facts: what the answers are of, such as {"input": "a hash of it"}; what JSON can hold.
        n_lines: how many there are to be.

    Attributes:
        n_done: how many are known.
        n_failed: how many of them are failures.

    Raises:
        JournalOfOtherWorkError: it is of something else.
        InvalidArgumentError: it is no journal, or another process has it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], n_lines: int):
        self.path = path
        self.n_done = 0
        self.n_failed = 0
        self._offsets = np.full(n_lines, -1, np.int64)
        self._sizes = np.zeros(n_lines, np.uint32)
        self._has_failed = np.zeros(n_lines, np.bool_)
        head = json.dumps({"form": _FORM, **facts}).encode() + b"\n"
        if not path.exists():
            _appear(path, head)
        self._opened = path.open("a+b", buffering=0)
        self._file = self._opened.fileno()
        try:
            if not lock_file(self._file):
                raise InvalidArgumentError(
                    f"{path}: expected that nobody else works on it, got another process that does"
                )
            self._end = self._read(dict(facts))
            os.ftruncate(self._file, self._end)
        except BaseException:
            self._opened.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def knows(self, number: int) -> bool:
        """Whether the answer to a line is known."""
        return bool(self._offsets[number] >= 0)

    def has_failed(self, number: int) -> bool:
        """Whether what is known of a line is a failure."""
        return bool(self._has_failed[number])

    def add(self, number: int, told: bytes, *, failed: bool) -> None:
        """Note the answer to a line; it is not lost then if this process is killed.

        Args:
            number: of the line.
            told: the answer, without a newline.
            failed: whether it is a failure.

        Raises:
            OSError: it cannot be written; then nothing is noted.
        """
        head = b"%d %c " % (number, b"-" if failed else b"+")
        record = b"%08x " % zlib.crc32(told, zlib.crc32(head)) + head + told + b"\n"
        view = memoryview(record)
        try:
            with naming(self.path):
                while view:
                    view = view[os.write(self._file, view) :]
        except BaseException:
            os.ftruncate(self._file, self._end)
            raise
        self._note(number, self._end + 9 + len(head), len(told), failed)
        self._end += len(record)

    def told(self, number: int) -> bytes:
        """Return what was told of a line that is known."""
        return read_at(self._file, int(self._sizes[number]), int(self._offsets[number]))

    def sync(self) -> None:
        """Let what is noted be on the disk, where a power cut does not reach it."""
        os.fsync(self._file)

    def close(self) -> None:
        """Let another process have it."""
        self._opened.close()

    def delete(self) -> None:
        """Delete the file, which nobody needs any more."""
        self.path.unlink(missing_ok=True)

    def _note(self, number: int, offset: int, n_bytes: int, failed: bool) -> None:
        self._offsets[number] = offset
        self._sizes[number] = n_bytes
        self._has_failed[number] = failed
        self.n_done += 1
        self.n_failed += failed

    def _read(self, facts: dict[str, Any]) -> int:
        """Learn what is known; return where it ends."""
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)  # opened to append to, it may begin at its end
            head = file.readline()
            self._check_head(head, facts)
            end = len(head)
            for line in file:
                if not self._take(line, end):
                    break
                end += len(line)
        return end

    def _check_head(self, head: bytes, facts: dict[str, Any]) -> None:
        try:
            found = json.loads(head)
            if found.pop("form") != _FORM:
                raise ValueError
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InvalidArgumentError(
                f"{self.path}: expected a journal of this version, got another file",
                remedy="Try another name for the output",
            ) from None
        for name in [*facts, *found]:
            then, now = found.get(name), facts.get(name)
            if then != now:
                raise JournalOfOtherWorkError(
                    f"{self.path}: begun with another {name}, expected {then!r}, got {now!r}",
                    remedy="Try the same again, another name for the output, or --force, which "
                    "begins anew",
                )

    def _take(self, line: bytes, offset: int) -> bool:
        """Learn what a line says; return whether it is whole."""
        checksum, _, rest = line.partition(b" ")
        number, _, more = rest.partition(b" ")
        kind, _, told = more.partition(b" ")
        if not (line.endswith(b"\n") and kind in (b"+", b"-") and number.isdigit()):
            return False
        if b"%08x" % zlib.crc32(rest[:-1]) != checksum:
            return False
        if int(number) >= len(self._offsets):
            return False
        if not self.knows(int(number)):
            self._note(int(number), offset + len(line) - len(told), len(told) - 1, kind == b"-")
        return True


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let what a disk fails with tell the file that was being written."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(f"{path}: cannot be written: {error.strerror}") from error


def _appear(path: Path, head: bytes) -> None:
    """Make the file with its first line, or not at all."""
    begun = path.with_name(path.name + ".new")
    with begun.open("wb") as file:
        file.write(head)
        file.flush()
        os.fsync(file.fileno())
    os.replace(begun, path)
