"""The types in which tensors are stored, in checkpoints and in model files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, quote

QK = 32
"""Values per block of ggml's quantised types."""


@dataclass(frozen=True, slots=True)
class ElementType:
    """One way to store numbers.

    Attributes:
        name: `fp32`, `q4_0` and so on.
        size: bytes per block.
        block: values per block; 1 for plain numbers, 32 for quantised types.
        ggmf: the type's number in ggmf files (not ggml's), None if it cannot occur there.
    """

    name: str
    size: int
    block: int = 1
    ggmf: int | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether values are stored in blocks that share a scale."""
        return self.block > 1

    def bytes_of(self, count: int) -> int:
        """Bytes that `count` values take; `count` is a multiple of `block`."""
        return count // self.block * self.size

    def __str__(self) -> str:
        return self.name


FP32 = ElementType("fp32", 4, ggmf=0)
FP16 = ElementType("fp16", 2, ggmf=1)
BF16 = ElementType("bf16", 2)
Q4_0 = ElementType("q4_0", 18, QK, ggmf=2)
Q4_1 = ElementType("q4_1", 20, QK, ggmf=3)
Q5_0 = ElementType("q5_0", 22, QK, ggmf=7)
Q5_1 = ElementType("q5_1", 24, QK, ggmf=8)
Q8_0 = ElementType("q8_0", 34, QK, ggmf=9)

OUTPUT_TYPES = {t.name: t for t in (FP32, FP16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)}
"""What a model file may hold, by name."""

SOURCE_TYPES = (BF16, FP16, FP32)
"""What weights are read from."""

# Types that occur in checkpoints beside the weights (step counters, masks). They are listed by
# `info`, and refused where a weight is expected.
OTHER_TYPES = {
    t.name: t
    for t in (
        ElementType("fp64", 8),
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

_ALIASES = {"float32": "fp32", "f32": "fp32", "float16": "fp16", "f16": "fp16"}


def parse_output_type(text: str, option: str = "dtype") -> ElementType:
    """The type that a user named: `q4_0`, `Q4_0`, `fp16`, `FP16`, `float16`, `f16` ...

    Args:
        text: the name.
        option: the argument that it was given for.

    Raises:
        OptionError: there is no such type, or model files cannot hold it.
    """
    name = text.strip().lower() if isinstance(text, str) else ""
    found = OUTPUT_TYPES.get(_ALIASES.get(name, name))
    if found is None:
        raise OptionError(option, f"expected one of {', '.join(OUTPUT_TYPES)}, got {quote(text)}")
    return found


def to_fp32(raw: NDArray[np.uint8], source: ElementType, out: NDArray[np.float32]) -> None:
    """Widens numbers as they lie in a file to fp32; exact for every source type.

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
