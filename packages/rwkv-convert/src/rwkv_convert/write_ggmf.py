"""ggmf `.bin` files: where everything goes in one."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .element_types import ElementType
from .file_plan import FilePlan, PlacedTensor
from .identify import FileTensor, Model
from .read_ggmf import GGMF_MAGIC, GGMF_VERSION, HEADER, TENSOR_HEADER


def plan_ggmf(
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
