"""Logits -> probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenProbability", "log_softmax", "probability_of"]


class TokenProbability(NamedTuple):
    """How probable a token was that was drawn.

    Attributes:
        token: the token.
        logprob: ln p of the token, the model's own: the log-softmax of its logits, before
            temperature, penalties, biases, bans and top_p.
        top: the most probable tokens by the same measure and their ln p, the first the most
            probable; as many as were asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def probability_of(logits: NDArray[np.float32], token: int, n_top: int) -> TokenProbability:
    """Return how probable `token` is by logits (n_vocab,), with the `n_top` most probable ones."""
    log_p = log_softmax(logits)
    top: list[int] = []
    if n_top > 0:
        # Of equals the first, as by a stable sort, which would take milliseconds.
        least = np.partition(log_p, -min(n_top, log_p.size))[-min(n_top, log_p.size)]
        candidates = np.flatnonzero(log_p >= least)
        top = candidates[np.argsort(-log_p[candidates], kind="stable")[:n_top]].tolist()
    return TokenProbability(
        token, float(log_p[token]), tuple((each, float(log_p[each])) for each in top)
    )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ln p over the last axis, float64 of the same shape."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
