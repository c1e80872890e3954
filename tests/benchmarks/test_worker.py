"""The worker with our own library: every kind of work, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks.worker import Worker, WorkerError

import rwkv_runtime
from rwkv_py import Model, Session

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Path:
    return converted("q4_0")


@pytest.fixture
def worker(model: Path) -> Iterator[Worker]:
    with Worker(f"runtime:{rwkv_runtime.library_path()}", model, 2, level="reference") as worker:
        yield worker


def test_what_was_opened(worker: Worker, model: Path) -> None:
    info = Model(model).info
    opened = worker.opened
    assert (opened["engine"], opened["kernels"], opened["threads"]) == (
        "rwkv-runtime", "reference", 2
    )  # fmt: skip
    assert opened["file_bytes"] == model.stat().st_size
    assert 0.9 < opened["weight_bytes"] / info.weight_bytes < 1.1  # levels pack differently
    assert opened["load_seconds"] > 0
    assert opened["resident_bytes"] > opened["resident_before"] > 0


@pytest.mark.parametrize(
    ("work", "arguments"),
    [("decode", {}), ("prefill", {"n_tokens": 40}), ("concurrent", {"n_sequences": 3})],
)
def test_work_is_measured(worker: Worker, work: str, arguments: dict[str, int]) -> None:
    found = worker.ask(work, seconds=0.05, **arguments)
    assert found["steps"] >= 1
    assert 0 < found["seconds"] < 10
    assert 0 < found["mean_seconds"] < 10


def test_logits_are_those_of_the_model(
    worker: Worker, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = list(b"import json")
    worker.ask("concurrent", seconds=0.01, n_sequences=2)  # states that must not matter
    worker.ask("logits", tokens=tokens, out=str(tmp_path / "logits.npy"))
    monkeypatch.setenv("RWKV_KERNELS", "reference")
    session = Session(Model(model))
    expected = [session.feed([token]).copy() for token in tokens]
    assert np.array_equal(np.load(tmp_path / "logits.npy"), expected)


def test_idle_is_measured(worker: Worker) -> None:
    assert worker.ask("idle", seconds=0.05)["processor_seconds"] >= 0


def test_a_failure_is_an_answer(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"RuntimeError: .*999999"):
        worker.ask("logits", tokens=[999_999], out=str(tmp_path / "logits.npy"))
    assert worker.ask("decode", seconds=0.01)["steps"] >= 1  # and it goes on
    with (
        pytest.raises(WorkerError, match=r"RuntimeError: .*none\.bin"),
        Worker(f"runtime:{rwkv_runtime.library_path()}", tmp_path / "none.bin", 1),
    ):
        pass
