"""What every reader yields: named views of numbers that lie in one file, and how to read them.

A `.pth`, a `.safetensors` and a ggmf `.bin` all come down to the same thing, a tensor is `shape`
and `strides` over numbers that start at a byte offset of the file. Everything after the readers
works on that alone, and never holds more than one small piece of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from .element_types import ElementType
from .gguf_values import GgufValue
from .input_file import FileStamp

MAX_TENSORS = 20_000
"""The largest official models have 2 200. What a table of contents costs is bounded by this."""


@dataclass(frozen=True, slots=True)
class TensorView:
    """Numbers in a file, seen as a tensor (or blocks of a quantised type, then contiguous).

    Attributes:
        type: how one number is stored.
        offset: byte offset in the file of element [0, 0, ...].
        shape: PyTorch's order, the last dimension varies fastest.
        strides: in elements, not bytes; 0 repeats one element along a dimension.
        scale: what the numbers are to be multiplied by, a power of two.
    """

    type: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    scale: float = 1.0

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
                offset=self.offset + self.type.bytes_of(start * self.strides[0]),
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
        path: the file, of several parts the first.
        stamp: tells whether it is still the same file when it is opened again.
        container: `pth (zip)`, `pth (legacy)`, `safetensors`, `ggmf` or `gguf`.
        tensors: in the file's order.
        nested: the tensors of dicts inside the file's dict, by path (`state_dict`).
        other_entries: names of entries of the dict that are no tensors.
        is_model_file: whether the tensors are already in a model file's names and shapes.
        more_files: the other parts, with their stamps.
        places: the part that a tensor lies in, if it is not the first.
        metadata: what a GGUF file says beside the tensors, by key.
        config: what the `config.json` beside the file says.
    """

    path: Path
    stamp: FileStamp
    container: str
    tensors: dict[str, TensorView]
    nested: dict[str, dict[str, TensorView]] = field(default_factory=dict)
    other_entries: list[str] = field(default_factory=list)
    is_model_file: bool = False
    more_files: dict[Path, FileStamp] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    metadata: dict[str, GgufValue] = field(default_factory=dict)
    config: dict[str, object] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, dict[str, TensorView]]:
        """All tensors, by the path of the dict that holds them, "" for the file's own."""
        return {"": self.tensors, **self.nested}

    @property
    def files(self) -> dict[Path, FileStamp]:
        """All files, with their stamps."""
        return {self.path: self.stamp, **self.more_files}

    def path_of(self, name: str) -> Path:
        """The file that a tensor lies in."""
        return self.places.get(name, self.path)


def layer_of(name: str) -> int:
    """The N of `blocks.N.rest`, -1 for other names."""
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blocks" and parts[1].isascii() and parts[1].isdigit():
        return int(parts[1]) if len(parts[1]) < 10 else -1
    return -1
