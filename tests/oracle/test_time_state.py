"""Initial states from state tuning against the PyPI package `rwkv`, in the files' orientation.

For RWKV-5 and 6 the package itself takes `time_state` tensors out of a checkpoint, transposes them,
and begins with them. Its class for RWKV-7 does not, but takes the state to begin with as a list;
the tensors go into that as they are, for the reasons that docs/formats.md gives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import rwkv_convert
from oracle.reference_rwkv import reference
from rwkv_py import Model, Session
from twin import synth
from twin.model import load

TOLERANCE = 5e-5
N_TOKENS = 64
VERSIONS = ["5.1", "5.1-gate", "5.2", "6", "7"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_and_state_agree_with_reference(
    version: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """In a file of its own, in the checkpoint, and embedded; as torch saves them."""
    checkpoint = synth.checkpoint(version, seed=7)
    time_state = {
        name: torch.from_numpy(array).to(dtype) for name, array in synth.time_state(seed=7).items()
    }
    torch.save({n: torch.from_numpy(a) for n, a in checkpoint.items()}, tmp_path / "plain.pth")
    torch.save(time_state, tmp_path / "tuned.pth")
    rwkv_convert.convert(tmp_path / "plain.pth", tmp_path / "plain.bin", dtype="fp32")
    rwkv_convert.convert(
        tmp_path / "plain.pth",
        tmp_path / "tuned.bin",
        dtype="fp32",
        time_state=tmp_path / "tuned.pth",
    )
    tokens = np.random.RandomState(7).randint(0, 64, N_TOKENS).tolist()
    merged = {**checkpoint, **{n: t.float().numpy() for n, t in time_state.items()}}
    for expected, expected_state in reference(merged, tokens).values():
        twin = load(tmp_path / "tuned.bin")
        state = twin.new_state()
        np.testing.assert_allclose(twin.forward(tokens, state), expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(state, expected_state, rtol=1e-5, atol=TOLERANCE)
        for session in (
            Session(tmp_path / "tuned.bin"),
            Session(tmp_path / "plain.bin", time_state=tmp_path / "tuned.pth"),
        ):
            (logits,) = session.model.step([(session, tokens)], logits="all")
            np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
            np.testing.assert_allclose(session.state, expected_state, rtol=1e-5, atol=TOLERANCE)


def test_the_test_would_see_a_transposed_or_missing_state(tmp_path: Path) -> None:
    tokens = np.random.RandomState(7).randint(0, 64, N_TOKENS).tolist()
    for version in VERSIONS:
        checkpoint, time_state = synth.checkpoint(version, seed=7), synth.time_state(seed=7)
        expected, _ = reference({**checkpoint, **time_state}, tokens)["one"]
        torch.save({n: torch.from_numpy(a) for n, a in checkpoint.items()}, tmp_path / "in.pth")
        rwkv_convert.convert(tmp_path / "in.pth", tmp_path / "a.bin", dtype="fp32", force=True)
        model = Model(tmp_path / "a.bin")
        turned = {name: array.swapaxes(1, 2) for name, array in time_state.items()}
        for wrong in (None, turned):
            session = Session(model, time_state=wrong)
            (logits,) = model.step([(session, tokens)], logits="all")
            assert logits is not None
            assert np.abs(logits - expected).max() > 1000 * TOLERANCE, version
