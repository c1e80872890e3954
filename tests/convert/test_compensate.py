"""Error compensation: what a matrix computes changes less than by plain rounding."""

import numpy as np
import pytest

from rwkv_convert import InputMoments, OptionError, quantize_compensated, rounded
from rwkv_convert.quantize import quantize
from rwkv_convert.weight_types import WEIGHT_TYPES

TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K", "iq4_nl"]


def inputs(columns, random, steepness=1.0, n=2000):
    """Rows whose second moments have a spectrum that falls, in directions that are no columns'."""
    mixed = random.standard_normal((n, columns)) * np.arange(1, columns + 1) ** -steepness
    basis = np.linalg.qr(random.standard_normal((columns, columns)))[0]
    return (mixed @ basis).astype(np.float32)


def error(difference, moments):
    difference = difference.astype(np.float64)
    return float(np.einsum("ij,ij->", difference @ moments.astype(np.float64), difference))


@pytest.mark.parametrize("type", TYPES)
def test_error_is_far_below_that_of_plain_rounding(type):
    random = np.random.default_rng(1)
    w = random.standard_normal((24, 256)).astype(np.float32)
    x = inputs(256, random)
    h = x.T @ x
    found = quantize_compensated(w, h, type)
    kind = WEIGHT_TYPES[type]
    assert found.blocks.shape == (24, kind.bytes_of(256))
    values = kind.dequantize(found.blocks.reshape(-1, kind.size)).reshape(w.shape)
    assert np.array_equal(values, found.values)
    assert found.error == pytest.approx(error(w - values, h), rel=1e-3)
    plain = kind.dequantize(quantize(w, kind).reshape(-1, kind.size)).reshape(w.shape)
    assert found.plain_error == pytest.approx(error(w - plain, h), rel=1e-3)
    assert found.error < 0.5 * found.plain_error


@pytest.mark.parametrize("type", TYPES)
def test_inputs_without_structure_gain_nothing_and_lose_nothing(type):
    random = np.random.default_rng(3)
    w = random.standard_normal((24, 256)).astype(np.float32)
    found = quantize_compensated(w, np.eye(256, dtype=np.float32), type)
    assert 0.5 * found.plain_error < found.error <= found.plain_error


@pytest.mark.parametrize("type", ["q4_0", "q4_K", "q6_K", "iq4_nl"])
@pytest.mark.parametrize("factor", [40, 96])
def test_outliers_in_weights_and_inputs(type, factor):
    """No row is worse than by plain rounding."""
    random = np.random.default_rng(5)
    w = random.standard_normal((24, 256)).astype(np.float32)
    w[random.integers(0, 24, 10), random.integers(0, 256, 10)] *= factor
    x = inputs(256, random, steepness=0.5)
    x[:, random.integers(0, 256, 4)] *= factor
    h = x.T @ x
    kind = WEIGHT_TYPES[type]
    found = quantize_compensated(w, h, type)
    plain = kind.dequantize(quantize(w, kind).reshape(-1, kind.size)).reshape(w.shape)
    for row in range(len(w)):
        ours = error((w - found.values)[row : row + 1], h)
        assert ours <= error((w - plain)[row : row + 1], h) * 1.0001 + 1e-6


def test_columns_that_nothing_came_to():
    random = np.random.default_rng(7)
    w = random.standard_normal((32, 128)).astype(np.float32)
    x = inputs(128, random)
    x[:, ::3] = 0
    found = quantize_compensated(w, x.T @ x, "q4_0")
    assert np.isfinite(found.values).all() and np.abs(found.values - w).max() < 1
    nothing = quantize_compensated(w, np.zeros((128, 128), np.float32), "q4_0")
    assert nothing.error == 0 and np.abs(nothing.values - w).max() < 1


