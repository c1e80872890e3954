from __future__ import annotations

import numpy as np

from rwkv_py.probabilities import log_softmax


def test_log_softmax_of_rows_and_of_large_numbers() -> None:
    """Each row by itself, in float64; exp of these logits themselves would overflow."""
    logits = np.array([[0.0, 1.0, 2.0], [1000.0, 1000.0, -np.inf], [-3e38, 3e38, 0.0]], np.float32)
    kept = logits.copy()
    log_p = log_softmax(logits)
    assert log_p.dtype == np.float64
    assert log_p.shape == (3, 3)
    assert np.array_equal(logits, kept)
    first = -np.log(np.exp([0.0, 1.0, 2.0]).sum()) + [0.0, 1.0, 2.0]
    np.testing.assert_allclose(log_p[0], first, rtol=1e-12)
    np.testing.assert_allclose(log_p[1], [-np.log(2), -np.log(2), -np.inf], rtol=1e-12)
    assert log_p[2, 1] == 0
    np.testing.assert_array_equal(log_softmax(logits[0]), log_p[0])  # a single one
    block = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(np.exp(log_softmax(block)).sum(axis=-1), 1, rtol=1e-12)
