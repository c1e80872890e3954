"""Single matrix products of each kernel level against the numpy twin, given the same input."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engine import Floats
from twin import ggmf
from twin.block_types import (
    BLOCK_TYPES,
    QK,
    Tensor,
    dequantize,
    matmul,
    pack,
    quantize,
    quantize_activations,
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
        model, x_file, out = (self.folder / name for name in ("w.bin", "x.f32", "out.bin"))
        some = quantize(np.zeros((1, QK), np.float32), "fp32")
        ggmf.write(model, {"emb.weight": some, "blocks.0.w": matrix})
        x.astype("<f4").tofile(x_file)
        subprocess.run([self.program, model, "blocks.0.w", x_file, out], check=True)
        n_out, n_in = matrix.shape
        rows, blocks = len(x), n_in // QK if matrix.type in BLOCK_TYPES else 0
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


@pytest.mark.parametrize("rows", [1, 2, 7, 31])
@pytest.mark.parametrize("type", ["fp32", "fp16", *BLOCK_TYPES])
def test_products_agree_with_twin(probe: Probe, type: str, rows: int) -> None:
    """To 1e-5 relative: of the sum of the magnitudes that are added, for where they cancel."""
    random = np.random.RandomState(rows)
    for n_out, n_in in ((64, 256), (37, 96), (5, 32), (48, 1056)):
        w = random.standard_normal((n_out, n_in)) * 10.0 ** random.uniform(-3, 1, (n_out, 1))
        matrix = quantize(w, type)
        x = random.standard_normal((rows, n_in)) * 10.0 ** random.uniform(-3, 3, (rows, 1))
        x = x.astype(np.float32)
        product = probe(matrix, x)
        expected = matmul(matrix, x)
        if type in BLOCK_TYPES:
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


@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_products_of_what_is_not_finite(probe: Probe, type: str) -> None:
    """A row of activations that holds NaN or infinity gives NaN everywhere; no other row does."""
    random = np.random.RandomState(5)
    matrix = quantize(random.standard_normal((20, 96)), type)
    x = random.standard_normal((5, 96)).astype(np.float32)
    x[1, 40], x[2, 0], x[3, 95] = np.nan, np.inf, -np.inf
    product = probe(matrix, x)
    assert np.isnan(product.y[1:4]).all()
    np.testing.assert_allclose(product.y[[0, 4]], matmul(matrix, x[[0, 4]]), rtol=1e-4, atol=1e-5)
