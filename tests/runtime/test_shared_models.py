"""Models that this project did not make, and logits that others computed; RWKV_SHARED has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.engine import CHUNKINGS
from rwkv_py import Model

TINY = {
    # file, tolerance, eps of the group norm (rwkv.cpp computes v5 with 1e-5)
    "4v0-660K": ("FP32", 1e-3, None),
    "5v2-730K": ("FP32", 1e-3, 1e-5),
    "6v0-3m": ("Q5_1", 0.3, None),
    "7v0-834K": ("FP32", 1e-3, None),
}


@pytest.mark.parametrize("name", TINY)
def test_shared_tiny_model(name: str, level: str, shared: Path) -> None:
    type, tolerance, ln_x_eps = TINY[name]
    model = Model(shared / f"models/tiny-rwkv-{name}-{type}.bin", ln_x_eps=ln_x_eps)
    expected = np.fromfile(shared / f"models/expected-logits-{name}.bin", np.float32)
    for way, feed in CHUNKINGS.items():
        logits, _ = feed(model, list(b'"in'))
        np.testing.assert_allclose(logits[-1], expected, rtol=0, atol=tolerance, err_msg=way)


def test_shared_expected_logits_heldout(
    level: str, shared: Path, converted: Callable[[str], Path]
) -> None:
    tokens = list((shared / "data/heldout_a.txt").read_bytes()[:64])
    expected = np.load(shared / "models/expected_logits_heldout_a64.npy")
    model = Model(converted("fp32"))
    for way, feed in CHUNKINGS.items():
        logits, _ = feed(model, tokens)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-5, err_msg=way)
