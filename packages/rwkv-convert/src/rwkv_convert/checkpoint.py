"""What every reader yields: named views of numbers that lie in one file, and how to read them.

A `.pth`, a `.safetensors` and a ggmf `.bin` all come down to the same thing, a tensor is `shape`
and `strides` over numbers that start at a byte offset of the file. Everything after the readers
works on that alone, and never holds more than one small piece of a tensor.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .element_types import ElementType
from .errors import CheckpointError, quote

MAX_GAP_BYTES = 1 << 20
"""A strided run is read together with its gaps, in pieces of at most this many bytes."""

MAX_SPAN_BYTES = 8 << 20
BYTES_PER_READ = 16 << 10
"""A strided view is read whole, gaps and all, up to MAX_SPAN_BYTES, if reading its runs one by one
costs more: a read costs as much as copying this many bytes."""


@dataclass(frozen=True, slots=True)
class TensorView:
    """Numbers in a file, seen as a tensor (or blocks of a quantised type, then contiguous).

    Attributes:
        type: how one number is stored.
        offset: byte offset in the file of element [0, 0, ...].
        shape: PyTorch's order, the last dimension varies fastest.
        strides: in elements, not bytes; 0 repeats one element along a dimension.
    """

    type: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def contiguous(cls, type: ElementType, offset: int, shape: tuple[int, ...]) -> TensorView:
        """A tensor whose elements follow each other in row-major order."""
        return cls(type, offset, shape, contiguous_strides(shape))

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements follow each other in row-major order."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1:
                if stride != expected:
                    return False
                expected *= size
        return True

    def squeezed(self) -> TensorView:
        """Without its dimensions of size 1."""
        kept = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        return replace(self, shape=tuple(n for n, _ in kept), strides=tuple(s for _, s in kept))

    def transposed(self) -> TensorView:
        """With its last two dimensions exchanged."""
        *shape, rows, columns = self.shape
        *strides, down, across = self.strides
        return replace(self, shape=(*shape, columns, rows), strides=(*strides, across, down))

    def split(self, max_count: int, multiple: int) -> Iterator[TensorView]:
        """Cuts the tensor into pieces of at most `max_count` elements, in row-major order.

        Rows stay whole where they fit; a longer row is cut at multiples of `multiple`.
        """
        if self.count <= max_count:
            yield self
            return
        size, *rest = self.shape
        below = math.prod(rest)
        step = max(1, max_count // below)
        if not rest:
            step = max(multiple, step // multiple * multiple)
        for start in range(0, size, step):
            piece = replace(
                self,
                offset=self.offset + start * self.strides[0] * self.type.size,
                shape=(min(step, size - start), *rest),
            )
            if rest and piece.count > max_count:  # a single index, still too large: go deeper
                piece = replace(piece, shape=tuple(rest), strides=self.strides[1:])
            yield from piece.split(max_count, multiple)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    strides: list[int] = []
    below = 1
    for size in reversed(shape):
        strides.append(below)
        below *= size
    return tuple(reversed(strides))


@dataclass(slots=True)
class Checkpoint:
    """The table of contents of an input file.

    Attributes:
        path: the file.
        container: `pth (zip)`, `pth (legacy)`, `safetensors` or `ggmf`.
        file_bytes: the file's size.
        tensors: in the file's order.
        other_entries: names of entries of the dict that are no tensors.
    """

    path: Path
    container: str
    file_bytes: int
    tensors: dict[str, TensorView]
    other_entries: list[str] = field(default_factory=list)

    @property
    def is_model_file(self) -> bool:
        """Whether the tensors are already in a model file's names and shapes."""
        return self.container == "ggmf"


