"""The peer `rwkv`, as the benchmarks run it: its file, its precisions, a worker of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.engines.rwkv_package import write_pth
from benchmarks.models import Shape, write_checkpoint
from benchmarks.worker import Worker, WorkerError

TOY = Shape("toy", n_layer=2, n_embd=128, n_vocab=300)


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_checkpoint(TOY, folder / "toy.safetensors")
    write_pth(str(folder / "toy.safetensors"), str(folder / "toy.pth"))
    return folder / "toy.pth"


def test_worker_computes_in_the_precision_of_its_variant(pth: Path, tmp_path: Path) -> None:
    logits = {}
    for precision in ("fp32", "bf16"):
        with Worker(f"rwkv_package:{precision}", pth, 1) as worker:
            assert worker.opened["precision"] == precision
            assert worker.opened["threads"] == 1
            out = tmp_path / f"{precision}.npy"
            worker.ask("logits", tokens=[5, 7, 250], out=str(out))
            logits[precision] = np.load(out)
            assert worker.ask("decode", seconds=0.01)["seconds"] > 0
            assert worker.ask("prefill", seconds=0.01, n_tokens=9)["seconds"] > 0
    assert logits["fp32"].shape == (3, TOY.n_vocab)
    # bf16 keeps 8 bits; the sums of a few layers lose some of them.
    scale = np.abs(logits["fp32"]).max()
    assert 0 < np.abs(logits["bf16"] - logits["fp32"]).max() < 0.1 * scale


def test_worker_says_that_the_package_has_no_batches(pth: Path) -> None:
    with (
        Worker("rwkv_package:fp32", pth, 1) as worker,
        pytest.raises(WorkerError, match="one sequence at a time"),
    ):
        worker.ask("concurrent", seconds=0.01, n_sequences=2)
