"""fp32 logits and states against those of the PyPI package `rwkv`, stored in tests/golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.engine import CHUNKINGS
from rwkv_py import Model
from twin.golden import FOLDER, GOLDEN, load_golden

TOLERANCE = 5e-5  # in every logit


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits(
    name: str, threads: int, level: str, golden_file: Callable[[str], Path]
) -> None:
    golden = load_golden(name)
    model = Model(golden_file(name), threads=threads)
    assert model.info.kernels == level
    assert model.info.version == golden.version.replace("5.1-gate", "5.2")
    assert (model.info.n_layer, model.info.n_embd) == (golden.n_layer, golden.n_embd)
    for way, feed in CHUNKINGS.items():
        logits, state = feed(model, golden.tokens)
        np.testing.assert_allclose(logits, golden.logits, rtol=0, atol=TOLERANCE, err_msg=way)
        if golden.state is not None:
            np.testing.assert_allclose(
                state, golden.state, rtol=1e-5, atol=TOLERANCE, err_msg=f"{way}: state"
            )


@pytest.mark.parametrize("name", ["rwkv-4-2x64", "rwkv-5.1-2x64", "rwkv-6-2x64", "rwkv-7-2x64"])
def test_golden_threads_change_nothing(
    name: str, level: str, golden_file: Callable[[str], Path]
) -> None:
    tokens = load_golden(name).tokens
    one = Model(golden_file(name), threads=1)
    many = Model(golden_file(name), threads=3)
    for way, feed in CHUNKINGS.items():
        for ours, theirs in zip(feed(one, tokens), feed(many, tokens), strict=True):
            np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32), way)


def test_golden_trained_checkpoint(level: str, converted: Callable[[str], Path]) -> None:
    with np.load(FOLDER / "rwkv7-pydoc.npz") as golden:
        tokens, expected = golden["tokens"].tolist(), golden["logits"]
    model = Model(converted("fp32"))
    for way, feed in CHUNKINGS.items():
        logits, _ = feed(model, tokens)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE, err_msg=way)
