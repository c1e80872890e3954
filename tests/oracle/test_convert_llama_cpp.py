"""llama.cpp itself loads what we write, and computes what the twin computes.

Needs `llama-cpp-python`, whose build takes a while; benchmarks/engines/llama_cpp.py wraps it. A
build for the processor at hand may use other arithmetic (AMX): the tolerances are for AVX2.
"""

from pathlib import Path

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from twin import model, synth

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from benchmarks.engines.llama_cpp import Engine

TOKENS = [72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100, 10, 0, 255, 128]


def logits(path: Path) -> np.ndarray:
    engine = Engine(str(path), threads=1)
    try:
        return engine.logits(TOKENS)
    finally:
        engine.close()


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-3), ("fp16", 2e-2)])
def test_llama_cpp_computes_what_the_twin_does(
    tmp_path: Path, version: str, dtype: str, tolerance: float
):
    checkpoint = synth.checkpoint(version, n_vocab=256)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    rwkv_convert.convert(source, tmp_path / "a.gguf", dtype=dtype)
    rwkv_convert.convert(source, tmp_path / "a.bin", dtype=dtype)
    judge = model.load(tmp_path / "a.bin")
    expected = judge.forward(TOKENS, judge.new_state())
    np.testing.assert_allclose(logits(tmp_path / "a.gguf"), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("dtype", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_llama_cpp_reads_our_blocks(tmp_path: Path, version: str, dtype: str):
    """Against the same numbers in fp32: what differs is how activations are rounded."""
    checkpoint = synth.checkpoint(version, n_vocab=256, n_embd=256)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    rwkv_convert.convert(source, tmp_path / "a.gguf", dtype=dtype)
    rwkv_convert.convert(tmp_path / "a.gguf", tmp_path / "b.gguf", dtype="fp32")
    one, two = logits(tmp_path / "a.gguf"), logits(tmp_path / "b.gguf")
    np.testing.assert_allclose(one, two, atol=0.02 * np.ptp(two), rtol=0)
