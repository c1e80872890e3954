"""`sampling` of rwkv.cpp: random numbers are those of `np.random`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..._arguments import as_number
from ...errors import InvalidArgumentError
from .. import _probabilities
from .._arrays import ArrayOrTensor, values_of
from .._probabilities import cut_below, draw

__all__ = ["sample_logits", "sample_probs", "softmax"]


def softmax(x: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the probabilities over an axis; `x` stays as it is."""
    return _probabilities.softmax(x, axis)


def sample_logits(
    out: ArrayOrTensor,
    temperature: float = 1.0,
    top_p: float = 0.8,
    logit_bias: Mapping[int, float] | None = None,
) -> int:
    """Draw a token from logits (n_vocab,), an array or a tensor, which stays as it is.

    The other arguments, and what they raise, are those of `sample_probs`.
    """
    return sample_probs(_probabilities.softmax(values_of(out)), temperature, top_p, logit_bias)


def sample_probs(
    probs: NDArray[np.float32],
    temperature: float = 1.0,
    top_p: float = 0.8,
    logit_bias: Mapping[int, float] | None = None,
) -> int:
    """Draw a token from probabilities (n_vocab,), which stay as they are.

    Args:
        probs: the probabilities.
        temperature: 0 takes the most probable token.
        top_p: of the probabilities keep those at least as large as the one where the sum, from the
            largest down, exceeds it; 0 and 1 keep all.
        logit_bias: what to add to the logits of tokens, before all else.

    Raises:
        ValueError: the temperature is below 0, or `top_p` is not 0 to 1.

    >>> from rwkv_py.compat.rwkv_cpp.sampling import sample_probs
    >>> sample_probs(np.array([0.2, 0.5, 0.3], np.float32), top_p=0.4)
    1
    """
    if not as_number("temperature", temperature) >= 0:
        raise InvalidArgumentError(f"temperature: expected 0 or more, got {temperature}")
    if not 0 <= as_number("top_p", top_p) <= 1:
        raise InvalidArgumentError(f"top_p: expected 0 to 1, got {top_p}")
    probabilities = np.array(probs)
    if logit_bias:
        with np.errstate(divide="ignore"):  # a probability of 0 stays one
            logits = np.log(probabilities)
        for token, bias in logit_bias.items():
            logits[token] += bias
        probabilities = _probabilities.softmax(logits)
    if temperature == 0:
        return int(probabilities.argmax())
    if 0 < top_p < 1:
        falling = np.sort(probabilities)[::-1]
        cut_below(probabilities, falling, np.cumsum(falling) > top_p)
    return draw(probabilities, temperature)
