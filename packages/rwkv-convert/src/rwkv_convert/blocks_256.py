"""ggml's types of super-blocks, q4_K, q5_K and q6_K, and iq4_nl, whose codes are not evenly spaced.

    type   values  bytes  layout
    q4_K      256    144  d, m, 12 bytes of scales, 128 bytes of nibbles
    q5_K      256    176  d, m, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes of nibbles
    q6_K      256    210  128 bytes of low nibbles, 64 bytes of high bits, 16 int8 scales, d
    iq4_nl     32     18  d, 16 bytes of nibbles

    q4_K, q5_K   d * s * q - m * t    for each 32 values a scale s and a minimum t of 6 bits
    q6_K         d * s * (q - 32)     for each 16 values a scale s of 8 bits
    iq4_nl       d * CODEBOOK[q]

d and m are fp16. Every product and every difference is rounded on its own, from left to right.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .element_types import BlockType, Bytes, Floats, read_fp16

QK_K = 256
"""Values of a super-block."""

CODEBOOK = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
"""What the codes of iq4_nl stand for."""


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
# The types

Q4_K = BlockType("q4_K", 144, QK_K, gguf=12, dequantize=partial(_dequantize_with_minima, bits=4))
Q5_K = BlockType("q5_K", 176, QK_K, gguf=13, dequantize=partial(_dequantize_with_minima, bits=5))
Q6_K = BlockType("q6_K", 210, QK_K, gguf=14, dequantize=_dequantize_q6_k)
IQ4_NL = BlockType("iq4_nl", 18, 32, gguf=20, dequantize=_dequantize_iq4_nl)
