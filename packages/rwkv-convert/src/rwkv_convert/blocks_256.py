"""ggml's types of super-blocks, q4_K, q5_K and q6_K, and iq4_nl, whose codes are not evenly spaced.

    type   values  bytes  layout
    q4_K      256    144  d, m, 12 bytes of scales, 128 bytes of nibbles
    q5_K      256    176  d, m, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes of nibbles
    q6_K      256    210  128 bytes of low nibbles, 64 bytes of high bits, 16 int8 scales, d
    iq4_nl     32     18  d, 16 bytes of nibbles

    q4_K, q5_K   d * s * q - m * t    for each 32 values a scale s and a minimum t of 6 bits
    q6_K         d * s * (q - 32)     for each 16 values a scale s of 8 bits
    iq4_nl       d * CODEBOOK[q]

d and m are fp16. Dequantising, every product and every difference is rounded on its own, from left
to right. Quantising searches for scales of small squared error (`search_scales`); ggml's files have
other scales, which fit differently.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .element_types import BlockType, Bytes, Floats, Grid, read_fp16
from .search_scales import (
    codes_from_minimum,
    codes_signed,
    error_from_minimum,
    fit_two,
    inverted,
    largest_signed,
    nearest,
    normalize,
    search_codebook,
    search_from_minimum,
    search_signed,
    stored,
    weighted,
)

QK_K = 256
"""Values of a super-block."""

CODEBOOK = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
"""What the codes of iq4_nl stand for."""


# --------------------------------------------------------------------------------------------------
# Quantising: `x` is (values per block, n) and overwritten, row j holds value j of every block; `w`
# holds the weights of their squared errors, if they have any

_STEPS = tuple((s, m) for s in (-1, 0, 1) for m in (-1, 0, 1))
"""Changes of a scale and a minimum of 6 bits that are tried."""


def _quantize_with_minima(x: Floats, out: Bytes, w: Floats | None, *, bits: int) -> bool:
    """q4_K and q5_K."""
    top = (1 << bits) - 1
    d, m, s, t = _fit_with_minima(x, w, out, top)
    q = codes_from_minimum(x.reshape(8, 32, -1), d * s, m * t, top).astype(np.uint8)
    _pack_with_minima(q, out, bits)
    return bool((np.isinf(d) | np.isinf(m)).any())


def _fit_with_minima(
    x: Floats, w: Floats | None, out: Bytes, top: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """What is stored for x, which is normalized: d and m (n,), and of 6 bits s and t (8, n)."""
    largest = normalize(x)
    groups = x.reshape(8, 32, -1)
    weights = None if w is None else w.reshape(groups.shape)
    scale, minimum = search_from_minimum(groups, top, weights)
    d = np.maximum.reduce(scale, axis=0) / np.float32(63)
    m = np.maximum.reduce(minimum, axis=0) / np.float32(63)
    too_large = np.zeros(len(out), np.bool_)
    for _ in range(2):
        # The shared scales as they will be read; for them the best of 6 bits; for those and their
        # codes, the best shared scales.
        d = stored(out[:, 0:2], d, largest)
        m = stored(out[:, 2:4], m, largest)
        too_large |= np.isinf(d) | np.isinf(m)
        s = np.clip(np.rint(scale * inverted(d)), 0, 63)
        t = np.clip(np.rint(minimum * inverted(m)), 0, 63)
        s, t = _step_by_step(groups, s, t, d, m, top, weights)
        codes = codes_from_minimum(groups, d * s, m * t, top)
        d, m = fit_two(groups, codes * s[:, None], t, weights)
    d[too_large] = np.inf
    d = stored(out[:, 0:2], d, largest)
    m = stored(out[:, 2:4], m, largest)
    _pack_scales(s.astype(np.uint8), t.astype(np.uint8), out[:, 4:16])
    return d, m, s, t


def _pack_with_minima(q: Bytes, out: Bytes, bits: int) -> None:
    """Writes codes (8, 32, n), which are overwritten."""
    if bits == 5:
        fifth = (q >> 4) << np.arange(8, dtype=np.uint8)[:, None, None]
        out[:, 16:48] = np.bitwise_or.reduce(fifth, axis=0).T
        q &= 15
    pairs = q.reshape(4, 2, 32, -1)
    out[:, -128:] = (pairs[:, 0] | (pairs[:, 1] << 4)).reshape(128, -1).T


def _step_by_step(
    x: Floats, s: Floats, t: Floats, d: Floats, m: Floats, top: int, w: Floats | None
) -> tuple[Floats, Floats]:
    """The scales and minima of 6 bits, (8, n) each, of least error at most a step away."""
    best = np.full_like(s, np.inf)
    best_s, best_t = s.copy(), t.copy()
    for step_s, step_t in _STEPS:
        some_s = np.clip(s + np.float32(step_s), 0, 63)
        some_t = np.clip(t + np.float32(step_t), 0, 63)
        error = error_from_minimum(x, d * some_s, m * some_t, top, w)
        better = error < best
        np.copyto(best, error, where=better)
        np.copyto(best_s, some_s, where=better)
        np.copyto(best_t, some_t, where=better)
    return best_s, best_t


def _pack_scales(scales: Bytes, minima: Bytes, out: Bytes) -> None:
    """What `unpack_scales` unpacks, of (8, n) each."""
    out[:, 0:4] = (scales[:4] | ((scales[4:] >> 4) << 6)).T
    out[:, 4:8] = (minima[:4] | ((minima[4:] >> 4) << 6)).T
    out[:, 8:12] = ((scales[4:] & 15) | ((minima[4:] & 15) << 4)).T


def _quantize_q6_k(x: Floats, out: Bytes, w: Floats | None) -> bool:
    d, s = _fit_q6_k(x, w, out)
    q = codes_signed(x.reshape(16, 16, -1), inverted(d * s), -32) + 32
    _pack_q6_k(q.astype(np.uint8), out)
    return bool(np.isinf(d).any())


def _fit_q6_k(x: Floats, w: Floats | None, out: Bytes) -> tuple[Floats, Floats]:
    """What is stored for x, which is normalized: d (n,), and of 8 bits s (16, n)."""
    largest = normalize(x)
    groups = x.reshape(16, 16, -1)
    weights = None if w is None else w.reshape(groups.shape)
    scale = search_signed(groups, -32, weights)
    # The scale of largest magnitude becomes -128, which has no opposite.
    first = largest_signed(scale, axis=0) / np.float32(-128)
    d = stored(out[:, 208:210], first, largest)
    too_large = np.isinf(d)
    s = np.clip(np.rint(scale * inverted(d)), -128, 127)
    a = codes_signed(groups, inverted(d * s), -32) * s[:, None]
    aw = weighted(a, weights)
    fitted = np.einsum("ijk,ijk->k", groups, aw) * inverted(np.einsum("ijk,ijk->k", aw, a))
    fitted[too_large] = np.inf
    d = stored(out[:, 208:210], fitted, largest)
    out[:, 192:208] = s.T.astype(np.int8).view(np.uint8)
    return d, s


def _pack_q6_k(q: Bytes, out: Bytes) -> None:
    codes = q.reshape(2, 4, 32, -1)
    low_nibbles = (codes & 15).reshape(2, 2, 64, -1)
    out[:, :128] = (low_nibbles[:, 0] | (low_nibbles[:, 1] << 4)).reshape(128, -1).T
    high_bits = (codes >> 4) << np.arange(0, 8, 2, dtype=np.uint8)[:, None, None]
    out[:, 128:192] = np.bitwise_or.reduce(high_bits, axis=1).reshape(64, -1).T


def _quantize_iq4_nl(x: Floats, out: Bytes, w: Floats | None) -> bool:
    largest = normalize(x)
    d = stored(out[:, :2], search_codebook(x, CODEBOOK, w), largest)
    _pack_iq4_nl(nearest(x * inverted(d), CODEBOOK), out)
    return bool(np.isinf(d).any())


def _pack_iq4_nl(q: Bytes, out: Bytes) -> None:
    out[:, 2:] = (q[:16] | (q[16:] << 4)).T


# --------------------------------------------------------------------------------------------------
# Dequantising: `blocks` is (n, bytes per block), the result (n, values per block)


def unpack_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of 6 bits: (n, 8) each of (n, 12) bytes.

    Bytes 0 to 3 hold scales 0 to 3 in their low six bits, bytes 4 to 7 the minima likewise. Bytes
    8 to 11 hold the low nibbles of scales and minima 4 to 7, whose high two bits are at the top of
    bytes 0 to 3 and 4 to 7.
    """
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=1)
    minima = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=1)
    return scales, minima


