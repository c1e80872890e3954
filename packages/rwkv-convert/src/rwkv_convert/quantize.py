"""Quantises rows of fp32 numbers into ggml's block types, to the bit as ggml's reference does.

A block is 32 values that share a scale d (and a minimum m), stored as fp16:

    type  bytes  layout                              value
    q4_0     18  d, 16 bytes of nibbles              d * (q - 8)
    q4_1     20  d, m, 16 bytes of nibbles           d * q + m
    q5_0     22  d, 4 bytes of fifth bits, nibbles   d * (q - 16)
    q5_1     24  d, m, 4 bytes of fifth bits, nibbles  d * q + m
    q8_0     34  d, 32 int8                          d * q

    q4_0, q5_0   d = x_max / -8 (-16), x_max the first value of largest magnitude
                 q = min(trunc(x * id + 8.5 (16.5)), 15 (31))
    q4_1, q5_1   m = min x, d = (max x - m) / 15 (31), q = trunc((x - m) * id + 0.5)
    q8_0         d = max |x| / 127, q = x * id rounded half away from zero

id = 1 / d in fp32, 0 where d is 0, of the d before it is rounded to fp16; each product and each sum
is rounded on its own. Where that is undefined (a value is NaN or infinite, max - min overflows,
1 / d overflows), the block is zeros: d = 0, m = 0 and the code of zero.

The work is done on a few thousand blocks at a time, transposed: row j holds value j of every block.
So a reduction over a block is one over rows, every operation runs over long contiguous rows, and
all buffers stay in the processor's cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .element_types import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, QK, ElementType, to_fp16_bits
from .errors import OptionError

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MAX_BLOCKS = 2048
"""Blocks at a time: two fp32 buffers of 256 KiB, and the codes."""

_BIT_OF_VALUE = (np.arange(QK, dtype=np.uint8) % 8)[:, None]


class BlockQuantizer:
    """Quantises into one type; holds buffers, so one per thread."""

    def __init__(self, type: ElementType) -> None:
        """Prepares buffers for a type; it must be one of the quantised ones."""
        if not type.is_quantized:
            raise OptionError("type", f"expected a quantised type, got {type}")
        self.type = type
        self._x = np.empty(QK * MAX_BLOCKS, np.float32)
        self._y = np.empty(QK * MAX_BLOCKS, np.float32)
        self._q = np.empty(QK * MAX_BLOCKS, np.uint8)

    def quantize(self, values: Floats, out: Bytes) -> bool:
        """Quantises whole blocks.

        Args:
            values: (32 n,) contiguous.
            out: (n * bytes per block,) contiguous.

        Returns:
            whether a scale or a minimum is too large for fp16 and became infinite.
        """
        blocks = values.reshape(-1, QK)
        packed = out.reshape(-1, self.type.size)
        overflow = False
        with np.errstate(all="ignore"):
            for start in range(0, len(blocks), MAX_BLOCKS):
                stop = start + MAX_BLOCKS
                overflow |= self._quantize_some(blocks[start:stop], packed[start:stop])
        return overflow

    def _quantize_some(self, blocks: Floats, out: Bytes) -> bool:
        n = len(blocks)
        x = self._x[: QK * n].reshape(QK, n)
        y = self._y[: QK * n].reshape(QK, n)
        q = self._q[: QK * n].reshape(QK, n)
        np.copyto(x, blocks.T)

        high = np.maximum.reduce(x, axis=0)
        low = np.minimum.reduce(x, axis=0)
        if self.type in (Q4_1, Q5_1):
            # [low, high] onto [0, top code]
            low = _first_of_zeros(x, low)
            d = (high - low) / np.float32(15 if self.type is Q4_1 else 31)
        elif self.type is Q8_0:
            d = np.abs(np.maximum(high, -low)) / np.float32(127)  # abs: the zero of zeros is +0
        else:
            # The value of largest magnitude becomes code 0, which has no opposite.
            d = _first_largest(x, high, low) / np.float32(-8 if self.type is Q4_0 else -16)
        inverse = np.divide(np.float32(1), d)
        inverse[d == 0] = 0

        undefined = ~(np.isfinite(d) & np.isfinite(inverse) & np.isfinite(high) & np.isfinite(low))
        if undefined.any():
            x[:, undefined] = 0
            low[undefined] = 0
            d[undefined] = 0
            inverse[undefined] = 0

        if self.type is Q8_0:
            _round_half_away(x, inverse, y, q)
            return self._store(out, (d,), q)
        if self.type in (Q4_1, Q5_1):
            np.subtract(x, low, out=y)
            np.multiply(y, inverse, out=y)
            np.add(y, np.float32(0.5), out=y)
        else:
            zero = 8 if self.type is Q4_0 else 16
            np.multiply(x, inverse, out=y)
            np.add(y, np.float32(zero + 0.5), out=y)
            # x_max's opposite would be code 2 * zero; the cast cuts the fraction off.
            np.minimum(y, np.float32(2 * zero - 0.5), out=y)
        np.copyto(q, y, casting="unsafe")
        scales = (d, low) if self.type in (Q4_1, Q5_1) else (d,)
        return self._store(out, scales, q)

    def _store(self, out: Bytes, scales: tuple[Floats, ...], q: Bytes) -> bool:
        """Writes scales and codes (32, n) into blocks; says whether a scale became infinite."""
        at = 0
        overflow = False
        for scale in scales:
            bits = to_fp16_bits(scale)
            overflow |= bool(((bits & 0x7FFF) == 0x7C00).any())
            out[:, at : at + 2] = bits.astype("<u2").view(np.uint8).reshape(-1, 2)
            at += 2
        if self.type is Q8_0:
            np.copyto(out[:, at:], q.T)
            return overflow
        if self.type in (Q5_0, Q5_1):
            # Bit j % 8 of byte j // 8 is the fifth bit of value j.
            fifth = np.right_shift(q, 4)
            np.left_shift(fifth, _BIT_OF_VALUE, out=fifth)
            np.copyto(out[:, at : at + 4], np.bitwise_or.reduce(fifth.reshape(4, 8, -1), axis=1).T)
            np.bitwise_and(q, 15, out=q)
            at += 4
        # Byte j holds value j in its low nibble and value j + 16 in its high one.
        low, high = q[: QK // 2], q[QK // 2 :]
        np.left_shift(high, 4, out=high)
        np.bitwise_or(low, high, out=low)
        np.copyto(out[:, at:], low.T)
        return overflow


def _first_of_zeros(x: Floats, low: Floats) -> Floats:
    """Gives a minimum of zero the sign of the first zero: reductions do not say which they took."""
    zeros = np.flatnonzero(low == 0)
    if len(zeros):
        some = x[:, zeros]
        low[zeros] = some[some.argmin(axis=0), np.arange(len(zeros))]
    return low


def _first_largest(x: Floats, high: Floats, low: Floats) -> Floats:
    """The first value of largest magnitude of each block."""
    largest = np.where(high > -low, high, low)
    ties = np.flatnonzero(high == -low)
    if len(ties):  # plus and minus the same number: which comes first?
        some = x[:, ties]
        largest[ties] = some[np.abs(some).argmax(axis=0), np.arange(len(ties))]
    return largest


def _round_half_away(x: Floats, inverse: Floats, y: Floats, q: Bytes) -> None:
    """Stores x * inverse in `q`, rounded half away from zero; `x` is overwritten.

    trunc(y) + trunc(2 * (y - trunc(y))): both differences are exact, unlike that of y + 0.5.
    """
    np.multiply(x, inverse, out=y)
    np.trunc(y, out=x)
    np.subtract(y, x, out=y)
    np.add(y, y, out=y)
    np.trunc(y, out=y)
    np.add(x, y, out=x)
    np.copyto(q.view(np.int8), x, casting="unsafe")


def quantize(values: Floats, type: ElementType) -> Bytes:
    """Quantises a matrix.

    Args:
        values: (rows, columns) or (columns,), columns a multiple of 32.
        type: one of the quantised types.

    Returns:
        (rows, bytes per row) or (bytes per row,).

    Raises:
        OptionError: the type is not quantised, or a row is no whole number of blocks.
    """
    quantizer = BlockQuantizer(type)
    columns = values.shape[-1]
    if columns % QK:
        raise OptionError("values", f"row length, expected a multiple of {QK}, got {columns}")
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    out = np.empty(type.bytes_of(flat.size), np.uint8)
    quantizer.quantize(flat, out)
    return out.reshape(*values.shape[:-1], type.bytes_of(columns))
