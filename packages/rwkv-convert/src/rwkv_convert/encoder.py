"""Numbers as read to bytes as written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .checkpoint import TensorView
from .element_types import (
    BF16,
    FP16,
    FP32,
    BlockType,
    ElementType,
    to_bf16_bits,
    to_fp16_bits,
    to_fp32,
)
from .file_plan import PlacedTensor
from .quantize import PIECE, BlockQuantizer
from .tensor_table import Change

Adjustment = Callable[[NDArray[np.float32]], None]
"""Changes numbers (n,) in place."""

DEQUANTIZED = 8192
"""Values that are dequantised at a time; what that takes fits into the cache too."""


def is_copied(part: TensorView, placed: PlacedTensor) -> bool:
    """Whether blocks are written as they were read."""
    return part.type is placed.type and part.scale == 1


class Encoder:
    """Turns numbers as read into bytes as written; holds buffers, so one per thread."""

    def __init__(self) -> None:
        self._values = np.empty(PIECE, np.float32)
        self._encoded = np.empty(PIECE * FP32.size, np.uint8)
        self._quantizers: dict[ElementType, BlockQuantizer] = {}

    def encode(
        self,
        raw: NDArray[np.uint8],
        view: TensorView,
        placed: PlacedTensor,
        start: int = 0,
        adjust: Adjustment | None = None,
    ) -> tuple[NDArray[np.uint8], list[str]]:
        """Converts one piece.

        Args:
            raw: the numbers' bytes.
            view: what they are.
            placed: says what to do with them.
            start: how many numbers of the tensor come before.
            adjust: changes the numbers before all else.

        Returns:
            the bytes to write, valid until the next call, and what was odd.
        """
        if view.type.is_quantized and is_copied(view, placed):
            return raw, []
        values = self._values[: view.count]
        encoded = self._encoded[: placed.type.bytes_of(view.count)]
        with np.errstate(all="ignore"):
            self._decode(raw, view, values)
            if adjust is not None:
                adjust(values)
            finite = bool(np.isfinite(values).all())
            _apply(placed.tensor.change, values)
            overflow = False
            if placed.through_fp16 or placed.type is FP16:
                half = to_fp16_bits(values)
                overflow = finite and bool(((half & 0x7FFF) == 0x7C00).any())
                if placed.type is not FP16:
                    to_fp32(half.astype("<u2").view(np.uint8), FP16, values)
            if placed.type is FP16:
                encoded.view("<u2")[:] = half
            elif placed.type is BF16:
                bits = to_bf16_bits(values)
                overflow = finite and bool(((bits & 0x7FFF) == 0x7F80).any())
                encoded.view("<u2")[:] = bits
            elif placed.type is FP32:
                overflow = finite and not bool(np.isfinite(values).all())
                encoded.view("<f4")[:] = values
            else:
                if placed.type not in self._quantizers:
                    self._quantizers[placed.type] = BlockQuantizer(placed.type)
                quantizer = self._quantizers[placed.type]
                overflow |= quantizer.quantize(values, encoded, placed.importance, start)
        problems = [] if finite else ["holds NaN or infinite values"]
        if overflow:
            problems.append(f"holds values too large for {placed.type}, which became infinite")
        return encoded, problems

    def _decode(self, raw: NDArray[np.uint8], view: TensorView, out: NDArray[np.float32]) -> None:
        """What numbers stand for, as fp32."""
        if isinstance(view.type, BlockType):
            blocks = raw.reshape(-1, view.type.size)
            at_once = DEQUANTIZED // view.type.block
            for start in range(0, len(blocks), at_once):
                some = view.type.dequantize(blocks[start : start + at_once])
                out.reshape(-1, view.type.block)[start : start + at_once] = some
        else:
            to_fp32(raw, view.type, out)
        if view.scale != 1:
            np.multiply(out, np.float32(view.scale), out=out)


def _apply(change: Change, values: NDArray[np.float32]) -> None:
    """Replaces numbers by their exponentials.

    Each exp is computed in float64 and rounded to fp32: correctly rounded, so that files are the
    same on every machine, and rounded where rwkv.cpp rounds, so that they are close to its files.
    """
    if change is Change.RESHAPE:
        return
    values[:] = np.exp(values.astype(np.float64))
    if change is not Change.EXP:
        np.negative(values, out=values)
    if change is Change.EXP_NEG_EXP:
        values[:] = np.exp(values.astype(np.float64))
