"""Our quantisers against the PyPI package `gguf`, bit by bit."""

import gguf
import numpy as np
import pytest

from convert.test_quantize import EDGE_CASES, TYPES
from rwkv_convert.element_types import OUTPUT_TYPES
from rwkv_convert.quantize import quantize

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
    np.testing.assert_array_equal(quantize(x, OUTPUT_TYPES[type]), expected)