def _dequantize_with_minima(blocks: Bytes, bits: int) -> Floats:
    """q4_K and q5_K."""
    n = len(blocks)
    scales, minima = unpack_scales(blocks[:, 4:16])
    d = read_fp16(blocks[:, 0:2]) * scales.astype(np.float32)
    m = read_fp16(blocks[:, 2:4]) * minima.astype(np.float32)
    # Byte j of each 32 holds value j in its low nibble, value j + 32 in its high one.
    nibbles = blocks[:, -128:].reshape(n, 4, 1, 32)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(n, 8, 32)
    if bits == 5:  # bit k of byte j is the fifth bit of value j of the k-th 32
        fifth = (blocks[:, 16:48].reshape(n, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None]) & 1
        q |= fifth << np.uint8(4)
    values = d[:, :, None] * q.astype(np.float32)
    values -= m[:, :, None]
    return values.reshape(n, QK_K)


def _dequantize_q6_k(blocks: Bytes) -> Floats:
    n = len(blocks)
    d = read_fp16(blocks[:, 208:210]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    # Of each 128 values, byte j of 64 holds value j in its low nibble, value j + 64 in its high
    # one; the high bits of values j, j + 32, j + 64, j + 96 are byte j of 32, from the lowest on.
    low = blocks[:, :128].reshape(n, 2, 1, 64)
    high = blocks[:, 128:192].reshape(n, 2, 1, 32)
    q = np.concatenate([low & 15, low >> 4], axis=2).reshape(n, 2, 4, 32)
    q |= ((high >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3) << np.uint8(4)
    values = d[:, :, None] * (q.astype(np.int8) - np.int8(32)).reshape(n, 16, 16).astype(np.float32)
    return values.reshape(n, QK_K)


def _dequantize_iq4_nl(blocks: Bytes) -> Floats:
    nibbles = blocks[:, 2:]
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
    values: Floats = read_fp16(blocks[:, :2]) * CODEBOOK[q]
    return values


# --------------------------------------------------------------------------------------------------
# Their grids


def _grid_with_minima(bits: int) -> Grid:
    top = (1 << bits) - 1

    def fit(x: Floats, w: Floats, out: Bytes) -> tuple[Floats, Floats]:
        _, _, s, t = _fit_with_minima(x, w, out, top)
        return read_fp16(out[:, 0:2]).T * s, -(read_fp16(out[:, 2:4]).T * t)

    def pack(q: Bytes, out: Bytes) -> None:
        _pack_with_minima(q.reshape(8, 32, -1), out, bits)

    return Grid(np.arange(top + 1, dtype=np.float32), fit, pack)


def _grid_of_q6_k() -> Grid:
    def fit(x: Floats, w: Floats, out: Bytes) -> tuple[Floats, Floats]:
        _, s = _fit_q6_k(x, w, out)
        d = read_fp16(out[:, 208:210]).T * s
        return d, np.zeros_like(d)

    return Grid(np.arange(-32, 32, dtype=np.float32), fit, _pack_q6_k)


def _grid_of_iq4_nl() -> Grid:
    def fit(x: Floats, w: Floats, out: Bytes) -> tuple[Floats, Floats]:
        largest = normalize(x)
        stored(out[:, :2], search_codebook(x, CODEBOOK, w), largest)
        d = read_fp16(out[:, :2]).T
        return d, np.zeros_like(d)

    return Grid(CODEBOOK, fit, _pack_iq4_nl)


# --------------------------------------------------------------------------------------------------
# The types


def _with_minima(name: str, bits: int, size: int, gguf: int) -> BlockType:
    quantize = partial(_quantize_with_minima, bits=bits)
    dequantize = partial(_dequantize_with_minima, bits=bits)
    grid = _grid_with_minima(bits)
    return BlockType(
        name, size, QK_K, gguf=gguf, quantize=quantize, dequantize=dequantize, grid=grid
    )


Q4_K = _with_minima("q4_K", 4, 144, gguf=12)
Q5_K = _with_minima("q5_K", 5, 176, gguf=13)
Q6_K = BlockType(
    "q6_K",
    210,
    QK_K,
    gguf=14,
    quantize=_quantize_q6_k,
    dequantize=_dequantize_q6_k,
    grid=_grid_of_q6_k(),
)
IQ4_NL = BlockType(
    "iq4_nl",
    18,
    32,
    gguf=20,
    quantize=_quantize_iq4_nl,
    dequantize=_dequantize_iq4_nl,
    grid=_grid_of_iq4_nl(),
)
