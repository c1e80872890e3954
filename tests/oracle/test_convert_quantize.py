"""Our quantisers against the PyPI package `gguf`, bit by bit."""

import gguf
import numpy as np
import pytest

from convert.test_quantize import EDGE_CASES, TYPES
from rwkv_convert.quantize import quantize
from rwkv_convert.weight_types import WEIGHT_TYPES

# What gguf leaves undefined: the block has no usable scale, or a minimum of zeros of both signs.
UNDEFINED = {
    "denormals whose 1/d overflows",
    "the smallest denormals",
    "max - min overflows",
    "nan",
    "inf",
    "-inf",
}
ZEROS_OF_BOTH_SIGNS = {"zeros of both signs", "not negative, with zeros of both signs"}

RANDOM = np.random.default_rng(20)
CASES = {name: x for name, x in EDGE_CASES.items() if name not in UNDEFINED} | {
    "a million weights": (RANDOM.standard_normal((1000, 1024)) * 0.02).astype(np.float32),
    "magnitudes from 1e-36 to 1e36": (
        RANDOM.standard_normal((500, 256)) * 10.0 ** RANDOM.integers(-36, 37, (500, 1))
    ).astype(np.float32),
    "a million of bf16": (
        (RANDOM.standard_normal((1000, 1024)) * 0.02).astype(np.float32).view(np.uint32)
        & np.uint32(0xFFFF0000)
    ).view(np.float32),
    "multiples of a half": (RANDOM.integers(-254, 255, (500, 256)) / 2).astype(np.float32),
}


# Of zeros of both signs gguf takes the one or the other as the minimum, by the machine.
PAIRS = [
    (case, type)
    for case in CASES
    for type in TYPES
    if type not in ("q4_1", "q5_1") or case not in ZEROS_OF_BOTH_SIGNS
]


@pytest.mark.parametrize(("case", "type"), PAIRS)
def test_quantize_equals_gguf(case, type):
    x = CASES[case]
    with np.errstate(all="ignore"):
        expected = gguf.quants.quantize(x, gguf.GGMLQuantizationType[type.upper()])
    np.testing.assert_array_equal(quantize(x, WEIGHT_TYPES[type]), expected)


BLOCKS = [type.name for type in WEIGHT_TYPES.values() if type.is_quantized]


@pytest.mark.parametrize("type", BLOCKS)
def test_dequantize_equals_gguf(type):
    """Blocks of any bytes: scales that are NaN and infinite among them."""
    known = WEIGHT_TYPES[type]
    blocks = RANDOM.integers(0, 256, (20_000, known.size), np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(known.gguf))
        found = known.dequantize(blocks)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))
    assert finite.mean() > 0.9


@pytest.mark.parametrize("type", WEIGHT_TYPES.values(), ids=str)
def test_numbers_and_sizes_are_those_of_ggml(type):
    kind = gguf.GGMLQuantizationType(type.gguf)
    assert kind.name.lower() == {"fp32": "f32", "fp16": "f16"}.get(type.name, type.name.lower())
    assert gguf.GGML_QUANT_SIZES[kind] == (type.block, type.size)
