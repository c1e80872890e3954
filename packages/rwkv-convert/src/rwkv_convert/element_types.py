"""The types in which tensors are stored, in checkpoints and in model files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ElementType:
    """One way to store numbers.

    Attributes:
        name: `fp32`, `q4_0` and so on.
        size: bytes per block.
        block: values per block; 1 for plain numbers, 32 for quantised types.
        ggmf: the type's number in ggmf files, None if it cannot occur there.
        gguf: the type's number in GGUF files, ggml's own, None if we do not know it there.
    """

    name: str
    size: int
    block: int = 1
    ggmf: int | None = None
    gguf: int | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether values are stored in blocks that share a scale."""
        return self.block > 1

    def bytes_of(self, count: int) -> int:
        """Bytes that `count` values take; `count` is a multiple of `block`."""
        return count // self.block * self.size

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The numbers that a block can hold, for who chooses the codes: level * scale + offset.

    Attributes:
        levels: (codes,) what the codes stand for, ascending: whole numbers.
        fit: from fp32 (values per block, n), which is overwritten, and the weights of the values'
            squared errors likewise, above 0 and at most 1: the scale and the offset of each group
            of values, (groups, n) both, exactly as they will be read. Writes them into
            (n, bytes per block); infinite ones too.
        pack: writes codes (values per block, n), which are overwritten, into the same blocks.
    """

    levels: Floats
    fit: Callable[[Floats, Floats, Bytes], tuple[Floats, Floats]]
    pack: Callable[[Bytes, Bytes], None]

    def nearest(self, x: Floats) -> Bytes:
        """The codes of the nearest levels, in the shape of `x`; of NaN any."""
        levels = self.levels
        if levels[-1] - levels[0] == len(levels) - 1:  # one after another
            number = np.clip(np.rint(x) - levels[0], 0, len(levels) - 1)
        else:
            number = np.searchsorted((levels[1:] + levels[:-1]) / 2, x, side="right")
        codes: Bytes = number.astype(np.uint8)
        return codes


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockType(ElementType):
    """A type whose values are stored in blocks that share a scale: all that we know of it.

    Attributes:
        quantize: from fp32 (values per block, n), which is overwritten: row j holds value j of
            every block; to (n, bytes per block), which is filled; and, if not None, by the weights
            of the values' squared errors, in the first's shape, above 0 and at most 1. Says whether
            a scale is too large for fp16 and became infinite. Blocks with NaN or infinite values
            become zeros.
        dequantize: from (n, bytes per block) to fp32 (n, values per block).
        grid: the numbers that a block can hold.
    """

    quantize: Callable[[Floats, Bytes, Floats | None], bool]
    dequantize: Callable[[Bytes], Floats]
    grid: Grid


FP32 = ElementType("fp32", 4, ggmf=0, gguf=0)
FP16 = ElementType("fp16", 2, ggmf=1, gguf=1)
BF16 = ElementType("bf16", 2, gguf=30)
FP64 = ElementType("fp64", 8)

SOURCE_TYPES = (BF16, FP16, FP32, FP64)
"""What weights are read from."""

# Types that occur in checkpoints beside the weights (step counters, masks). They are listed by
# `info`, and refused where a weight is expected.
OTHER_TYPES = {
    t.name: t
    for t in (
        ElementType("fp8_e4m3", 1),
        ElementType("fp8_e5m2", 1),
        ElementType("int64", 8),
        ElementType("int32", 4),
        ElementType("int16", 2),
        ElementType("int8", 1),
        ElementType("uint64", 8),
        ElementType("uint32", 4),
        ElementType("uint16", 2),
        ElementType("uint8", 1),
        ElementType("bool", 1),
        ElementType("complex64", 8),
        ElementType("complex128", 16),
    )
}


FLOATING = {type.name for type in SOURCE_TYPES} | {"fp8_e4m3", "fp8_e5m2"}
"""Types whose numbers may be weights, by name; blocks are such too."""


def may_be_weights(type: ElementType) -> bool:
    """Whether weights are stored in such a type, though perhaps not one that we read."""
    return type.is_quantized or type.name in FLOATING


def to_fp32(raw: NDArray[np.uint8], source: ElementType, out: NDArray[np.float32]) -> None:
    """Numbers as they lie in a file as fp32: exact, but fp64 is rounded.

    Args:
        raw: the bytes of `out.size` little-endian numbers.
        source: one of SOURCE_TYPES.
        out: (n,) contiguous.
    """
    if source is BF16:  # bf16 is the upper half of an fp32
        bits = out.view(np.uint32)
        np.copyto(bits, raw.view("<u2"))
        np.left_shift(bits, 16, out=bits)
    elif source is FP16:
        np.copyto(out, raw.view("<f2"))
    elif source is FP64:
        np.copyto(out, raw.view("<f8"), casting="same_kind")
    else:
        np.copyto(out, raw.view("<f4"))


def to_fp16_bits(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounds fp32 to fp16, to nearest, ties to even; overflow gives infinity, NaN a quiet NaN.

    The same values as `x.astype(np.float16)`, whose cast takes 60 ns for each subnormal result.

    Args:
        x: any shape.

    Returns:
        the bits, in the shape of `x`.
    """
    bits = x.view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    # Normal results: move the exponent's bias from 127 to 15 and drop 13 bits of the mantissa;
    # adding half a unit less one, plus the last bit that stays, rounds to nearest even. A carry out
    # of the mantissa rightly raises the exponent, at the top to infinity.
    rounded = magnitude >> np.uint32(13)
    rounded &= np.uint32(1)
    rounded += np.uint32((0xFFF - (112 << 23)) % 2**32)
    rounded += magnitude
    rounded >>= np.uint32(13)
    # Subnormal results are multiples of 2^-24. So are the fp32 numbers in [0.5, 1): let the adder
    # round to them.
    small = magnitude < np.uint32(113 << 23)  # 2^-14
    shifted = magnitude.view(np.float32) + np.float32(0.5)
    np.subtract(shifted.view(np.uint32), np.uint32(0x3F000000), out=rounded, where=small)
    np.minimum(rounded, np.uint32(0x7C00), out=rounded, where=~small)
    is_nan = magnitude > np.uint32(0x7F800000)
    if is_nan.any():
        rounded[is_nan] = 0x7E00
    np.bitwise_or(rounded, (bits >> np.uint32(16)) & np.uint32(0x8000), out=rounded)
    return rounded.astype(np.uint16)


def to_bf16_bits(x: Floats) -> NDArray[np.uint16]:
    """Rounds fp32 to bf16, to nearest, ties to even; NaN stays a NaN, made quiet."""
    bits = x.view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if is_nan.any():
        rounded[is_nan] = bits[is_nan] | np.uint32(0x400000)
    return (rounded >> np.uint32(16)).astype(np.uint16)


def write_fp16(out: Bytes, scale: Floats) -> bool:
    """Writes numbers (n,) as fp16 into (n, 2) bytes; says whether one became infinite."""
    bits = to_fp16_bits(scale)
    out[...] = bits.astype("<u2").view(np.uint8).reshape(-1, 2)
    return bool(((bits & 0x7FFF) == 0x7C00).any())


def read_fp16(raw: Bytes) -> Floats:
    """Numbers (n, 1) of (n, 2) bytes."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)
