"""The engine against the PyPI package `rwkv` itself, for shapes that no golden file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle.reference_rwkv import reference
from runtime.engine import CHUNKINGS, LEVELS
from rwkv_py import Model
from twin import ggmf, synth

TOLERANCE = 5e-5
N_TOKENS = 64


@pytest.mark.parametrize(
    ("version", "config"),
    [
        (version, config)
        for version in synth.VERSIONS
        for config in ({"n_embd": 128, "head_size": 64}, {"n_embd": 160, "head_size": 32})
    ]
    + [
        ("4", {"n_layer": 5, "n_ffn": 160}),
        ("6", {"n_embd": 64, "rank": 16, "rank_wide": 96}),
        ("7", {"n_embd": 64, "rank": 16, "rank_wide": 96, "layer0_v": True}),
    ],
)
def test_runtime_agrees_with_reference(
    version: str, config: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = synth.checkpoint(version, seed=11, **config)
    assert sum(name.endswith("ln1.weight") for name in checkpoint) >= 3
    tokens = np.random.RandomState(11).randint(0, 64, N_TOKENS).tolist()
    expected, expected_state = reference(checkpoint, tokens)["one"]
    ggmf.write(tmp_path / "model.bin", ggmf.convert_reference(checkpoint))
    for level in LEVELS:
        monkeypatch.setenv("RWKV_KERNELS", level)
        for threads in (1, 2):
            model = Model(tmp_path / "model.bin", threads=threads)
            for way, feed in CHUNKINGS.items():
                where = f"{level}, {threads} threads, {way}"
                logits, state = feed(model, tokens)
                np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE, err_msg=where)
                np.testing.assert_allclose(
                    state, expected_state, rtol=1e-5, atol=TOLERANCE, err_msg=where
                )