class PieceReader:
    """Reads pieces of tensors through a handle of its own; one per thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._path = path

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, view: TensorView, buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reads a view's elements in row-major order.

        Args:
            view: of a plain number type.
            buffer: at least `view.count * view.type.size` bytes.

        Returns:
            the part of `buffer` that holds the elements' bytes.
        """
        size = view.type.size
        out = buffer[: view.count * size]
        if view.is_contiguous:
            self._read_at(view.offset, out)
        else:
            self._read_strided(view, out)
        return out

    def _read_at(self, offset: int, out: NDArray[np.uint8]) -> None:
        read_exactly(self._file, offset, out.data, self._path)

    def _read_strided(self, view: TensorView, out: NDArray[np.uint8]) -> None:
        size = view.type.size
        element = np.dtype(f"<u{size}") if size in (1, 2, 4, 8) else np.dtype((np.void, size))
        # Axes by stride, the largest first: the order in which the elements lie in the file. Axes
        # of one index or of stride 0 hold nothing of their own.
        axes = [i for i, n in enumerate(view.shape) if n > 1 and view.strides[i] > 0]
        axes.sort(key=lambda i: -view.strides[i])

        run = 1  # elements that follow each other without a gap, over the innermost axes
        inner = len(axes)
        while inner and view.strides[axes[inner - 1]] == run:
            inner -= 1
            run *= view.shape[axes[inner]]
        step = 1
        if run == 1 and inner:  # no axis has stride 1: a run is the innermost axis with its gaps
            inner -= 1
            run, step = view.shape[axes[inner]], view.strides[axes[inner]]

        span = 1 + sum((view.shape[i] - 1) * view.strides[i] for i in axes)
        n_runs = math.prod(view.shape[i] for i in axes[:inner])
        if span * size <= min(MAX_SPAN_BYTES, n_runs * BYTES_PER_READ):
            whole = np.empty(span, element)
            self._read_at(view.offset, whole.view(np.uint8))
            strides = [stride * size for stride in view.strides]
            out.view(element).reshape(view.shape)[...] = np.lib.stride_tricks.as_strided(
                whole, view.shape, strides, writeable=False
            )
            return

        # Read the runs in the order of the file, then put the axes into the order of the view.
        held = np.empty([view.shape[i] for i in axes], element)
        runs = held.reshape(-1, run)
        outer = [range(view.shape[i]) for i in axes[:inner]]
        for row, index in zip(runs, product(*outer), strict=True):
            start = sum(k * view.strides[i] for k, i in zip(index, axes[:inner], strict=True))
            offset = view.offset + start * size
            if step == 1:
                self._read_at(offset, row.view(np.uint8))
                continue
            per_read = max(1, MAX_GAP_BYTES // (step * size))
            for at in range(0, run, per_read):
                part = row[at : at + per_read]
                gapped = np.empty((len(part) - 1) * step + 1, element)
                self._read_at(offset + at * step * size, gapped.view(np.uint8))
                part[:] = gapped[::step]

        # Back to the view's axes; the ones left out come back with one index and are repeated.
        in_order = held.transpose([axes.index(i) for i in sorted(axes)])
        shape = [n if i in axes else 1 for i, n in enumerate(view.shape)]
        out.view(element).reshape(view.shape)[...] = in_order.reshape(shape)


def read_exactly(file: BinaryIO, offset: int, out: memoryview, path: Path) -> None:
    """Fills `out` from a byte offset of a file.

    Raises:
        CheckpointError: the file ends before, or cannot be read.
    """
    done = 0
    try:
        file.seek(offset)
        while done < len(out):
            count = file.readinto(out[done:])  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(
                    f"{path}: truncated, expected {len(out)} bytes at offset {offset}, "
                    f"got {done}. Try to download it again"
                )
            done += count
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


Opener = Callable[[Path, BinaryIO, int], Checkpoint]


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the table of contents of a file; its content decides what it is, not its name.

    Raises:
        CheckpointError: not such a file, or a damaged one.
    """
    # The readers build on the classes above.
    from .read_ggmf import GGMF_MAGIC, read_ggmf
    from .read_pth import LEGACY_MAGIC, ZIP_MAGIC, read_pth_legacy, read_pth_zip
    from .read_safetensors import looks_like_safetensors, read_safetensors

    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "no regular file"
            raise CheckpointError(f"{path}: expected a checkpoint file, got {kind}")
        file = path.open("rb", buffering=0)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"{path}: cannot be opened: {reason or error}") from error
    with file:
        file_bytes = os.fstat(file.fileno()).st_size
        head = bytearray(min(64, file_bytes))
        read_exactly(file, 0, memoryview(head), path)
        reader: Opener
        if head.startswith(ZIP_MAGIC):
            reader = read_pth_zip
        elif head.startswith(GGMF_MAGIC):
            reader = read_ggmf
        elif LEGACY_MAGIC.match(head):
            reader = read_pth_legacy
        elif looks_like_safetensors(bytes(head)):
            reader = read_safetensors
        else:
            raise CheckpointError(
                f"{path}: not a checkpoint, expected a .pth, .safetensors or ggmf .bin file, "
                f"got {_guess(bytes(head))}"
            )
        return reader(path, file, file_bytes)


def _guess(head: bytes) -> str:
    """What a file that is no checkpoint may be, with what to do about it."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "an empty file. Try to download it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page. Try the link that downloads the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer. Try `git lfs pull`"
    if head.startswith(b"GGUF"):
        return "a GGUF file. Try the checkpoint that it was made from"
    if head[:4] in (b"tjgg", b"lmgg", b"algg"):
        return "a ggml file of another program. Try the checkpoint that it was made from"
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "a compressed archive. Try to unpack it first"
    if head.startswith(b"\x80"):
        return "a pickle that torch.save did not write"
    if not any(head):
        return "zeros. Try to download it again"
    return f"a file that begins with {quote(head[:16].decode('latin-1'))}"
