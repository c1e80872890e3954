"""The twin's block types against `gguf.quants`, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from twin.block_types import (
    BLOCK_TYPES,
    GGUF_BLOCK_TYPES,
    QK,
    QUANTISED_TYPES,
    Tensor,
    dequantize,
    quantize,
    row_bytes,
)

each_type = pytest.mark.parametrize("type", BLOCK_TYPES)

FLOAT32_MAX = float(np.finfo(np.float32).max)


def assert_equals_gguf(type: str, x: NDArray[np.float32]) -> None:
    """x (..., n) in, the same bytes and the same values out."""
    oracle = GGMLQuantizationType[type.upper()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both may overflow to fp16's infinity
        tensor = quantize(x, type)
        expected = quants.quantize(x, oracle)
        np.testing.assert_array_equal(tensor.data.reshape(expected.shape), expected)
        np.testing.assert_array_equal(
            dequantize(tensor).view(np.uint32), quants.dequantize(expected, oracle).view(np.uint32)
        )


def scale_is_invertible(type: str, x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Per block: d is 0, or 1 / d is finite in fp32.

    Elsewhere the oracle is undefined; what is stored then, test_twin.py checks.
    """
    levels = {"q4_0": 8, "q5_0": 16, "q8_0": 127, "q4_1": 15, "q5_1": 31}[type]
    with np.errstate(all="ignore"):
        extent = np.ptp(x, axis=-1) if BLOCK_TYPES[type].has_min else np.abs(x).max(axis=-1)
        d = extent / np.float32(levels)
        return np.isfinite(d) & ((d == 0) | np.isfinite(np.float32(1) / d))


def edge_cases() -> dict[str, NDArray[np.float32]]:
    ramp = np.arange(QK, dtype=np.float32)
    zeros = np.zeros(QK, dtype=np.float32)

    def at(values: dict[int, float], base: NDArray[np.float32] = zeros) -> NDArray[np.float32]:
        block = base.copy()
        for index, value in values.items():
            block[index] = value
        return block

    return {
        "all zeros": zeros,
        "all negative zeros": -zeros,
        "negative zero first": at({0: -0.0}),
        "constant": zeros + np.float32(0.3),
        "constant negative": zeros - np.float32(0.3),
        "one outlier": at({17: 1000.0}, ramp / 100),
        "one negative outlier": at({17: -1000.0}, ramp / 100),
        "outlier last": at({31: 7.0}),
        "tie, positive first": at({3: 5.0, 20: -5.0}, ramp / 10),
        "tie, negative first": at({3: -5.0, 20: 5.0}, ramp / 10),
        "alternating": np.where(ramp % 2 == 0, 1, -1).astype(np.float32),
        "alternating, negative first": np.where(ramp % 2 == 0, -1, 1).astype(np.float32),
        "halves between codes": ((ramp - 16) * np.float32(0.5)).astype(np.float32),
        "halves between q8_0 codes": at({0: 127.0}, ramp - np.float32(15.5)),
        "just below a half": at(
            {0: 127.0}, np.nextafter(ramp + np.float32(0.5), np.float32(0), dtype=np.float32)
        ),
        "subnormal, 1/d finite": ((ramp - 16) * np.float32(3e-38)).astype(np.float32),
        "smallest subnormal, d is 0": at({5: 1.4e-45}),
        "d subnormal in fp16": ((ramp - 16) * np.float32(1e-7)).astype(np.float32),
        "d rounds to 0 in fp16": ((ramp - 16) * np.float32(1e-10)).astype(np.float32),
        "d overflows fp16": ((ramp - 16) * np.float32(1e6)).astype(np.float32),
        "largest, one sign": at({4: FLOAT32_MAX}),
        "all positive": ramp + 100,
        "all negative": -ramp - 100,
    }


@each_type
@pytest.mark.parametrize("name", edge_cases())
def test_gguf_edge_case(type: str, name: str) -> None:
    x = edge_cases()[name]
    assert scale_is_invertible(type, x)
    assert_equals_gguf(type, x)


@each_type
def test_gguf_subnormal_scale_with_finite_inverse(type: str) -> None:
    """Each type has its own range of values for which d is subnormal and 1 / d is not infinite."""
    levels = {"q4_0": 8, "q5_0": 16, "q8_0": 127, "q4_1": 15, "q5_1": 31}[type]
    tiny = np.float32(np.finfo(np.float32).tiny)  # the smallest normal number
    random = np.random.RandomState(1)
    for factor in (0.26, 0.5, 0.9, 0.999):
        x = (random.uniform(-1, 1, QK) * levels / 2).astype(np.float32)
        x[3] = 0 if BLOCK_TYPES[type].has_min else levels
        x[4] = levels if BLOCK_TYPES[type].has_min else 0
        x = np.clip(x, 0, None) if BLOCK_TYPES[type].has_min else x
        x = (x * (tiny * np.float32(factor))).astype(np.float32)
        assert scale_is_invertible(type, x)
        assert_equals_gguf(type, x)


@each_type
@pytest.mark.parametrize("seed", range(4))
def test_gguf_random(type: str, seed: int) -> None:
    random = np.random.RandomState(seed)
    # Rows from far below fp16's smallest number to far above its largest
    scale = 10.0 ** random.uniform(-35, 30, (500, 1))
    x = (random.standard_normal((500, 8 * QK)) * scale).astype(np.float32)
    assert_equals_gguf(type, x)
    # Values on a grid: many ties, many halves
    assert_equals_gguf(type, random.randint(-16, 17, (500, QK)).astype(np.float32) / 2)
    # fp16 sources, as rwkv.cpp's own quantiser sees them
    assert_equals_gguf(type, x[:, :QK].clip(-60000, 60000).astype(np.float16).astype(np.float32))


@each_type
@settings(max_examples=300, deadline=None)
@given(
    x=arrays(
        np.float32,
        (2, QK),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_gguf_any_finite_floats(type: str, x: NDArray[np.float32]) -> None:
    defined = scale_is_invertible(type, x)
    for block in x[defined]:
        assert_equals_gguf(type, block)


@pytest.mark.parametrize("type", ["bf16", *QUANTISED_TYPES])
def test_gguf_any_bytes(type: str) -> None:
    """Blocks of any bytes, so that every code and scale occurs, stand for the same values."""
    oracle = GGMLQuantizationType[type.upper()]
    random = np.random.RandomState(3)
    rows, n = 200, 512
    data = random.randint(0, 256, (rows, row_bytes(type, n))).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scales may be infinite or NaN
        expected = quants.dequantize(data, oracle)
        got = dequantize(Tensor(type, (rows, n), data.reshape(-1)))
    assert np.isfinite(expected).mean() > 0.9
    np.testing.assert_array_equal(got, expected)  # NaN equals NaN, 0 equals -0
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize("type", GGUF_BLOCK_TYPES)
def test_gguf_sizes(type: str) -> None:
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[type.upper()]]
    layout = GGUF_BLOCK_TYPES[type]
    assert (layout.values, layout.block_bytes) == (values, size)
