"""ggml's block types and the engine's quantised product, in plain numpy.

A row is cut into blocks of QK = 32 values. d and m are IEEE fp16, little-endian.

    type    bytes  layout                        value
    q4_0       18  d, nibbles                    d * (q - 8)
    q4_1       20  d, m, nibbles                 d * q + m
    q5_0       22  d, fifth bits, nibbles        d * (q - 16)
    q5_1       24  d, m, fifth bits, nibbles     d * q + m
    q8_0       34  d, 32 x int8                  d * q
    iq4_nl     18  d, nibbles                    d * IQ4_NL[q]

Nibbles: 16 bytes, the low nibble of byte j is value j, the high nibble value j + 16.
Fifth bits: one 32-bit word, bit j belongs to value j.

K types have super-blocks of 256 values, eight blocks with small whole numbers s and t to each.

    q4_K      144  d, m, scales, nibbles                (d * s) * q - m * t
    q5_K      176  d, m, scales, fifth bits, nibbles    (d * s) * q - m * t
    q6_K      210  nibbles, upper bits, 16 x int8 s, d  (d * s) * (q - 32), s of each 16 values

Scales: 12 bytes, s and t of 6 bits. Byte i < 4 begins with s of block i, byte i + 4 with t of it;
byte i + 8 holds the lower halves of s and t of block i + 4, whose upper bits end bytes i and i + 4.
Nibbles of q4_K, q5_K: 32 bytes for two blocks, the low nibbles the first's. Fifth bits: 32 bytes,
bit i of byte j belongs to value j of block i. q6_K: 64 bytes of nibbles and 32 of upper bits for
four blocks: the low nibbles of two blocks, then the high ones; two bits of each byte, a block each.

Quantising follows ggml's reference rounding to the bit (the oracle is `gguf.quants`). Everything is
fp32, each product and sum rounded on its own. id = 1 / d is taken of the unrounded d; only the
stored d and m are fp16.

Where that is undefined (a value is NaN or infinite, max - min overflows, d is so small that 1 / d
overflows) the whole block becomes zeros: d = 0, m = 0, and the code of zero.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

QK = 32  # values per block

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class BlockType:
    """The layout of one block type; fields are in the order in which they are stored."""

    bits: int  # of one code
    has_min: bool  # stores m: codes count upwards from the minimum
    zero: int  # the code that stands for 0 (of m in the types that have one)
    values: int = QK  # of a block in a file

    @property
    def block_bytes(self) -> int:
        scales = {QK: 0, 256: 12 if self.has_min else 16}[self.values]
        return 2 + 2 * self.has_min + scales + self.values * self.bits // 8


BLOCK_TYPES = {
    "q4_0": BlockType(bits=4, has_min=False, zero=8),
    "q4_1": BlockType(bits=4, has_min=True, zero=0),
    "q5_0": BlockType(bits=5, has_min=False, zero=16),
    "q5_1": BlockType(bits=5, has_min=True, zero=0),
    "q8_0": BlockType(bits=8, has_min=False, zero=0),
}
# Types that GGUF has and ggmf has not. The twin reads them and does not quantise.
GGUF_BLOCK_TYPES = {
    "iq4_nl": BlockType(bits=4, has_min=False, zero=0),
    "q4_K": BlockType(bits=4, has_min=True, zero=0, values=256),
    "q5_K": BlockType(bits=5, has_min=True, zero=0, values=256),
    "q6_K": BlockType(bits=6, has_min=False, zero=32, values=256),
}
QUANTISED_TYPES = {**BLOCK_TYPES, **GGUF_BLOCK_TYPES}
IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
FLOAT_TYPES: dict[str, np.dtype] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}
TYPES = (*FLOAT_TYPES, *BLOCK_TYPES)


@dataclass(frozen=True)
class Tensor:
    """A tensor as it lies in a file: `shape` is PyTorch's (rows last but one, row length last)."""

    type: str  # one of TYPES
    shape: tuple[int, ...]
    data: Bytes  # (number of bytes,)

    def __getitem__(self, index: int) -> "Tensor":
        """Slice `index` of the first dimension."""
        size = len(self.data) // self.shape[0]
        return Tensor(self.type, self.shape[1:], self.data[index * size : (index + 1) * size])


