"""What a token costs, counted from the model file: bytes to read and multiply-adds to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rwkv_convert.containers import open_checkpoint
from rwkv_convert.identify import identify
from rwkv_convert.official_names import find_model
from rwkv_convert.tensor_table import Role

PANEL = 16
"""Rows of a matrix are packed in groups of this many."""


@dataclass(frozen=True)
class Work:
    """What a model's weights ask of the machine.

    Attributes:
        decode_bytes: bytes of weights that one token touches: every matrix, one row of the
            embedding. Vectors (less than one part in a hundred) are left out.
        prefill_bytes: the same without the head, which a prompt needs once.
        packed_bytes: all that the engine keeps: every matrix and the whole embedding.
        int_macs: multiply-adds for one token by quantised matrices, without the head.
        fp_macs: likewise by fp32 and fp16 matrices.
        head_macs: likewise by the head.
        head_is_int: whether the head is quantised.
    """

    decode_bytes: int
    prefill_bytes: int
    packed_bytes: int
    int_macs: int
    fp_macs: int
    head_macs: int
    head_is_int: bool


def work_of(path: Path) -> Work:
    """Counts the tensors of a ggmf file."""
    matrices = head = embedding = row = int_macs = fp_macs = head_macs = 0
    head_is_int = False
    for tensor in identify(find_model(open_checkpoint(path))).tensors:
        if tensor.role is Role.VECTOR:
            continue
        dtype = tensor.parts[0].type
        n_out, n_in = math.prod(tensor.shape[:-1]), tensor.shape[-1]
        if tensor.role is Role.EMBEDDING:
            row = dtype.bytes_of(n_in)
            embedding = n_out * row
            continue
        packed = math.ceil(n_out / PANEL) * PANEL * dtype.bytes_of(n_in)
        if tensor.role is Role.HEAD:
            head, head_macs, head_is_int = packed, n_out * n_in, dtype.is_quantized
        else:
            matrices += packed
            if dtype.is_quantized:
                int_macs += n_out * n_in
            else:
                fp_macs += n_out * n_in
    return Work(
        decode_bytes=matrices + head + row,
        prefill_bytes=matrices,
        packed_bytes=matrices + head + embedding,
        int_macs=int_macs,
        fp_macs=fp_macs,
        head_macs=head_macs,
        head_is_int=head_is_int,
    )


@dataclass(frozen=True)
class Rates:
    """The machine's limits for one piece of work.

    Attributes:
        read: bytes per second, over a buffer as large as what a token touches.
        int8, bf16, fp32: multiply-adds per second with the level's instructions; 0: has none.
    """

    read: float
    int8: float
    bf16: float
    fp32: float


WIDE = 32
"""Rows of one sequence from which an engine may compute in bf16 instead of int8."""


def decode_limit(work: Work, rates: Rates) -> float:
    """Seconds for one token: the time to read its weights."""
    return work.decode_bytes / rates.read


def prefill_limit(work: Work, rates: Rates, n_tokens: int) -> float:
    """Seconds for a prompt: the multiply-adds, or reading the weights once if that takes longer."""
    quantized = max(rates.int8, rates.bf16) if n_tokens >= WIDE else rates.int8
    seconds = n_tokens * (work.int_macs / quantized + work.fp_macs / rates.fp32)
    head = work.head_macs / (rates.int8 if work.head_is_int else rates.fp32)
    return max(seconds + head, work.decode_bytes / rates.read)


def concurrent_limit(work: Work, rates: Rates, n_sequences: int) -> float:
    """Seconds for a step of one token of each sequence, logits included: as above."""
    int_macs = work.int_macs + (work.head_macs if work.head_is_int else 0)
    fp_macs = work.fp_macs + (0 if work.head_is_int else work.head_macs)
    seconds = n_sequences * (int_macs / rates.int8 + fp_macs / rates.fp32)
    return max(seconds, work.decode_bytes / rates.read)
