"""ggmf `.bin` files: where everything goes in one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from .element_types import ElementType
from .identify import FileTensor, Model
from .output_file import Writer
from .read_ggmf import GGMF_MAGIC, GGMF_VERSION, HEADER, TENSOR_HEADER


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A tensor with its place in the file.

    Attributes:
        tensor: what is written.
        type: the type it is written in.
        header: the bytes before its data.
        offset: byte offset of its data.
        through_fp16: whether its numbers are rounded to fp16 before they are quantised.
    """

    tensor: FileTensor
    type: ElementType
    header: bytes
    offset: int
    through_fp16: bool

    @property
    def data_bytes(self) -> int:
        """Size of the data."""
        return self.type.bytes_of(sum(part.count for part in self.tensor.parts))


@dataclass(frozen=True, slots=True)
class FilePlan:
    """A file whose every byte has its place before the first one is written."""

    header: bytes
    tensors: tuple[PlacedTensor, ...]
    file_bytes: int


def plan_file(
    model: Model,
    dtype: ElementType,
    type_of: Callable[[FileTensor], ElementType],
    through_fp16: Callable[[FileTensor], bool],
) -> FilePlan:
    """Lays out a file.

    Args:
        model: what is written.
        dtype: the type that the file's header names.
        type_of: the type of each tensor.
        through_fp16: see PlacedTensor.
    """
    (magic,) = struct.unpack("<i", GGMF_MAGIC)
    header = HEADER.pack(
        magic, GGMF_VERSION, model.n_vocab, model.n_embd, model.n_layer, dtype.ggmf
    )
    at = len(header)
    placed: list[PlacedTensor] = []
    for tensor in model.tensors:
        type = type_of(tensor)
        name = tensor.name.encode()
        dimensions = tensor.shape[::-1]  # the fastest-varying first
        tensor_header = (
            TENSOR_HEADER.pack(len(dimensions), len(name), type.ggmf)
            + struct.pack(f"<{len(dimensions)}i", *dimensions)
            + name
        )
        at += len(tensor_header)
        placed.append(PlacedTensor(tensor, type, tensor_header, at, through_fp16(tensor)))
        at += placed[-1].data_bytes
    return FilePlan(header, tuple(placed), at)


def write_headers(write_at: Writer, plan: FilePlan) -> None:
    """Writes all that is no data."""
    write_at(0, plan.header)
    for placed in plan.tensors:
        write_at(placed.offset - len(placed.header), placed.header)
