"""Logits -> probabilities -> what is left of them, as both engines' samplers do it in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_below", "draw", "softmax"]

Floats = NDArray[np.float32]


def softmax(logits: Floats, axis: int = -1) -> Floats:
    """Return the probabilities over an axis, of the type of the logits."""
    weights: Floats = np.exp(logits - logits.max(axis=axis, keepdims=True))
    weights /= weights.sum(axis=axis, keepdims=True)
    return weights


def cut_below(probabilities: Floats, falling: Floats, reached: NDArray[np.bool_]) -> None:
    """Set to 0, in place, what is less probable than where the running sum is first `reached`.

    Args:
        probabilities: (n_vocab,).
        falling: the same, from the largest down.
        reached: of each running sum over `falling`, whether it is large enough. Where none is,
            because of rounding, nothing is cut.
    """
    if reached.any():
        probabilities[probabilities < falling[reached.argmax()]] = 0


def draw(probabilities: Floats, temperature: float) -> int:
    """Draw an index with `np.random`, whose seed the caller may have set."""
    if temperature != 1:
        probabilities = probabilities ** (1 / temperature)
    return int(np.random.choice(len(probabilities), p=probabilities / probabilities.sum()))
