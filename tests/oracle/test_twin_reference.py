"""The twin and the golden files against the PyPI package `rwkv` itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle.reference_rwkv import MODES, reference
from twin import ggmf, synth
from twin.golden import FOLDER, GOLDEN, load_golden
from twin.model import load

TOLERANCE = 5e-5
N_TOKENS = 64


def compare_twin_with_reference(
    checkpoint: synth.Checkpoint, tokens: list[int], folder: Path
) -> dict[str, NDArray[np.float32]]:
    """Asserts that logits and states agree in both modes; returns the reference's logits."""
    ggmf.write(folder / "model.bin", ggmf.convert_reference(checkpoint))
    model = load(folder / "model.bin")
    state = model.new_state()
    logits = model.forward(tokens, state)
    results = reference(checkpoint, tokens)
    for mode in MODES:
        expected, expected_state = results[mode]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE, err_msg=mode)
        np.testing.assert_allclose(state, expected_state, rtol=1e-5, atol=TOLERANCE, err_msg=mode)
    return {mode: results[mode][0] for mode in MODES}


@pytest.mark.parametrize("name", GOLDEN)
def test_reference_golden_is_current(name: str, tmp_path: Path) -> None:
    golden = load_golden(name)
    results = compare_twin_with_reference(golden.checkpoint(), golden.tokens, tmp_path)
    # The reference's own sums differ a little with the machine's vector width.
    np.testing.assert_allclose(results["one"], golden.logits, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("version", "config"),
    [
        ("4", {"n_layer": 5, "n_embd": 64, "n_ffn": 160}),
        ("5.2", {"n_embd": 64}),  # one head
        ("6", {"n_embd": 64}),
        ("7", {"n_embd": 64, "layer0_v": True}),
        ("5.1", {"n_layer": 4, "n_embd": 256}),
        ("5.1-gate", {"n_layer": 4, "n_embd": 160, "head_size": 32}),
        ("6", {"n_layer": 4, "n_embd": 256, "rank": 16, "rank_wide": 32}),
        ("7", {"n_layer": 4, "n_embd": 160, "head_size": 32, "rank": 16, "rank_wide": 96}),
    ],
)
def test_reference_other_shapes(version: str, config: dict[str, int], tmp_path: Path) -> None:
    checkpoint = synth.checkpoint(version, seed=7, **config)
    tokens = np.random.RandomState(7).randint(0, 64, N_TOKENS).tolist()
    compare_twin_with_reference(checkpoint, tokens, tmp_path)


def test_reference_trained_checkpoint(examples: Path, tmp_path: Path) -> None:
    import torch

    tensors = torch.load(examples / "rwkv7-pydoc-L6-D256.pth", weights_only=True)
    tokens = list((examples / "heldout_a.txt").read_bytes()[:N_TOKENS])
    checkpoint = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    results = compare_twin_with_reference(checkpoint, tokens, tmp_path)
    with np.load(FOLDER / "rwkv7-pydoc.npz") as golden:
        assert golden["tokens"].tolist() == tokens
        np.testing.assert_allclose(golden["logits"], results["one"], rtol=0, atol=3e-5)


def test_reference_expected_logits_heldout(shared: Path, tmp_path: Path) -> None:
    import torch

    tensors = torch.load(shared / "models/rwkv7-pydoc-L6-D256.pth", weights_only=True)
    checkpoint = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    ggmf.write(tmp_path / "model.bin", ggmf.convert_reference(checkpoint))
    tokens = (shared / "data/heldout_a.txt").read_bytes()[:N_TOKENS]
    expected = np.load(shared / "models/expected_logits_heldout_a64.npy")
    logits = load(tmp_path / "model.bin").forward(tokens)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
