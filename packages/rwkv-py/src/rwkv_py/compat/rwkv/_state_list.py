"""A state as a list of arrays, a few for each layer, and as the flat array of rwkv.h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import StateMismatchError
from ...model import ModelInfo
from .._arrays import ArrayOrTensor, values_of

__all__ = ["StateList"]


class StateList:
    """How the states of a model are cut.

    Of each layer the list has the time mix's shift (n_embd,), then version 4's aa, bb and pp
    (n_embd,) or else the heads (n_head, head_size, head_size), then the channel mix's shift
    (n_embd,), with which a layer begins in the flat array.

    Attributes:
        shapes: the shapes of the arrays of a layer, in the order of the list.
        n_arrays: how many arrays there are in the list.
    """

    def __init__(self, info: ModelInfo):
        shift = (info.n_embd,)
        heads = (info.n_head, info.head_size, info.head_size)
        memory = [shift] * 3 if info.version == "4" else [heads]
        self.shapes: list[tuple[int, ...]] = [shift, *memory, shift]
        self.n_arrays = info.n_layer * len(self.shapes)
        self._sizes = [math.prod(shape) for shape in self.shapes]

    def split(self, flat: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the list of a flat state, each array with memory of its own."""
        arrays = []
        for layer in flat.reshape(-1, sum(self._sizes)):
            channel_shift, *others = np.split(
                layer, np.cumsum([self._sizes[-1], *self._sizes])[:-2]
            )
            for part, shape in zip([*others, channel_shift], self.shapes, strict=True):
                arrays.append(part.reshape(shape).copy())
        return arrays

    def join(self, state: Sequence[ArrayOrTensor]) -> NDArray[np.float32]:
        """Return the flat state of a list.

        Raises:
            StateMismatchError: it is not a list of this model's.
        """
        if not isinstance(state, list | tuple) or len(state) != self.n_arrays:
            got = f"{len(state)}" if isinstance(state, list | tuple) else type(state).__name__
            raise StateMismatchError(
                f"state: expected a list of {self.n_arrays} arrays, {len(self.shapes)} a layer, "
                f"got {got}"
            )
        flat = []
        for begin in range(0, self.n_arrays, len(self.shapes)):
            parts = []
            for i, shape in enumerate(self.shapes, start=begin):
                part = values_of(state[i])
                if part.shape != shape:
                    raise StateMismatchError(
                        f"state[{i}]: expected shape {shape}, got {part.shape}"
                    )
                parts.append(part.reshape(-1))
            flat += [parts[-1], *parts[:-1]]
        return np.concatenate(flat)
