"""Single matrix products of each kernel level against the numpy twin, given the same input."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engine import Floats
from twin.block_types import (
    BLOCK_TYPES,
    GGUF_BLOCK_TYPES,
    QK,
    QUANTISED_TYPES,
    Tensor,
    dequantize,
    matmul,
    pack,
    quantize,
    quantize_activations,
    row_bytes,
    unpack,
)


class Product(NamedTuple):
    y: Floats  # (rows, n_out)
    d: Floats  # (rows, n_in / 32) scales of the activations
    sum: Floats  # (rows, n_in / 32) sums of their codes
    q: NDArray[np.int8]  # (rows, n_in) their codes


class Probe:
    """Runs matmul_probe, at the level that RWKV_KERNELS names."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder

    def __call__(self, matrix: Tensor, x: Floats) -> Product:
        w_file, x_file, out = (self.folder / name for name in ("w.bin", "x.f32", "out.bin"))
        matrix.data.tofile(w_file)
        x.astype("<f4").tofile(x_file)
        n_out, n_in = matrix.shape
        arguments = [matrix.type, str(n_out), str(n_in), w_file, x_file, out]
        subprocess.run([self.program, *arguments], check=True)
        rows, blocks = len(x), n_in // QK if matrix.type in QUANTISED_TYPES else 0
        data = out.read_bytes()
        floats = [rows * n_out, rows * blocks, rows * blocks]
        ends = np.cumsum([4 * n for n in floats])
        assert len(data) == ends[-1] + rows * blocks * QK
        y, d, sums = (
            np.frombuffer(data[end - 4 * n : end], "<f4").reshape(rows, -1)
            for n, end in zip(floats, ends, strict=True)
        )
        return Product(y, d, sums, np.frombuffer(data[ends[-1] :], np.int8).reshape(rows, -1))


@pytest.fixture
def probe(matmul_probe: Path, level: str, tmp_path: Path) -> Probe:
    """A probe at each level."""
    return Probe(matmul_probe, tmp_path)


def assert_quantised_as_defined(product: Product, x: Floats) -> None:
    d, q = quantize_activations(x)
    np.testing.assert_array_equal(product.d.view(np.uint32), d.view(np.uint32))
    np.testing.assert_array_equal(product.q.reshape(q.shape), q)
    np.testing.assert_array_equal(product.sum, q.sum(axis=-1))


def random_matrix(type: str, n_out: int, n_in: int, random: np.random.RandomState) -> Tensor:
    """Rows of sizes from 1e-3 to 10."""
    sizes = 10.0 ** random.uniform(-3, 1, (n_out, 1))
    if type not in GGUF_BLOCK_TYPES and type != "bf16":
        return quantize(random.standard_normal((n_out, n_in)) * sizes, type)
    data = random.randint(0, 256, (n_out, row_bytes(type, n_in))).astype(np.uint8)
    if type == "bf16":
        values = (random.standard_normal((n_out, n_in)) * sizes).astype("<f4")
        upper = values.view("<u2").reshape(n_out, n_in, 2)[..., 1]
        return Tensor(type, (n_out, n_in), np.ascontiguousarray(upper).view(np.uint8).reshape(-1))
    # Any codes and whole scales; d such that values are about as large.
    layout = GGUF_BLOCK_TYPES[type]
    blocks = data.reshape(n_out, -1, layout.block_bytes)
    largest = {"iq4_nl": 113, "q4_K": 15 * 63, "q5_K": 31 * 63, "q6_K": 32 * 128}[type]
    halves = np.stack([sizes / largest, sizes / 126], axis=-1).astype("<f2").view(np.uint8)
    at, size = (208, 2) if type == "q6_K" else (0, 2 + 2 * layout.has_min)
    blocks[..., at : at + size] = halves[..., :size]
    return Tensor(type, (n_out, n_in), data.reshape(-1))


