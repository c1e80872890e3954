"""The score itself."""

from __future__ import annotations

import numpy as np
from benchmarks.bits_per_byte import PIECE, Score, _pieces, bits, costs, differences


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


def test_differences_are_those_of_the_distributions() -> None:
    half, quarter = np.log([[0.5, 0.5]] * 2), np.log([[0.25, 0.75], [0.75, 0.25]])
    kl, same = differences(quarter.astype(np.float32) + 3, half.astype(np.float32))
    np.testing.assert_allclose(kl, 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75), rtol=1e-6)
    assert same.tolist() == [False, True]


def test_costs_join_both_ways_of_feeding() -> None:
    scores = [
        Score("q4_0", "reference", 1, 99, 1.3, 2.0, 10),
        Score("q4_0", "avx2", 1, 500, 1.1, 2.02, 10),
        Score("q4_0", "avx2", PIECE, 500, 1.2, 1.9, 10, 0.25, 0.5),
    ]
    (cost,) = costs(scores)
    assert (cost.token_by_token, cost.in_pieces, cost.kl) == (1.1, 1.2, 0.25)
    assert cost.from_reference is not None
    np.testing.assert_allclose(cost.from_reference, 0.05)
