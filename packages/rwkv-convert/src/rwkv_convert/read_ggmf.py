"""ggmf `.bin` files (rwkv.cpp's own container): the table of contents."""

from __future__ import annotations

import math
import struct

from .checkpoint import MAX_TENSORS, Checkpoint, TensorView, layer_of
from .errors import DOWNLOAD_AGAIN, CheckpointError, listing, quote
from .input_file import InputFile
from .weight_types import GGMF_TYPES

GGMF_MAGIC = struct.pack("<i", 0x67676D66)
GGMF_VERSION = 101
"""What we write. 100 is read when it holds no quantised blocks, whose layout was another."""

HEADER = struct.Struct("<6i")  # magic, version, n_vocab, n_embed, n_layer, data_type
TENSOR_HEADER = struct.Struct("<3i")  # number of dimensions, length of the name, data_type

UNSUPPORTED_TYPES = {
    4: "q4_1_o (retired)",
    5: "q4_2 (retired)",
    6: "q4_3 (retired)",
    10: "q8_1",
    11: "q2_K",
    12: "q3_K",
    13: "q4_K",
    14: "q5_K",
    15: "q6_K",
    16: "q8_K",
}

MAX_DIMENSIONS = 3
MAX_NAME_BYTES = 1024


def read_ggmf(file: InputFile) -> Checkpoint:
    """Reads the headers of a ggmf file and checks that every tensor lies inside it.

    Raises:
        CheckpointError: a damaged file, or one of a type or version that we do not read.
    """
    path = file.path
    at = 0

    def read(size: int, what: str) -> bytes:
        nonlocal at
        data = file.read(at, size, what)
        at += size
        return data

    _, version, n_vocab, n_embed, n_layer, data_type = HEADER.unpack(
        read(HEADER.size, "the file header")
    )
    if version not in (100, GGMF_VERSION):
        raise CheckpointError(
            f"{path}: ggmf version, expected 100 or {GGMF_VERSION}, got {version}"
        )
    if data_type not in GGMF_TYPES:
        raise CheckpointError(f"{path}: data type of the file, {_type_problem(data_type)}")

    tensors: dict[str, TensorView] = {}
    while at < file.size:
        where = f"{path}: tensor {len(tensors)} at offset {at}"
        if len(tensors) == MAX_TENSORS:
            raise CheckpointError(f"{path}: expected at most {MAX_TENSORS} tensors, got more")
        dims, name_bytes, number = TENSOR_HEADER.unpack(
            read(TENSOR_HEADER.size, "a tensor's header")
        )
        if not 1 <= dims <= MAX_DIMENSIONS:
            raise CheckpointError(f"{where}: expected 1 to {MAX_DIMENSIONS} dimensions, got {dims}")
        if not 1 <= name_bytes <= MAX_NAME_BYTES:
            raise CheckpointError(
                f"{where}: expected a name of 1 to {MAX_NAME_BYTES} bytes, got {name_bytes}"
            )
        shape = struct.unpack(f"<{dims}i", read(4 * dims, "a tensor's dimensions"))[::-1]
        try:
            name = read(name_bytes, "a tensor's name").decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{where}: expected a name in UTF-8, got other bytes") from None
        where = f"{path}: tensor {quote(name)}"
        if name in tensors:
            raise CheckpointError(f"{where}: expected each name once, got it twice")
        if number not in GGMF_TYPES:
            raise CheckpointError(f"{where}: data type, {_type_problem(number)}")
        type = GGMF_TYPES[number]
        if version == 100 and type.is_quantized:
            raise CheckpointError(
                f"{where}: {type} blocks of ggmf version 100 had another layout, "
                f"expected version {GGMF_VERSION}",
                remedy="Try to convert the checkpoint again",
            )
        if min(shape) < 1:
            raise CheckpointError(f"{where}: expected dimensions of at least 1, got {shape}")
        if shape[-1] % type.block:
            raise CheckpointError(
                f"{where}: rows of {type} values, expected a multiple of {type.block}, "
                f"got {shape[-1]}"
            )
        size = type.bytes_of(math.prod(shape))
        if at + size > file.size:
            raise CheckpointError(
                f"{where}: truncated, expected {size} bytes at offset {at}, got {file.size - at}",
                remedy=DOWNLOAD_AGAIN,
            )
        tensors[name] = TensorView.contiguous(type, at, shape)
        at += size

    emb = tensors.get("emb.weight")
    if emb is None:
        raise CheckpointError(
            f"{path}: expected a tensor 'emb.weight', got {listing(list(tensors))}"
        )
    if emb.shape != (n_vocab, n_embed):
        raise CheckpointError(
            f"{path}: shape of tensor 'emb.weight', expected the header's ({n_vocab}, {n_embed}), "
            f"got {emb.shape}"
        )
    layers = 1 + max((layer_of(name) for name in tensors), default=-1)
    if layers != n_layer:
        raise CheckpointError(f"{path}: expected the header's {n_layer} layers, got {layers}")
    return Checkpoint(path, file.stamp, "ggmf", tensors, is_model_file=True)


def _type_problem(number: int) -> str:
    known = ", ".join(type.name for type in GGMF_TYPES.values())
    return f"expected one of {known}, got {UNSUPPORTED_TYPES.get(number, f'number {number}')}"