def row_bytes(type: str, n: int) -> int:
    """The bytes of a row of n values."""
    if type in FLOAT_TYPES:
        return n * FLOAT_TYPES[type].itemsize
    if type == "bf16":
        return 2 * n
    layout = QUANTISED_TYPES[type]
    if n % layout.values:
        raise ValueError(f"{type}: row length, expected a multiple of {layout.values}, got {n}")
    return n // layout.values * layout.block_bytes


# --------------------------------------------------------------------------------------------------
# Codes: what a block holds once it is unpacked


@dataclass(frozen=True)
class Blocks:
    """Unpacked blocks of QK values: value = d * q + m, or (d * s) * q."""

    d: NDArray[np.float32]  # (blocks,) the stored fp16 scale, widened; of q4_K, q5_K times s
    m: NDArray[np.float32] | None  # (blocks,) what is added to each value, or None
    q: NDArray[np.int32]  # (blocks, QK) signed: the zero code is already subtracted
    s: NDArray[np.int32] | None = None  # (blocks, QK) q6_K: whole numbers, one for each 16 values


def pack(type: str, d: Floats, m: Floats | None, codes: NDArray[np.integer]) -> Bytes:
    """Blocks as bytes: d, m (blocks,), codes (blocks, QK) as stored -> (blocks, block_bytes)."""
    fields: list[Bytes] = [d.astype("<f2").reshape(-1, 1).view(np.uint8)]
    if m is not None:
        fields.append(m.astype("<f2").reshape(-1, 1).view(np.uint8))
    if BLOCK_TYPES[type].bits == 8:
        signed: NDArray[np.int8] = codes.astype(np.int8)
        fields.append(signed.view(np.uint8))
    else:
        small: Bytes = codes.astype(np.uint8)
        if BLOCK_TYPES[type].bits == 5:
            fields.append(np.packbits(small >> 4, axis=-1, bitorder="little"))
        low, high = small[:, : QK // 2] & 15, small[:, QK // 2 :] & 15
        fields.append(np.asarray(low | high << 4, dtype=np.uint8))
    return np.concatenate(fields, axis=1)


def unpack(type: str, data: Bytes) -> Blocks:
    """The inverse of `pack`, with d and m widened and the zero code subtracted."""
    if type in ("q4_K", "q5_K"):
        return _unpack_k(type, data)
    if type == "q6_K":
        return _unpack_q6_k(data)
    layout = QUANTISED_TYPES[type]
    blocks = data.reshape(-1, layout.block_bytes)

    def take(size: int) -> Bytes:
        nonlocal blocks
        field, blocks = np.ascontiguousarray(blocks[:, :size]), blocks[:, size:]
        return field

    d = take(2).view("<f2").astype(np.float32)[:, 0]
    m = take(2).view("<f2").astype(np.float32)[:, 0] if layout.has_min else None
    if layout.bits == 8:
        return Blocks(d, m, take(QK).view(np.int8).astype(np.int32))
    fifth = np.unpackbits(take(4), axis=-1, bitorder="little") if layout.bits == 5 else np.uint8(0)
    nibbles = take(QK // 2)
    codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=1) | fifth << 4
    if type == "iq4_nl":
        return Blocks(d, None, np.array(IQ4_NL, np.int32)[codes])
    return Blocks(d, m, codes.astype(np.int32) - layout.zero)


def _fp16(data: Bytes) -> NDArray[np.float32]:
    """(n, 2) bytes -> (n, 1)."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _unpack_k(type: str, data: Bytes) -> Blocks:
    layout = QUANTISED_TYPES[type]
    supers = data.reshape(-1, layout.block_bytes)
    six = supers[:, 4:16].astype(np.int32)
    first, second, last = six[:, :4], six[:, 4:8], six[:, 8:]
    s = np.concatenate([first & 63, last & 15 | first >> 6 << 4], axis=1)  # (supers, 8)
    t = np.concatenate([second & 63, last >> 4 | second >> 6 << 4], axis=1)
    nibbles = supers[:, -128:].astype(np.int32).reshape(-1, 4, 1, QK)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 8, QK)
    if layout.bits == 5:
        fifth = supers[:, 16:48].astype(np.int32)[:, None] >> np.arange(8)[:, None] & 1
        q = q | fifth << 4
    with np.errstate(invalid="ignore"):  # an infinite d times an s of zero is NaN
        d = _fp16(supers[:, :2]) * s.astype(np.float32)
        m = _fp16(supers[:, 2:4]) * t.astype(np.float32)
    return Blocks(d.reshape(-1), -m.reshape(-1), q.reshape(-1, QK))


def _unpack_q6_k(data: Bytes) -> Blocks:
    supers = data.reshape(-1, QUANTISED_TYPES["q6_K"].block_bytes)
    nibbles = supers[:, :128].astype(np.int32).reshape(-1, 2, 1, 2, QK)
    nibbles = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 8, QK)
    upper = supers[:, 128:192].astype(np.int32).reshape(-1, 2, 1, QK)
    upper = (upper >> np.arange(0, 8, 2)[:, None] & 3).reshape(-1, 8, QK)
    s = np.ascontiguousarray(supers[:, 192:208]).view(np.int8).astype(np.int32)
    d = np.repeat(_fp16(supers[:, 208:]), 8, axis=1)
    return Blocks(
        d.reshape(-1),
        None,
        (nibbles | upper << 4).reshape(-1, QK) - QUANTISED_TYPES["q6_K"].zero,
        np.repeat(s.reshape(-1, 2), 16, axis=1),
    )


# --------------------------------------------------------------------------------------------------
# Quantise, dequantise


def quantize(array: Floats, type: str) -> Tensor:
    """`array` in any of TYPES. Rows (the last dimension) of block types are multiples of QK."""
    array = np.asarray(array, dtype=np.float32)
    if type in FLOAT_TYPES:
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(array, dtype=FLOAT_TYPES[type])
        return Tensor(type, array.shape, data.reshape(-1).view(np.uint8))
    row_bytes(type, array.shape[-1])  # checks the row length
    return Tensor(type, array.shape, _quantize_blocks(array.reshape(-1, QK), type).reshape(-1))


def _quantize_blocks(x: NDArray[np.float32], type: str) -> Bytes:
    """x (blocks, QK) -> (blocks, block_bytes)."""
    layout = BLOCK_TYPES[type]
    one = np.float32(1)
    with np.errstate(all="ignore"):
        m = None
        if type == "q8_0":
            d = np.abs(x).max(axis=1) / np.float32(127)
        elif layout.has_min:
            # [min, max] onto [0, top code]
            m = x.min(axis=1)
            d = (x.max(axis=1) - m) / np.float32(2**layout.bits - 1)
        else:
            # The (first) value of largest magnitude becomes code 0, the one that has no opposite.
            largest = np.abs(x).argmax(axis=1)
            d = x[np.arange(len(x)), largest] / np.float32(-layout.zero)

        id = np.where(d == 0, np.float32(0), one / d)
        defined = np.isfinite(id) & np.isfinite(d) & np.all(np.isfinite(x), axis=1)
        undefined = np.logical_not(defined)
        x = np.where(undefined[:, None], np.float32(0), x)
        d = np.where(undefined, np.float32(0), d)
        id = np.where(undefined, np.float32(0), id)

        if type == "q8_0":
            # Half away from zero. Not floor(|y| + 0.5): that sum may round up to the next integer.
            y = x * id[:, None]
            whole = np.floor(np.abs(y))
            codes = np.copysign(whole + (np.abs(y) - whole >= np.float32(0.5)), y)
        else:
            if m is not None:
                m = np.where(undefined, np.float32(0), m)
                x = x - m[:, None]
            offset = np.float32(layout.zero + 0.5)
            codes = np.minimum(np.trunc(x * id[:, None] + offset), 2**layout.bits - 1)
        return pack(type, d, m, codes.astype(np.int32))


def dequantize(tensor: Tensor) -> NDArray[np.float32]:
    """The tensor's values, in its shape."""
    if tensor.type in FLOAT_TYPES:
        values = tensor.data.view(FLOAT_TYPES[tensor.type]).astype(np.float32)
    elif tensor.type == "bf16":  # the upper half of a float
        values = (tensor.data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(invalid="ignore"):  # an infinite d times the code of zero is NaN
            blocks = unpack(tensor.type, tensor.data)
            d = blocks.d[:, None]
            if blocks.s is not None:
                d = d * blocks.s.astype(np.float32)
            values = d * blocks.q.astype(np.float32)
            if blocks.m is not None:
                values = values + blocks.m[:, None]
    return values.reshape(tensor.shape)


# --------------------------------------------------------------------------------------------------
# The product of a quantised matrix and a row of activations


def quantize_activations(x: Floats) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Activations (..., n) -> d_x (..., n / QK), q_x (..., n / QK, QK) in [-127, 127].

        amax = max |x|,  id = 127 / amax,  d_x = amax / 127,  q_x = round_half_even(x * id)

    all in fp32. A block that holds NaN or infinity gets d_x = NaN and q_x = 0, so the product is
    NaN instead of quietly wrong; where 127 / amax is not finite, d_x and q_x are 0.
    """
    x = np.asarray(x, dtype=np.float32)
    x = x.reshape(*x.shape[:-1], -1, QK)
    finite = np.all(np.isfinite(x), axis=-1, keepdims=True)
    x = np.where(finite, x, np.float32(0))
    amax = np.abs(x).max(axis=-1)
    with np.errstate(divide="ignore", over="ignore"):
        id = np.float32(127) / amax
    representable = np.isfinite(id)
    id = np.where(representable, id, np.float32(0))
    d = np.where(representable, amax / np.float32(127), np.float32(0))
    q = np.rint(x * id[..., None])
    return np.where(finite[..., 0], d, np.float32(np.nan)), q.astype(np.int32)


def block_sums(q_w: NDArray[np.int32], q_x: NDArray[np.int32]) -> NDArray[np.int32]:
    """sum of q_w * q_x per block: (rows, blocks, QK), (T, blocks, QK) -> (T, rows, blocks), exact.

    Floating-point products do it (numpy has no fast integer ones): every partial sum is an integer
    below 2^24 (of q6_K, whose s are taken into q_w: 32 * 128 * 32 * 127 at most), so float32 holds
    it exactly.
    """
    w = q_w.astype(np.float32).transpose(1, 0, 2)  # (blocks, rows, QK)
    x = q_x.astype(np.float32).transpose(1, 2, 0)  # (blocks, QK, T)
    return (w @ x).transpose(2, 1, 0).astype(np.int32)


Activations = Literal["quantized", "float"]


def matmul(
    tensor: Tensor,
    x: Floats,
    *,
    activations: Activations = "quantized",
    dtype: type[np.floating] = np.float64,
) -> Floats:
    """x (T, n) times the transpose of tensor (rows, n) -> (T, rows).

    fp32 and fp16 matrices: the plain product, in `dtype`.
    Block types: activations are quantised too, block sums are exact integers, and

        y = sum over blocks of  d_w * d_x * sum(q_w * q_x)  +  m_w * d_x * sum(q_x)

    where the sum over blocks is taken in `dtype`; of q6_K, q_w is s times a code. With
    activations="float" the matrix is dequantised and multiplied in `dtype`: what the product
    approximates.
    """
    if tensor.type not in QUANTISED_TYPES or activations == "float":
        product: Floats = x.astype(dtype) @ dequantize(tensor).astype(dtype).T
        return product

    rows, n = tensor.shape
    w = unpack(tensor.type, tensor.data)
    d_x, q_x = quantize_activations(x)  # (T, blocks), (T, blocks, QK)
    q_w = w.q if w.s is None else w.q * w.s
    isum = block_sums(q_w.reshape(rows, n // QK, QK), q_x)  # (T, rows, blocks)
    scaled = isum * d_x[:, None, :].astype(dtype)
    y: Floats = (scaled * w.d.reshape(rows, -1).astype(dtype)).sum(axis=-1)
    if w.m is not None:
        x_sums = q_x.sum(axis=-1) * d_x.astype(dtype)  # (T, blocks)
        y += x_sums @ w.m.reshape(rows, -1).astype(dtype).T
    return y