@pytest.mark.parametrize("rows", [1, 2, 7, 31])
@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16", *QUANTISED_TYPES])
def test_products_agree_with_twin(probe: Probe, type: str, rows: int) -> None:
    """To 1e-5 relative: of the sum of the magnitudes that are added, for where they cancel."""
    random = np.random.RandomState(rows)
    for n_out, n_in in ((64, 256), (37, 96), (5, 32), (48, 1056), (33, 768)):
        if type in QUANTISED_TYPES and n_in % QUANTISED_TYPES[type].values:
            continue
        matrix = random_matrix(type, n_out, n_in, random)
        x = random.standard_normal((rows, n_in)) * 10.0 ** random.uniform(-3, 3, (rows, 1))
        x = x.astype(np.float32)
        product = probe(matrix, x)
        expected = matmul(matrix, x)
        if type in QUANTISED_TYPES:
            assert_quantised_as_defined(product, x)
        magnitude = np.abs(x).astype(np.float64) @ np.abs(dequantize(matrix)).T.astype(np.float64)
        error = np.abs(product.y - expected) / magnitude
        assert error.max() <= 1e-5


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_products_block_sums_are_exact(probe: Probe, type: str, rows: int) -> None:
    """All scales 1 and activations whole numbers in one block at a time: y is that block's sum.

    amax = 127 makes the activations' scale 1; blocks of zeros have the scale 0 and add nothing.
    """
    layout = BLOCK_TYPES[type]
    random = np.random.RandomState(4)
    n_out, blocks = 37, 5
    low, high = (-128, 127) if layout.bits == 8 else (0, 2**layout.bits - 1)
    codes = random.randint(low, high + 1, (n_out * blocks, QK))
    codes[:blocks], codes[blocks : 2 * blocks] = high, low  # the largest sums there can be
    one = np.ones(len(codes), np.float32)
    data = pack(type, one, 0 * one if layout.has_min else None, codes)
    matrix = Tensor(type, (n_out, blocks * QK), data.reshape(-1))
    q_w = (codes - layout.zero).reshape(n_out, blocks, QK)

    values = random.randint(-127, 128, (blocks, QK))
    values[:, random.randint(QK)] = 127
    values[0], values[1] = 127, -127
    x = np.zeros((blocks, blocks, QK), np.float32)
    x[np.arange(blocks), np.arange(blocks)] = values
    x = x.reshape(blocks, -1)
    expected = np.einsum("obj,bj->bo", q_w, values)
    for begin in range(0, blocks, rows):
        product = probe(matrix, x[begin : begin + rows])
        assert_quantised_as_defined(product, x[begin : begin + rows])
        np.testing.assert_array_equal(product.y.astype(np.int64), expected[begin : begin + rows])
        np.testing.assert_array_equal(product.y, np.trunc(product.y))

    if layout.has_min:  # d = 0, m = 1: y is the sum of the activations' codes
        data = pack(type, 0 * one, one, codes)
        product = probe(Tensor(type, matrix.shape, data.reshape(-1)), x[:rows])
        np.testing.assert_array_equal(product.y, np.repeat(product.sum.sum(1)[:, None], n_out, 1))


@pytest.mark.parametrize("type", GGUF_BLOCK_TYPES)
def test_products_sums_of_other_types_are_exact(probe: Probe, type: str) -> None:
    """d = 1, m = 0 and activations in one block of 32: y is the whole number that it adds up to.

    Of q4_K and q5_K that is s times the sum, of q6_K the sum of both halves' times their s.
    """
    layout = GGUF_BLOCK_TYPES[type]
    random = np.random.RandomState(6)
    n_out, n_in = 37, 2 * layout.values
    data = random.randint(0, 256, (n_out, 2, layout.block_bytes)).astype(np.uint8)
    data[0], data[1] = 0xFF, 0x00
    at, size = (208, 2) if type == "q6_K" else (0, 2 + 2 * layout.has_min)
    data[..., at : at + size] = np.array([1, 0], "<f2").view(np.uint8)[:size]
    matrix = Tensor(type, (n_out, n_in), data.reshape(-1))
    w = unpack(type, matrix.data)
    q_w = w.q.astype(np.int64) * (1 if w.s is None else w.s)
    if type in ("q4_K", "q5_K"):
        q_w = q_w * w.d[:, None].astype(np.int64)
    q_w = q_w.reshape(n_out, -1, QK)

    blocks = n_in // QK
    values = random.randint(-127, 128, (blocks, QK))
    values[:, random.randint(QK)] = 127
    values[0], values[1] = 127, -127
    x = np.zeros((blocks, blocks, QK), np.float32)
    x[np.arange(blocks), np.arange(blocks)] = values
    product = probe(matrix, x.reshape(blocks, -1))
    np.testing.assert_array_equal(product.y, np.einsum("obj,bj->bo", q_w, values))

    if layout.has_min:  # d = 0, m = 1: y is -t times the sum of the activations' codes
        data[..., :4] = np.array([0, 1], "<f2").view(np.uint8)
        m = unpack(type, data.reshape(-1)).m
        assert m is not None
        product = probe(matrix, x.reshape(blocks, -1))
        expected = m.reshape(n_out, -1).T * values.sum(axis=1)[:, None]
        np.testing.assert_array_equal(product.y, expected)


@pytest.mark.parametrize("type", QUANTISED_TYPES)
def test_products_of_what_is_not_finite(probe: Probe, type: str) -> None:
    """A row of activations that holds NaN or infinity gives NaN everywhere; no other row does."""
    random = np.random.RandomState(5)
    n_in = max(96, QUANTISED_TYPES[type].values)
    matrix = random_matrix(type, 20, n_in, random)
    x = random.standard_normal((5, n_in)).astype(np.float32)
    x[1, 40], x[2, 0], x[3, 95] = np.nan, np.inf, -np.inf
    product = probe(matrix, x)
    assert np.isnan(product.y[1:4]).all()
    np.testing.assert_allclose(product.y[[0, 4]], matmul(matrix, x[[0, 4]]), rtol=1e-4, atol=1e-5)
