"""Whole quantised models against the numpy twin, whose products are computed by definition."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from runtime.engine import CHUNKINGS, Floats
from rwkv_py import Model, Session
from twin import model as twin
from twin.block_types import BLOCK_TYPES
from twin.synth import VERSIONS

TOKENS = np.random.RandomState(3).randint(0, 64, 40).tolist()


@cache
def twin_logits(path: Path) -> Floats:
    return twin.load(path).forward(TOKENS).astype(np.float32)


@pytest.mark.parametrize("type", BLOCK_TYPES)
@pytest.mark.parametrize("version", VERSIONS)
def test_quantised_logits_agree_with_twin(
    version: str, type: str, level: str, synth_file: Callable[[str, str], Path]
) -> None:
    path = synth_file(version, type)
    expected = twin_logits(path)
    model = Model(path, threads=2)
    assert model.info.data_type == type
    for way, feed in CHUNKINGS.items():
        logits, _ = feed(model, TOKENS)
        atol = 2e-2 * float(np.ptp(expected))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=atol, err_msg=way)


@pytest.mark.parametrize("version", VERSIONS)
def test_quantised_fp16_logits_agree_with_twin(
    version: str, level: str, synth_file: Callable[[str, str], Path]
) -> None:
    path = synth_file(version, "fp16")
    expected = twin_logits(path)
    model = Model(path, threads=2)
    for way, feed in CHUNKINGS.items():
        logits, _ = feed(model, TOKENS)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-5, err_msg=way)


N_BYTES = 512  # of the held-out text: enough to tell 0.5 %, little enough for the twin


def bits_per_byte(logits: Floats, text: bytes) -> float:
    """The mean of -log2 p(byte); logits (T, 256) are those before each byte of `text`."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    log_p = x[np.arange(len(text)), list(text)] - np.log(np.exp(x).sum(axis=1))
    return float(-log_p.mean() / np.log(2))


@pytest.fixture(scope="module")
def heldout(examples: Path) -> bytes:
    return (examples / "heldout_a.txt").read_bytes()[: N_BYTES + 1]


def engine_bits_per_byte(path: Path, text: bytes) -> float:
    model = Model(path)
    [logits] = model.step([(Session(model), list(text[:-1]))], logits="all")
    assert logits is not None
    return bits_per_byte(logits, text[1:])


@pytest.mark.slow
@pytest.mark.parametrize("type", ["fp32", "fp16", *BLOCK_TYPES])
def test_quantised_bits_per_byte(
    type: str, heldout: bytes, converted: Callable[[str], Path]
) -> None:
    """The engine scores text as the twin does that computes the same file.

    And no type is far from fp32: on the whole text q8_0 costs 0.01 %, q4_0 0.8 %.
    """
    ours = engine_bits_per_byte(converted(type), heldout)
    judge = twin.load(converted(type), dtype=np.float32).forward(list(heldout[:-1]))
    assert ours == pytest.approx(bits_per_byte(judge, heldout[1:]), rel=5e-3)
    assert ours == pytest.approx(engine_bits_per_byte(converted("fp32"), heldout), rel=2e-2)
