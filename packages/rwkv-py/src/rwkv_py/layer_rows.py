"""Texts as rows that run through a model layer after layer, and what its matrices multiply then.

In memory are one layer and the rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import Tokens
from .moments import Workers, add_moments, mirror

if TYPE_CHECKING:
    import rwkv_convert

__all__ = ["LayerRows", "Rows"]

Rows = NDArray[np.float32]

# Rows that run through a layer at once.
_ROWS = 2048

# Of the norms before the layers and after them.
_NORM_EPSILON = 1e-5


class LayerRows:
    """The layers of a model, and texts; rows are (tokens of all texts, n_embd)."""

    def __init__(
        self,
        weights: rwkv_convert.ModelWeights,
        tokens: list[Tokens],
        workers: Workers,
        n_threads: int,
    ) -> None:
        self.weights = weights
        self.workers = workers
        self.tokens = tokens
        self._n_threads = n_threads
        self._reading = threading.Lock()  # weights are for one thread at a time

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's numbers, for whichever thread asks."""
        with self._reading:
            return self.weights.read(name)

    def embedded(self, embedding: NDArray[np.float32] | None = None) -> Rows:
        """What the first layer is given; `embedding` takes the place of the model's."""
        if embedding is None:
            embedding = self.read("emb.weight")
        return self._normed(embedding[np.concatenate(self.tokens)], "blocks.0.ln0")

    def head_inputs(self, x: Rows) -> Rows:
        """What the head multiplies after the last layer."""
        return self._normed(x, "ln_out")

    def layer(self, layer: int, others: Mapping[str, NDArray[np.float32]] | None = None) -> Any:
        """A layer in the engine; `others` take the place of the model's tensors."""
        file = self.weights.layer_file(layer, others)
        return _core.Layers(file, layer, 1, self._n_threads, 0.0)

    def run(self, model: Any, x: Rows, v_first: Rows) -> None:
        """Let a layer work on the rows, in place."""
        for rows in self._pieces(model):
            model.run(x[rows], v_first[rows], None)

    def moments(
        self, model: Any, x: Rows, v_first: Rows, wanted: Callable[[str], bool]
    ) -> dict[str, list[Rows]]:
        """The second moments of what matrices multiply when a layer works on the rows.

        The rows stay as they are.

        Args:
            model: the layer.
            x: the rows.
            v_first: version 7's.
            wanted: says of a tensor whether its moments are.

        Returns:
            by tensor: (columns, columns) of one matrix or, where several are stacked, of each.
        """
        tapped = []
        moments: dict[str, list[Rows]] = {}
        for name, _, n_in in model.matrices():
            tensor = name.partition("[")[0]
            tapped.append(n_in if wanted(tensor) else None)
            if wanted(tensor):
                moments.setdefault(tensor, []).append(np.zeros((n_in, n_in), np.float32))
        if not moments:
            return moments
        flat = [one for several in moments.values() for one in several]
        for rows in self._pieces(model):
            n_rows = rows.stop - rows.start
            inputs = [None if n is None else np.empty((n_rows, n), np.float32) for n in tapped]
            model.run(x[rows].copy(), v_first[rows].copy(), inputs)
            self._add(flat, [some for some in inputs if some is not None])
        for one in flat:
            mirror(one)
        return moments

    def head_moments(self, x: Rows) -> Rows:
        """The second moments of what the head multiplies."""
        found = np.zeros((x.shape[1], x.shape[1]), np.float32)
        for begin in range(0, len(x), _ROWS):
            self._add([found], [self.head_inputs(x[begin : begin + _ROWS])])
        mirror(found)
        return found

    def input_squares(
        self, progress: Callable[[int, int], None] | None
    ) -> dict[str, NDArray[np.float32]]:
        """The sum of the square of each input of each matrix, by tensor; not of stacked ones."""
        n_layers = self.weights.n_layer
        x = self.embedded()
        v_first = np.zeros_like(x)
        sums: dict[str, NDArray[np.float64]] = {}
        for i in range(n_layers):
            model = self.layer(i)
            shapes = [(name, n_in) for name, _, n_in in model.matrices()]
            for rows in self._pieces(model):
                inputs = [np.empty((rows.stop - rows.start, n), np.float32) for _, n in shapes]
                model.run(x[rows], v_first[rows], inputs)
                for (name, _), some in zip(shapes, inputs, strict=True):
                    if "[" not in name:
                        found = np.einsum("ij,ij->j", some, some, dtype=np.float64)
                        sums[name] = sums.get(name, 0) + found
            if progress is not None:
                progress(i + 1, n_layers)
        inputs_of_head = self.head_inputs(x).astype(np.float64)
        sums["head.weight"] = np.einsum("ij,ij->j", inputs_of_head, inputs_of_head)
        return {name: sum_.astype(np.float32) for name, sum_ in sums.items()}

    def _add(self, moments: list[Rows], inputs: list[Rows]) -> None:
        self.workers.run(
            task
            for one, some in zip(moments, inputs, strict=True)
            for task in add_moments(one, some)
        )

    def _normed(self, rows: Rows, norm: str) -> Rows:
        weight, bias = (self.read(f"{norm}.{part}") for part in ("weight", "bias"))
        x = rows.astype(np.float64)
        x -= x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + _NORM_EPSILON)
        return (x * weight + bias).astype(np.float32)

    def _pieces(self, model: Any) -> Iterator[slice]:
        """Rows of one text each, in order; the layer forgets the text before."""
        first = 0
        for some in self.tokens:
            model.reset()
            for begin in range(0, len(some), _ROWS):
                yield slice(first + begin, first + min(begin + _ROWS, len(some)))
            first += len(some)
