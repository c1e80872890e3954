"""A planned file: every byte has its place before the first one is written."""

from __future__ import annotations

from dataclasses import dataclass

from .element_types import Bytes, ElementType, Floats
from .identify import FileTensor
from .output_file import Writer


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A tensor with its place in the file.

    Attributes:
        tensor: what is written.
        type: the type it is written in.
        header: the bytes before its data.
        offset: byte offset of its data.
        through_fp16: whether its numbers are rounded to fp16 before they are quantised.
        importance: what the squared error of a number counts by its column, (columns,), at least 0;
            None: all the same.
        blocks: its data, if others have quantised it: (bytes,).
    """

    tensor: FileTensor
    type: ElementType
    header: bytes
    offset: int
    through_fp16: bool
    importance: Floats | None = None
    blocks: Bytes | None = None

    @property
    def data_bytes(self) -> int:
        """Size of the data."""
        return self.type.bytes_of(sum(part.count for part in self.tensor.parts))


@dataclass(frozen=True, slots=True)
class FilePlan:
    """A file: what it begins with, its tensors, and its size; what is left between is zeros."""

    header: bytes
    tensors: tuple[PlacedTensor, ...]
    file_bytes: int


def write_headers(write_at: Writer, plan: FilePlan) -> None:
    """Writes all that is no data."""
    write_at(0, plan.header)
    for placed in plan.tensors:
        write_at(placed.offset - len(placed.header), placed.header)
    end = max(placed.offset + placed.data_bytes for placed in plan.tensors)
    write_at(end, bytes(plan.file_bytes - end))
