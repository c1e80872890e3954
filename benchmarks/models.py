"""Synthetic RWKV-7 checkpoints of the released shapes: random weights, real sizes.

Speed depends on what the weights are in one way: products skip inputs of the channel mix's value
matrix that relu^2 made zero. With random weights that is half of them, too few to matter; a shape
can ask for as many as trained models have. Nothing overflows or becomes subnormal, and magnitudes
are about those of trained models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rwkv_convert

from .paths import cache
from .safetensors_file import write_safetensors

GGMF_TYPES = ("fp32", "fp16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
GGUF_TYPES = ("bf16", "q4_K", "q5_K", "q6_K", "q4_K_M")
"""What ggmf cannot hold."""

TYPES = (*GGMF_TYPES, *GGUF_TYPES)
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Shape:
    """A model's size: layers, width C, vocabulary; heads of 64, a channel mix of 4 C.

    Attributes:
        relu_zeros: the share of the channel mix's hidden values that relu makes zero.
    """

    name: str
    n_layer: int
    n_embd: int
    n_vocab: int = 65536
    relu_zeros: float = 0.5


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("0.1B", 12, 768),
        Shape("0.4B", 24, 1024),
        Shape("0.4B-relu70", 24, 1024, relu_zeros=0.7),
        Shape("1.5B", 24, 2048),
    )
}
DEFAULT_SHAPES = ["0.1B", "0.4B", "1.5B"]

HEAD_SIZE = 64


def ranks(n_embd: int) -> dict[str, int]:
    """Widths of the low-rank matrices w, a, v, g: the released models', multiples of 32."""

    def rank(exponent: float, factor: float) -> int:
        return max(1, round(math.pow(n_embd, exponent) * factor / 32)) * 32

    return {"w": rank(0.5, 1.8), "a": rank(0.5, 1.8), "v": rank(0.5, 1.3), "g": rank(0.8, 0.6)}


@dataclass(frozen=True)
class Random:
    """A tensor to be made: normal, or uniform in [low, high)."""

    shape: tuple[int, ...]
    std: float = 0.02
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0

    def rows(self, generator: np.random.Generator) -> Iterator[NDArray[np.float16]]:
        """The tensor as fp16, some rows at a time."""
        n_rows = self.shape[0]
        for begin in range(0, n_rows, ROWS_AT_ONCE):
            part = (min(ROWS_AT_ONCE, n_rows - begin), *self.shape[1:])
            if self.high > self.low:
                values = generator.random(part, np.float32) * np.float32(self.high - self.low)
                values += np.float32(self.low)
            else:
                values = generator.standard_normal(part, np.float32) * np.float32(self.std)
                values += np.float32(self.mean)
            yield values.astype(np.float16)


def tensors(shape: Shape) -> dict[str, Random]:
    """All tensors of a checkpoint, with the official names, shapes and order."""
    C, V = shape.n_embd, shape.n_vocab
    rank = ranks(C)

    def vector(low: float, high: float) -> Random:
        return Random((1, 1, C), low=low, high=high)

    def norm(name: str) -> dict[str, Random]:
        return {f"{name}.weight": Random((C,), low=0.8, high=1.2), f"{name}.bias": Random((C,))}

    z = {"emb.weight": Random((V, C), 0.1)}
    for i in range(shape.n_layer):
        block = f"blocks.{i}."
        if i == 0:
            z |= norm(block + "ln0")
        z |= norm(block + "ln1") | norm(block + "ln2")
        att = block + "att."
        for c in "rwkvag":
            z[f"{att}x_{c}"] = vector(0, 1)
        for c, (low, high) in {"w": (-6, 1), "a": (-1, 1), "v": (-1, 1)}.items():
            if c == "v" and i == 0:
                continue
            z[f"{att}{c}0"] = vector(low, high)
            z[f"{att}{c}1"] = Random((C, rank[c]))
            z[f"{att}{c}2"] = Random((rank[c], C), 0.1)
        z[att + "g1"] = Random((C, rank["g"]))
        z[att + "g2"] = Random((rank["g"], C), 0.1)
        z[att + "k_k"] = vector(0.5, 1)
        z[att + "k_a"] = vector(0.8, 1.2)
        z[att + "r_k"] = Random((C // HEAD_SIZE, HEAD_SIZE), 0.1)
        for name in ("receptance", "key", "value", "output"):
            z[f"{att}{name}.weight"] = Random((C, C), C**-0.5)
        z |= norm(att + "ln_x")
        z[block + "ffn.x_k"] = vector(0, 1)
        z[block + "ffn.key.weight"] = Random((4 * C, C), C**-0.5)
        if shape.relu_zeros != 0.5:
            # Inputs with a mean b of 0.5 (else they have 0) and weights with a mean m move the
            # hidden values by C m b. Their deviation is about 0.96: the inputs are a mix of two
            # rows, of variance 2/3 on average, plus b^2.
            b = 0.5
            z[block + "ln2.bias"] = Random((C,), mean=b)
            m = -0.96 * NormalDist().inv_cdf(shape.relu_zeros) / (C * b)
            z[block + "ffn.key.weight"] = Random((4 * C, C), C**-0.5, mean=m)
        z[block + "ffn.value.weight"] = Random((C, 4 * C), 0.5 * C**-0.5)
    z |= norm("ln_out")
    z["head.weight"] = Random((V, C), C**-0.5)
    return z


def write_checkpoint(shape: Shape, path: Path, seed: int = 0) -> None:
    """Writes a .safetensors checkpoint in fp16, a piece at a time."""
    content = tensors(shape)
    shapes = {name: tensor.shape for name, tensor in content.items()}
    generator = np.random.default_rng(seed)
    pieces = (rows for tensor in content.values() for rows in tensor.rows(generator))
    total = 2 * sum(math.prod(tensor.shape) for tensor in content.values())
    with tqdm(
        desc=f"making {path.name}", total=total, unit="B", unit_scale=True, disable=None
    ) as bar:
        write_safetensors(path, shapes, _counted(pieces, bar))


def _counted(
    pieces: Iterable[NDArray[np.float16]], bar: tqdm[NoReturn]
) -> Iterator[NDArray[np.float16]]:
    for piece in pieces:
        yield piece
        bar.update(piece.nbytes)


def checkpoint(shape: Shape) -> Path:
    """The checkpoint of a shape, from the cache."""
    path = cache() / f"rwkv7-{shape.name}.safetensors"
    if not path.exists():
        write_checkpoint(shape, path)
    return path


def model_file(shape: Shape, dtype: str) -> Path:
    """The checkpoint converted by rwkv-convert, with its defaults; from the cache."""
    return converted(shape, dtype, ".bin" if dtype in GGMF_TYPES else ".gguf")


def converted(shape: Shape, dtype: str, suffix: str) -> Path:
    """The same, as the container of a suffix: .bin or .gguf."""
    path = cache() / f"rwkv7-{shape.name}-{dtype}{suffix}"
    if not path.exists():
        source = checkpoint(shape)
        tqdm.write(f"converting to {path.name}")
        rwkv_convert.convert(source, path, dtype=dtype)
    return path


def into_page_cache(path: Path) -> None:
    """Reads a file, so that what follows does not measure the disk."""
    buffer = bytearray(8 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
