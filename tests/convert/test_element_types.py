import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_convert import OptionError
from rwkv_convert.element_types import (
    BF16,
    FP16,
    FP32,
    to_fp16_bits,
    to_fp32,
)
from rwkv_convert.weight_types import parse_dtype


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fp32", "fp32"),
        ("float32", "fp32"),
        ("FP32", "fp32"),
        ("f32", "fp32"),
        ("float16", "fp16"),
        ("FP16", "fp16"),
        ("F16", "fp16"),
        ("Q4_0", "q4_0"),
        ("q4_1", "q4_1"),
        ("Q5_0", "q5_0"),
        ("q5_1", "q5_1"),
        (" q8_0 ", "q8_0"),
        ("BF16", "bf16"),
        ("bfloat16", "bf16"),
        ("q4_k", "q4_K"),
        ("Q4_K_M", "q4_K_M"),
        ("IQ4_NL", "iq4_nl"),
    ],
)
def test_parse_dtype_accepts(text, name):
    assert parse_dtype(text) == name


@pytest.mark.parametrize("text", ["", "q4", "q2_K", "q4_K_L", "int8", "fp16 fp16", "q4_0\n; ls"])
def test_parse_dtype_refuses(text):
    with pytest.raises(OptionError, match="expected one of fp32, fp16, bf16, q4_0"):
        parse_dtype(text)


def _assert_rounds_like_numpy(x):
    with np.errstate(all="ignore"):
        ours, theirs = to_fp16_bits(x), x.astype(np.float16).view(np.uint16)
    nan = np.isnan(x)
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])
    assert np.isnan(ours[nan].view(np.float16)).all()


def test_to_fp16_bits_at_every_fp16_and_between():
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middle = ((halves[1:] + halves[:-1]) / 2).astype(np.float32)  # exact: ties
    up, down = np.float32(np.inf), np.float32(-np.inf)
    x = np.concatenate([middle, np.nextafter(middle, up), np.nextafter(middle, down)])
    x = np.concatenate([x, halves.astype(np.float32)])
    _assert_rounds_like_numpy(np.concatenate([x, -x]))


def test_to_fp16_bits_over_the_whole_range_of_fp32():
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    _assert_rounds_like_numpy(bits.view(np.float32))


@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_to_fp16_bits_of_any_float(values):
    _assert_rounds_like_numpy(np.array(values, np.float32))


def test_to_fp32_is_exact_for_every_16_bit_pattern():
    bits = np.arange(65536, dtype="<u2")
    out = np.empty(65536, np.float32)
    to_fp32(bits.view(np.uint8), FP16, out)
    np.testing.assert_array_equal(out, bits.view(np.float16).astype(np.float32))
    to_fp32(bits.view(np.uint8), BF16, out)
    np.testing.assert_array_equal(out.view(np.uint32), bits.astype(np.uint32) << 16)


def test_to_fp32_copies_fp32():
    x = np.array([1.5, -0.0, np.inf, 1e-40], np.float32)
    out = np.empty(4, np.float32)
    to_fp32(x.view(np.uint8), FP32, out)
    np.testing.assert_array_equal(out.view(np.uint32), x.view(np.uint32))
