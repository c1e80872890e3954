"""A file's tensors as the forward passes ask for them."""

from dataclasses import dataclass, replace

import numpy as np

from .block_types import Activations, Floats, Tensor, dequantize, matmul, row_bytes
from .ggmf import ModelFile


@dataclass(frozen=True)
class Weights:
    """Tensors by name, below `prefix`; arrays and products come in `dtype`."""

    file: ModelFile
    ln_x_eps: float
    activations: Activations
    dtype: type[np.floating]
    prefix: str = ""

    @property
    def n_layer(self) -> int:
        return self.file.n_layer

    @property
    def n_embed(self) -> int:
        return self.file.n_embed

    def block(self, layer: int) -> "Weights":
        """The same weights, with names relative to one layer."""
        return replace(self, prefix=f"blocks.{layer}.")

    def has(self, name: str) -> bool:
        return self.prefix + name in self.file.tensors

    def tensor(self, name: str) -> Tensor:
        return self.file.tensors[self.prefix + name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensor(name).shape

    def array(self, name: str) -> Floats:
        """The values in the file's shape."""
        return dequantize(self.tensor(name)).astype(self.dtype)

    def vector(self, name: str) -> Floats:
        """The values in one row."""
        return self.array(name).reshape(-1)

    def norm(self, name: str) -> tuple[Floats, Floats]:
        """A norm's weight and bias."""
        return self.vector(f"{name}.weight"), self.vector(f"{name}.bias")

    def embedding(self, tokens: list[int]) -> Floats:
        """The tokens' rows of the embedding, (T, C): no product, so nothing but dequantised."""
        tensor = self.tensor("emb.weight")
        n_vocab, n = tensor.shape
        data = tensor.data.reshape(n_vocab, row_bytes(tensor.type, n))[tokens]
        rows = Tensor(tensor.type, (len(tokens), n), data.reshape(-1))
        return dequantize(rows).astype(self.dtype)

    def matmul(self, name: str, x: Floats, index: int | None = None) -> Floats:
        """x (T, n) times a matrix (rows, n), or slice `index` of a stack of them -> (T, rows)."""
        tensor = self.tensor(name)
        if index is not None:
            tensor = tensor[index]
        return matmul(tensor, x, activations=self.activations, dtype=self.dtype)
