"""ggml's types whose blocks are 32 values that share a scale d (and a minimum m), stored as fp16.

    type  bytes  layout                              value
    q4_0     18  d, 16 bytes of nibbles              d * (q - 8)
    q4_1     20  d, m, 16 bytes of nibbles           d * q + m
    q5_0     22  d, 4 bytes of fifth bits, nibbles   d * (q - 16)
    q5_1     24  d, m, 4 bytes of fifth bits, nibbles  d * q + m
    q8_0     34  d, 32 int8                          d * q

Quantising equals ggml's reference to the bit:

    q4_0, q5_0   d = x_max / -8 (-16), x_max the first value of largest magnitude
                 q = min(trunc(x * id + 8.5 (16.5)), 15 (31))
    q4_1, q5_1   m = min x, d = (max x - m) / 15 (31), q = trunc((x - m) * id + 0.5)
    q8_0         d = max |x| / 127, q = x * id rounded half away from zero

id = 1 / d in fp32, 0 where d is 0, of the d before it is rounded to fp16; each product and each sum
is rounded on its own. Where that is undefined (a value is NaN or infinite, max - min overflows,
1 / d overflows), the block is zeros: d = 0, m = 0 and the code of zero.

Where values have weights, the scales are searched for (`search_scales`).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .element_types import BlockType, Bytes, Floats, Grid, read_fp16, write_fp16
from .search_scales import (
    codes_from_minimum,
    codes_signed,
    codes_symmetric,
    inverted,
    normalize,
    search_from_minimum,
    search_signed,
    search_symmetric,
    stored,
)

QK = 32
"""Values per block."""

_BIT_OF_VALUE = (np.arange(QK, dtype=np.uint8) % 8)[:, None]


# --------------------------------------------------------------------------------------------------
# Quantising: `x` is (32, n) and overwritten, row j holds value j of every block; `w` holds the
# weights of their squared errors, if they have any


def _quantize_signed(x: Floats, out: Bytes, w: Floats | None, *, bits: int) -> bool:
    """q4_0 and q5_0."""
    zero = 1 << (bits - 1)
    if w is not None:
        return _search_signed(x, out, w, bits)
    high, low = np.maximum.reduce(x, axis=0), np.minimum.reduce(x, axis=0)
    # The value of largest magnitude becomes code 0, which has no opposite.
    d = _first_largest(x, high, low) / np.float32(-zero)
    inverse = _inverse(x, d, high, low)
    np.multiply(x, inverse, out=x)
    np.add(x, np.float32(zero + 0.5), out=x)
    # x_max's opposite would be code 2 * zero; the cast cuts the fraction off.
    np.minimum(x, np.float32(2 * zero - 0.5), out=x)
    return _store(out, (d,), x.astype(np.uint8), bits)


def _quantize_from_minimum(x: Floats, out: Bytes, w: Floats | None, *, bits: int) -> bool:
    """q4_1 and q5_1: [low, high] onto [0, top code]."""
    if w is not None:
        return _search_from_minimum(x, out, w, bits)
    high, low = np.maximum.reduce(x, axis=0), np.minimum.reduce(x, axis=0)
    low = _first_of_zeros(x, low)
    d = (high - low) / np.float32((1 << bits) - 1)
    inverse = _inverse(x, d, high, low)
    np.subtract(x, low, out=x)
    np.multiply(x, inverse, out=x)
    np.add(x, np.float32(0.5), out=x)
    return _store(out, (d, low), x.astype(np.uint8), bits)


def _search_signed(x: Floats, out: Bytes, w: Floats, bits: int) -> bool:
    """q4_0 and q5_0 by the weights of their values."""
    lowest = -(1 << (bits - 1))
    d = _fit_signed(x, w, out, lowest=lowest)
    q = codes_signed(x[None], inverted(d)[None], lowest)[0]
    _pack(out[:, 2:], (q - np.float32(lowest)).astype(np.uint8), bits)
    return bool(np.isinf(d).any())


def _fit_signed(x: Floats, w: Floats, out: Bytes, *, lowest: int) -> Floats:
    """The scale that is stored, for x, which is normalized."""
    largest = normalize(x)
    return stored(out[:, :2], search_signed(x[None], lowest, w[None])[0], largest)


def _search_from_minimum(x: Floats, out: Bytes, w: Floats, bits: int) -> bool:
    """q4_1 and q5_1 by the weights of their values."""
    top = (1 << bits) - 1
    d, m = _fit_from_minimum(x, w, out, top=top)
    q = codes_from_minimum(x[None], d[None], -m[None], top)[0]
    _pack(out[:, 4:], q.astype(np.uint8), bits)
    return bool((np.isinf(d) | np.isinf(m)).any())


def _fit_from_minimum(x: Floats, w: Floats, out: Bytes, *, top: int) -> tuple[Floats, Floats]:
    """The scale and the minimum that are stored, for x, which is normalized."""
    largest = normalize(x)
    scale, minimum = search_from_minimum(x[None], top, w[None], signed=True)
    return stored(out[:, 0:2], scale[0], largest), stored(out[:, 2:4], -minimum[0], largest)


def _search_q8_0(x: Floats, out: Bytes, w: Floats) -> bool:
    """q8_0 by the weights of its values."""
    d = _fit_q8_0(x, w, out)
    np.copyto(out[:, 2:].view(np.int8), codes_symmetric(x, inverted(d), 127).T, casting="unsafe")
    return bool(np.isinf(d).any())


def _fit_q8_0(x: Floats, w: Floats, out: Bytes) -> Floats:
    """The scale that is stored, for x, which is normalized."""
    largest = normalize(x)
    return stored(out[:, :2], search_symmetric(x, 127, w), largest)


def _quantize_q8_0(x: Floats, out: Bytes, w: Floats | None) -> bool:
    if w is not None:
        return _search_q8_0(x, out, w)
    high, low = np.maximum.reduce(x, axis=0), np.minimum.reduce(x, axis=0)
    d = np.abs(np.maximum(high, -low)) / np.float32(127)  # abs: the zero of zeros is +0
    inverse = _inverse(x, d, high, low)
    overflow = write_fp16(out[:, :2], d)
    # Half away from zero: trunc(y) + trunc(2 * (y - trunc(y))). Both differences are exact, unlike
    # that of y + 0.5.
    y = np.multiply(x, inverse)
    np.trunc(y, out=x)
    np.subtract(y, x, out=y)
    np.add(y, y, out=y)
    np.trunc(y, out=y)
    np.add(x, y, out=x)
    np.copyto(out[:, 2:].view(np.int8), x.T, casting="unsafe")
    return overflow


def _inverse(x: Floats, d: Floats, high: Floats, low: Floats) -> Floats:
    """1 / d, 0 where d is 0; blocks for which nothing is defined become zeros."""
    inverse = np.divide(np.float32(1), d)
    inverse[d == 0] = 0
    undefined = ~(np.isfinite(d) & np.isfinite(inverse) & np.isfinite(high) & np.isfinite(low))
    if undefined.any():
        x[:, undefined] = 0
        low[undefined] = 0
        d[undefined] = 0
        inverse[undefined] = 0
    return inverse


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


def _store(out: Bytes, scales: tuple[Floats, ...], q: Bytes, bits: int) -> bool:
    """Writes scales and codes (32, n) into blocks; says whether a scale became infinite."""
    at = 0
    overflow = False
    for scale in scales:
        overflow |= write_fp16(out[:, at : at + 2], scale)
        at += 2
    _pack(out[:, at:], q, bits)
    return overflow


def _pack(out: Bytes, q: Bytes, bits: int) -> None:
    """Writes codes (32, n) into blocks, after their scales; overwrites them."""
    if bits == 5:
        # Bit j % 8 of byte j // 8 is the fifth bit of value j.
        fifth = np.right_shift(q, 4)
        np.left_shift(fifth, _BIT_OF_VALUE, out=fifth)
        np.copyto(out[:, :4], np.bitwise_or.reduce(fifth.reshape(4, 8, -1), axis=1).T)
        np.bitwise_and(q, 15, out=q)
        out = out[:, 4:]
    # Byte j holds value j in its low nibble and value j + 16 in its high one.
    low, high = q[: QK // 2], q[QK // 2 :]
    np.left_shift(high, 4, out=high)
    np.bitwise_or(low, high, out=low)
    np.copyto(out, low.T)


# --------------------------------------------------------------------------------------------------
# Dequantising: `blocks` is (n, bytes per block), the result (n, 32)


def _codes(blocks: Bytes, at: int, bits: int) -> Bytes:
    """The codes that begin at a byte of each block: fifth bits, if there are any, and nibbles."""
    nibbles = blocks[:, at + (4 if bits == 5 else 0) :]
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
    if bits == 5:
        fifth = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
        q |= fifth << np.uint8(4)
    return q


def _dequantize_signed(blocks: Bytes, bits: int) -> Floats:
    zero = 1 << (bits - 1)
    d = read_fp16(blocks[:, :2])
    return d * (_codes(blocks, 2, bits).astype(np.int8) - np.int8(zero)).astype(np.float32)


def _dequantize_from_minimum(blocks: Bytes, bits: int) -> Floats:
    values = read_fp16(blocks[:, :2]) * _codes(blocks, 4, bits).astype(np.float32)
    values += read_fp16(blocks[:, 2:4])
    return values


def _dequantize_q8_0(blocks: Bytes) -> Floats:
    return read_fp16(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


# --------------------------------------------------------------------------------------------------
# Their grids


def _signed_grid(bits: int) -> Grid:
    lowest = -(1 << (bits - 1))

    def fit(x: Floats, w: Floats, out: Bytes) -> tuple[Floats, Floats]:
        _fit_signed(x, w, out, lowest=lowest)
        d = read_fp16(out[:, :2]).T
        return d, np.zeros_like(d)

    levels = np.arange(lowest, -lowest, dtype=np.float32)
    return Grid(levels, fit, lambda q, out: _pack(out[:, 2:], q, bits))


def _grid_from_minimum(bits: int) -> Grid:
    top = (1 << bits) - 1

    def fit(x: Floats, w: Floats, out: Bytes) -> tuple[Floats, Floats]:
        _fit_from_minimum(x, w, out, top=top)
        return read_fp16(out[:, 0:2]).T, read_fp16(out[:, 2:4]).T

    levels = np.arange(top + 1, dtype=np.float32)
    return Grid(levels, fit, lambda q, out: _pack(out[:, 4:], q, bits))


def _grid_of_q8_0() -> Grid:
    def fit(x: Floats, w: Floats, out: Bytes) -> tuple[Floats, Floats]:
        _fit_q8_0(x, w, out)
        d = read_fp16(out[:, :2]).T
        return d, np.zeros_like(d)

    def pack(q: Bytes, out: Bytes) -> None:
        out[:, 2:] = (q - np.uint8(127)).T  # -127 and so on, as the bytes of int8

    return Grid(np.arange(-127, 128, dtype=np.float32), fit, pack)


# --------------------------------------------------------------------------------------------------
# The types


def _signed(name: str, bits: int, size: int, ggmf: int, gguf: int) -> BlockType:
    quantize = partial(_quantize_signed, bits=bits)
    dequantize = partial(_dequantize_signed, bits=bits)
    grid = _signed_grid(bits)
    return BlockType(
        name, size, QK, ggmf, gguf, quantize=quantize, dequantize=dequantize, grid=grid
    )


def _from_minimum(name: str, bits: int, size: int, ggmf: int, gguf: int) -> BlockType:
    quantize = partial(_quantize_from_minimum, bits=bits)
    dequantize = partial(_dequantize_from_minimum, bits=bits)
    grid = _grid_from_minimum(bits)
    return BlockType(
        name, size, QK, ggmf, gguf, quantize=quantize, dequantize=dequantize, grid=grid
    )


Q4_0 = _signed("q4_0", 4, 18, ggmf=2, gguf=2)
Q4_1 = _from_minimum("q4_1", 4, 20, ggmf=3, gguf=3)
Q5_0 = _signed("q5_0", 5, 22, ggmf=7, gguf=6)
Q5_1 = _from_minimum("q5_1", 5, 24, ggmf=8, gguf=7)
Q8_0 = BlockType(
    "q8_0", 34, QK, 9, 8, quantize=_quantize_q8_0, dequantize=_dequantize_q8_0, grid=_grid_of_q8_0()
)