def test_numbers_that_are_not_finite_stay_in_their_rows():
    random = np.random.default_rng(9)
    w = random.standard_normal((8, 64)).astype(np.float32)
    h = np.eye(64, dtype=np.float32)
    clean = quantize_compensated(w, h, "q4_0")
    w[2, 5], w[4, 6] = np.nan, np.inf
    found = quantize_compensated(w, h, "q4_0")
    bad = [2, 4]
    assert np.array_equal(np.delete(found.blocks, bad, 0), np.delete(clean.blocks, bad, 0))
    assert np.array_equal(found.blocks[bad], quantize(w[bad], WEIGHT_TYPES["q4_0"]))


def test_refusals():
    w, h = np.zeros((2, 64), np.float32), np.zeros((64, 64), np.float32)
    with pytest.raises(OptionError, match="type: expected a quantised type, got 'fp16'"):
        quantize_compensated(w, h, "fp16")
    with pytest.raises(OptionError, match=r"weights: shape, expected \(rows, a multiple of 256\)"):
        quantize_compensated(w, h, "q4_K")
    with pytest.raises(OptionError, match=r"moments: shape, expected a square, got \(3, 64\)"):
        quantize_compensated(w, h[:3], "q4_0")
    with pytest.raises(OptionError, match=r"moments: shape, expected \(64, 64\), got \(32, 32\)"):
        quantize_compensated(w, h[:32, :32], "q4_0")
    with pytest.raises(OptionError, match="moments: expected finite numbers, got others"):
        quantize_compensated(w, h + np.nan, "q4_0")


@pytest.mark.parametrize("type", ["q4_0", "q4_K"])
def test_rows_do_not_depend_on_each_other(type):
    """And moments that are kept for several calls give what they give for one."""
    random = np.random.default_rng(5)
    w = random.standard_normal((12, 256)).astype(np.float32)
    x = random.standard_normal((999, 256)) * np.exp(random.standard_normal(256))
    h = (x.T @ x).astype(np.float32)
    whole = quantize_compensated(w, h, type)
    kept = InputMoments(h)
    for rows in (slice(0, 5), slice(5, 12)):
        part = quantize_compensated(w[rows], kept, type)
        np.testing.assert_allclose(part.values, whole.values[rows], atol=2e-2)
        assert (part.blocks == whole.blocks[rows]).mean() > 0.99


@pytest.mark.parametrize(
    ("type", "step"),
    [("fp32", 0), ("fp16", 2**-11), ("bf16", 2**-8), ("q8_0", 0.01), ("q4_0", 0.2)],
)
def test_rounded(type, step):
    x = np.random.default_rng(6).standard_normal((2, 3, 64)).astype(np.float32)
    found = rounded(x, type)
    assert found.shape == x.shape and found.dtype == np.float32
    difference = np.abs(found - x).max()
    assert difference <= step * np.abs(x).max() and (difference > 0) == (step > 0)


def test_rounded_refuses():
    with pytest.raises(OptionError, match=r"type: expected one of fp32, .*, got 'q3'"):
        rounded(np.zeros((2, 64), np.float32), "q3")


@pytest.mark.slow
@pytest.mark.parametrize("type", ["q4_0", "q4_K", "iq4_nl"])
def test_outliers_in_a_layer_of_usual_width(type):
    """Of 1.5B: weights of 40 to 96 times a row's mean, and input channels that are as far out."""
    random = np.random.default_rng(7)
    rows, columns = 96, 2048
    w = random.standard_normal((rows, columns)).astype(np.float32)
    for row in w:
        at = random.integers(0, columns, 3)
        row[at] = np.abs(row).mean() * random.uniform(40, 96, 3) * random.choice([-1, 1], 3)
    x = random.standard_normal((4096, 64)) @ random.standard_normal((64, columns))
    x += random.standard_normal(x.shape)
    x[:, random.integers(0, columns, 8)] *= 50
    h = (x.T @ x).astype(np.float32)
    found = quantize_compensated(w, h, type)
    kind = WEIGHT_TYPES[type]
    plain = kind.dequantize(quantize(w, kind).reshape(-1, kind.size)).reshape(w.shape)

    def errors(q):
        e = (w - q).astype(np.float64)
        return np.einsum("ij,ij->i", e @ h, e)

    assert (errors(found.values) <= errors(plain) * 1.001).all()
    assert found.error < 0.1 * found.plain_error
