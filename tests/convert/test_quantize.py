import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rwkv_convert import OptionError
from rwkv_convert.element_types import FP16
from rwkv_convert.quantize import PIECE, BlockQuantizer, quantize
from rwkv_convert.weight_types import WEIGHT_TYPES
from twin import block_types

TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


def _random(shape, std=0.02, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * std).astype(np.float32)


def _ties():
    """Blocks whose largest magnitude occurs with both signs, in either order."""
    x = _random((64, 32), std=0.1)
    order = np.arange(64) % 2 * 2 - 1
    x[np.arange(64), np.arange(64) % 31] = order
    x[np.arange(64), np.arange(64) % 31 + 1] = -order
    return x


def _one_outlier():
    x = np.zeros((64, 32), np.float32)
    x[np.arange(64), np.arange(64) % 32] = np.where(np.arange(64) < 32, 3.0, -3.0)
    return x


EDGE_CASES = {
    "random": _random((7, 32 * 5)),
    "more than one batch of blocks": _random((3, PIECE - 160)),
    "like bf16": (_random((64, 64)).view(np.uint32) & 0xFFFF0000).view(np.float32),
    "zeros": np.zeros((2, 64), np.float32),
    "negative zeros": np.full((2, 64), -0.0, np.float32),
    "zeros of both signs": np.where(np.arange(64) % 3 == 0, -0.0, 0.0).astype(np.float32)[None],
    "not negative, with zeros of both signs": np.abs(_random((9, 32)))
    * np.where(np.arange(32) % 5, 1, -0.0).astype(np.float32),
    "one outlier": _one_outlier(),
    "ties": _ties(),
    "constant": np.full((1, 32), 0.7, np.float32),
    "small integers": np.random.default_rng(1).integers(-9, 9, (64, 64)).astype(np.float32),
    "halves of the scale": (np.arange(-127, 129, 1)[:256].reshape(8, 32) / 2).astype(np.float32),
    "denormals whose 1/d is finite": _random((64, 32), std=2e-37),
    "denormals whose 1/d overflows": _random((64, 32), std=1e-38),
    "the smallest denormals": np.full((1, 32), 1e-45, np.float32),
    "large": _random((64, 32), std=1e37),
    "max - min overflows": np.where(np.arange(32) % 2, 3e38, -3e38).astype(np.float32)[None],
    "scales beyond fp16": _random((8, 32), std=1e7),
    "nan": np.where(np.arange(64) == 3, np.nan, _random(64)).astype(np.float32)[None],
    "inf": np.where(np.arange(64) == 3, np.inf, _random(64)).astype(np.float32)[None],
    "-inf": np.where(np.arange(64) == 40, -np.inf, _random(64)).astype(np.float32)[None],
}


def _comparable(x, type):
    """The blocks whose minimum is one number: of zeros of both signs numpy takes either."""
    x = x.reshape(-1, 32)
    if type not in ("q4_1", "q5_1"):
        return x
    zeros = x == 0
    mixed = (zeros & np.signbit(x)).any(axis=1) & (zeros & ~np.signbit(x)).any(axis=1)
    return x[~(mixed & (x.min(axis=1) == 0))]


def _assert_equals_the_twin(x, type):
    x = _comparable(x, type)
    expected = block_types.quantize(x, type).data if len(x) else np.empty(0, np.uint8)
    np.testing.assert_array_equal(quantize(x, WEIGHT_TYPES[type]).reshape(-1), expected)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_quantize_equals_the_twin(case, type):
    _assert_equals_the_twin(EDGE_CASES[case], type)


blocks = hnp.arrays(
    np.float32, st.integers(1, 4).map(lambda n: (n, 32)), elements=st.floats(width=32)
)
# Magnitudes as in weights, from a few different ones: ties and zeros are frequent.
coarse_blocks = hnp.arrays(
    np.float32,
    st.integers(1, 4).map(lambda n: (n, 32)),
    elements=st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 0.25, 1e-39, -1e-39, 65504.0]),
)


@pytest.mark.parametrize("type", TYPES)
@given(x=st.one_of(blocks, coarse_blocks))
def test_quantize_equals_the_twin_on_anything(x, type):
    _assert_equals_the_twin(x, type)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_dequantize_equals_the_twin(case, type):
    x = EDGE_CASES[case]
    data = quantize(x, WEIGHT_TYPES[type])
    with np.errstate(all="ignore"):
        found = WEIGHT_TYPES[type].dequantize(data.reshape(-1, WEIGHT_TYPES[type].size))
        expected = block_types.dequantize(block_types.Tensor(type, x.shape, data.reshape(-1)))
    np.testing.assert_array_equal(found.view(np.uint32), expected.reshape(-1, 32).view(np.uint32))


@pytest.mark.parametrize("type", ["q4_1", "q5_1"])
@pytest.mark.parametrize("first", [0.0, -0.0])
def test_quantize_stores_the_first_of_equal_minima(first, type):
    x = np.ones((1, 32), np.float32)
    x[0, 5], x[0, 9] = first, -first
    minimum = quantize(x, WEIGHT_TYPES[type])[0, 2:4].view("<f2")[0]
    assert minimum == 0 and np.signbit(minimum) == np.signbit(np.float32(first))


@pytest.mark.parametrize("type", TYPES)
@given(x=hnp.arrays(np.float32, (2, 64), elements=st.floats(-100, 100, width=32)))
def test_quantize_is_close(x, type):
    tensor = block_types.Tensor(type, x.shape, quantize(x, WEIGHT_TYPES[type]).reshape(-1))
    error = np.abs(block_types.dequantize(tensor) - x).reshape(-1, 32).max(axis=1)
    span = np.abs(x).reshape(-1, 32).max(axis=1)
    # A step, for the one value that saturates, and what fp16 rounds off the scale and the minimum.
    steps = {"q4_0": 8, "q4_1": 7.5, "q5_0": 16, "q5_1": 15.5, "q8_0": 127}[type]
    assert (error <= span / steps * 1.01 + span * 2**-9 + 1e-4).all()


@pytest.mark.parametrize("type", TYPES)
def test_quantizer_reports_scales_that_overflow(type):
    quantizer = BlockQuantizer(WEIGHT_TYPES[type])
    out = np.empty(WEIGHT_TYPES[type].size, np.uint8)
    assert quantizer.quantize(np.linspace(-1e8, 1e8, 32, dtype=np.float32), out)
    assert not quantizer.quantize(np.linspace(-1e2, 1e2, 32, dtype=np.float32), out)


@pytest.mark.parametrize("type", TYPES)
def test_quantizer_leaves_its_input_alone(type):
    x = EDGE_CASES["nan"].copy()
    quantize(x, WEIGHT_TYPES[type])
    np.testing.assert_array_equal(x, EDGE_CASES["nan"])


def test_quantize_refuses_rows_that_are_no_blocks():
    with pytest.raises(OptionError, match="row length, expected a multiple of 32, got 33"):
        quantize(np.zeros((2, 33), np.float32), WEIGHT_TYPES["q4_0"])


def test_quantize_refuses_plain_types():
    with pytest.raises(OptionError, match="expected a quantised type, got fp16"):
        quantize(np.zeros((2, 32), np.float32), FP16)
