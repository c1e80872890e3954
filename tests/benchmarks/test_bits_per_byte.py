"""The score itself."""

from __future__ import annotations

import numpy as np
from benchmarks.bits_per_byte import _pieces, bits


def test_bits_of_equal_logits_are_the_logarithm_of_the_vocabulary() -> None:
    logits = np.full((3, 256), 7.0, np.float32)
    np.testing.assert_allclose(bits(logits, np.array([0, 5, 255])), 8.0, rtol=1e-12)


def test_bits_follow_the_probability_of_the_target() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]], np.float32))
    np.testing.assert_allclose(bits(logits, np.array([1, 0])), [2.0, 3.0], rtol=1e-6)


def test_pieces_score_every_token_but_the_first() -> None:
    tokens = np.arange(10, dtype=np.int32)
    for size in (1, 3, 9, 100):
        pieces = list(_pieces(tokens, size))
        np.testing.assert_array_equal(np.concatenate([p[0] for p in pieces]), tokens[:-1])
        np.testing.assert_array_equal(np.concatenate([p[1] for p in pieces]), tokens[1:])
