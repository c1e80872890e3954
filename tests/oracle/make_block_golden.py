"""Makes native/tests/block_types.bin: blocks as `gguf.quants` quantises and dequantises them.

    PYTHONPATH=tests python tests/oracle/make_block_golden.py

Little-endian, in this order:

    int32      number of blocks, n
    float32    values (n, 32)
    then for each of q4_0 q4_1 q5_0 q5_1 q8_0:
    uint8      the quantised blocks (n, bytes of a block)
    float32    what they stand for (n, 32); where infinite scales meet code 0, any NaN
    then of bf16:
    uint16     the values rounded (n, 32)
    then the number of blocks, k, of each of iq4_nl q4_K q5_K q6_K, and for each:
    uint8      blocks of any bytes (k, bytes of a block)
    float32    what they stand for (k, values of a block)

Blocks for which `gguf.quants` is undefined (NaN, infinity, a scale whose inverse overflows) are as
`twin.block_types` defines them.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from oracle.test_twin_gguf import edge_cases, scale_is_invertible
from twin.block_types import BLOCK_TYPES, GGUF_BLOCK_TYPES, QK, Tensor, dequantize, quantize

GOLDEN = Path(__file__).resolve().parents[2] / "native/tests/block_types.bin"


def undefined_cases() -> list[NDArray[np.float32]]:
    """Blocks that no scale can hold, for one type at least."""
    largest = float(np.finfo(np.float32).max)
    smallest = 1.4e-45
    ramp = np.arange(QK, dtype=np.float32) - 16
    blocks = []
    for index, value in ((0, np.nan), (31, np.inf), (7, -np.inf), (5, 40 * smallest)):
        block = ramp.copy() if not np.isfinite(value) else np.zeros(QK, np.float32)
        block[index] = value
        blocks.append(block)
    blocks.append((ramp * np.float32(1e-40)).astype(np.float32))
    blocks.append(np.full(QK, np.nan, np.float32))
    opposite = np.zeros(QK, np.float32)
    opposite[:2] = largest, -largest  # max - min overflows
    blocks.append(opposite)
    return blocks


def values() -> NDArray[np.float32]:
    """The blocks of the file, (n, 32): edge cases, then random ones of all magnitudes."""
    random = np.random.RandomState(1)
    edges = edge_cases()
    # The smaller of 0 and -0 is numpy's choice, and not the same on every processor.
    del edges["negative zero first"]
    scale = 10.0 ** random.uniform(-44, 37, (120, 1))
    return np.concatenate(
        [
            np.stack([*edges.values(), *undefined_cases()]),
            random.standard_normal((60, QK)).astype(np.float32),
            np.clip(random.standard_normal((120, QK)) * scale, -3e38, 3e38).astype(np.float32),
            random.randint(-16, 17, (40, QK)).astype(np.float32) / 2,  # ties and halves
        ]
    )


def expected(type: str, x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantised blocks (n, bytes) and their values (n, 32)."""
    oracle = GGMLQuantizationType[type.upper()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both may overflow to fp16's infinity
        twin = quantize(x, type).data.reshape(len(x), -1)
        judge = quants.quantize(x, oracle).reshape(len(x), -1)
        defined = scale_is_invertible(type, x) & np.isfinite(x).all(axis=1)
        assert defined.sum() > len(x) / 2
        blocks = np.where(defined[:, None], judge, twin)
        meaning = quants.dequantize(blocks, oracle)
        ours = dequantize(Tensor(type, x.shape, blocks.reshape(-1)))
        np.testing.assert_array_equal(meaning, ours)
        return blocks, meaning


def any_bytes(type: str, k: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """k blocks (k, bytes) in which every code occurs, and their values (k, values)."""
    random = np.random.RandomState(2)
    blocks = random.randint(0, 256, (k, GGUF_BLOCK_TYPES[type].block_bytes)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scales may be infinite or NaN
        return blocks, quants.dequantize(blocks, GGMLQuantizationType[type.upper()])


def content() -> bytes:
    """The file."""
    x = values()
    parts = [struct.pack("<i", len(x)), x.astype("<f4").tobytes()]
    for type in BLOCK_TYPES:
        blocks, meaning = expected(type, x)
        parts += [blocks.tobytes(), meaning.astype("<f4").tobytes()]
    parts.append(quants.quantize(x, GGMLQuantizationType.BF16).tobytes())
    k = 32
    parts.append(struct.pack("<i", k))
    for type in GGUF_BLOCK_TYPES:
        blocks, meaning = any_bytes(type, k)
        parts += [blocks.tobytes(), meaning.astype("<f4").tobytes()]
    return b"".join(parts)


if __name__ == "__main__":
    GOLDEN.write_bytes(content())
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size} bytes, {len(values())} blocks")
