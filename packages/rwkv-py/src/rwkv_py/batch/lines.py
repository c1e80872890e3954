"""A file of lines: where each begins, so that none is in memory before its turn."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from .._files import kind_of
from .._system import read_at
from ..errors import InvalidArgumentError
from .line import BadLine, Line, parse_line

__all__ = ["Lines"]

# Beginnings of requests are compared up to these lengths, in bytes: those that have more in common
# come nearer to each other.
_LENGTHS = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768)

# Where what the model reads stands in a request, in the order in which it reads.
_READ = ("tools", "system", "instructions", "messages", "prompt", "input")

_PIECE = 1 << 20


class Lines:
    """The lines of a file that are not empty, numbered from 0. Close it after use.

    Of each line some 70 bytes are in memory: where it is, and what tells which others are like it.

    Args:
        path: the file; it must stay as it is.
        max_bytes: how long a line may be.
        progress: called with how many bytes are read, and of how many.

    Attributes:
        digest: a hash of the whole file, in hexadecimal.
        model: the first model that a line names; None: none does.

    Raises:
        InvalidArgumentError: it is no file.
        OSError: it cannot be read.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, progress: Callable[[int, int], None] | None = None
    ):
        self.path = path
        self.model: str | None = None
        self._max_bytes = max_bytes
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe might wait for ever
            raise InvalidArgumentError(f"{path}: expected a file, got {kind_of(mode)}")
        self._file: BinaryIO = path.open("rb", buffering=0)
        try:
            about = os.fstat(self._file.fileno())
            self._about = _state_of(about)
            self._scan(about.st_size, progress)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def parse(self, number: int) -> Line:
        """Return what a line says.

        Raises:
            BadLine: it is no request, or has the `custom_id` of an earlier one.
            InvalidArgumentError: the file is not as it was.
        """
        self.check_unchanged()  # as soon as may be: what was done before is of another file
        n_bytes = int(self._sizes[number])
        if n_bytes > self._max_bytes:
            raise BadLine(f"line: expected at most {self._max_bytes} bytes, got {n_bytes}")
        raw = read_at(self._file.fileno(), n_bytes, int(self._offsets[number]))
        line = parse_line(raw)
        if number in self._repeated:
            name = line.custom_id
            raise BadLine(f"custom_id: expected one for each line, got {name[:80]!r} again", name)
        return line

    def check_unchanged(self) -> None:
        """Refuse a file that is not as it was when it was opened.

        Raises:
            InvalidArgumentError: it is another, in what the system says of it.
        """
        if _state_of(os.fstat(self._file.fileno())) != self._about:
            raise InvalidArgumentError(
                f"{self.path}: expected it to stay as it is while it is read, got a change"
            )

    def _scan(self, n_all: int, progress: Callable[[int, int], None] | None) -> None:
        digest = hashlib.blake2b(digest_size=16)
        offsets, sizes = array("Q"), array("Q")
        names, works, begins = bytearray(), bytearray(), bytearray()
        for offset, n_bytes, raw in _lines_of(self._file, self._max_bytes, digest.update):
            if not n_bytes:
                continue
            offsets.append(offset)
            sizes.append(n_bytes)
            name, work, begin = self._describe(raw)
            names += name
            works.append(work)
            begins += begin
            if progress is not None:
                progress(offset + n_bytes, n_all)
        self.digest = digest.hexdigest()
        self._offsets = np.array(offsets, np.uint64)
        self._sizes = np.array(sizes, np.uint64)
        self._repeated = _repeated(np.frombuffer(bytes(names), np.uint64).reshape(-1, 2))
        likeness = np.frombuffer(bytes(begins), np.uint32).reshape(-1, len(_LENGTHS))
        keys: list[NDArray[Any]] = [np.arange(len(self))]  # the last is the most important
        keys += [likeness[:, i] for i in reversed(range(len(_LENGTHS)))]
        keys.append(~np.frombuffer(bytes(works), np.uint8))  # the longest first
        self._order = np.lexsort(keys).astype(np.uint32)

    @property
    def order(self) -> NDArray[np.uint32]:
        """The lines in the order in which they are best worked on.

        Those that ask for long texts come first, so that none of them is left alone in the end; of
        those like them, lines that begin alike come one after the other.
        """
        return self._order

    def _describe(self, raw: bytes | None) -> tuple[bytes, int, bytes]:
        """Return of a line what tells its name, how much text it asks for, how it begins."""
        line = None
        if raw is not None:
            with contextlib.suppress(BadLine):
                line = parse_line(raw)
        if line is None:
            return bytes(16), 0, bytes(4 * len(_LENGTHS))
        model = line.body.get("model")
        if self.model is None and isinstance(model, str):
            self.model = model
        name = hashlib.blake2b(line.custom_id.encode("utf-8", "surrogatepass"), digest_size=16)
        return name.digest(), _work_of(line), _likeness_of(line)


def _state_of(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


def _lines_of(
    file: BinaryIO, max_bytes: int, take: Callable[[bytes], object]
) -> Iterator[tuple[int, int, bytes | None]]:
    """Return each line's offset, length without what surrounds it, and bytes; None if too long.

    Args:
        file: is read from its beginning to its end.
        max_bytes: how long a line may be.
        take: is given all bytes of the file.
    """
    offset, kept, n_kept = 0, bytearray(), 0

    def line(end: int) -> tuple[int, int, bytes | None]:
        if n_kept > max_bytes + 2:  # with what may surround it
            return end - n_kept, n_kept, None
        raw = bytes(kept)
        inner = raw.strip(b" \t\r\n")
        left = len(raw) - len(raw.lstrip(b" \t\r\n"))
        return end - n_kept + left, len(inner), inner if len(inner) <= max_bytes else None

    while piece := file.read(_PIECE):
        take(piece)
        start = 0
        while True:
            end = piece.find(b"\n", start)
            part = memoryview(piece)[start : end if end >= 0 else len(piece)]
            n_kept += len(part)
            if n_kept <= max_bytes + 2:
                kept += part
            if end < 0:
                break
            yield line(offset + end)
            kept.clear()
            n_kept, start = 0, end + 1
        offset += len(piece)
    if n_kept:
        yield line(offset)


def _repeated(names: NDArray[np.uint64]) -> set[int]:
    """Return which lines have the name of an earlier one; those of zeros have none."""
    order = np.lexsort([np.arange(len(names)), names[:, 0], names[:, 1]])
    sorted_names = names[order]
    same = (sorted_names[1:] == sorted_names[:-1]).all(axis=1) & sorted_names[1:].any(axis=1)
    return set(order[1:][same].tolist())


def _work_of(line: Line) -> int:
    """Return how much text a line asks for: the number of binary digits."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        wanted = line.body.get(name)
        if isinstance(wanted, int) and wanted >= 0:
            return min(wanted, 1 << 30).bit_length()
    return {"/v1/embeddings": 0, "/v1/completions": 5}.get(line.url, 31)


def _likeness_of(line: Line) -> bytes:
    """Return hashes of what a line begins with, a longer beginning each."""
    read: list[Any] = [line.url, line.body.get("model")]
    read += [line.body[name] for name in _READ if name in line.body]
    try:
        text = json.dumps(read, ensure_ascii=False).encode("utf-8", "replace")
    except (RecursionError, ValueError):
        text = b""
    found, hashed, begin = b"", 0, 0
    for end in _LENGTHS:
        hashed = zlib.crc32(text[begin:end], hashed)
        found += hashed.to_bytes(4, "little")
        begin = end
    return found
