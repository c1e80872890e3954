"""The example program `main_rwkv` from end to end: one token a run, the state in files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.engine import Floats
from rwkv_py import Model, Session
from twin.golden import load_golden

NAME = "rwkv-7-3x32"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(main_rwkv: Path, golden_file: Callable[[str], Path], tmp_path: Path) -> Run:
    """`run(token, state_in, state_out, logits_out)`; files in `tmp_path`."""

    def run_main(*args: object) -> subprocess.CompletedProcess[str]:
        command = [str(main_rwkv), str(golden_file(NAME)), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)

    return run_main


def floats(path: Path) -> Floats:
    return np.fromfile(path, np.float32)


@pytest.mark.parametrize("fresh", ["absent", "empty file", "empty name"])
def test_main_rwkv_carries_the_state(run: Run, fresh: str, tmp_path: Path) -> None:
    golden = load_golden(NAME)
    state_in = "" if fresh == "empty name" else "fresh.f32"
    if fresh == "empty file":
        (tmp_path / state_in).write_bytes(b"")
    for i, token in enumerate(golden.tokens[:6]):
        done = run(token, state_in, "state.f32", "logits.f32")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        state_in = "state.f32"
        np.testing.assert_allclose(
            floats(tmp_path / "logits.f32"), golden.logits[i], rtol=0, atol=5e-5
        )


def test_main_rwkv_writes_the_documented_layout(
    run: Run, golden_file: Callable[[str], Path], tmp_path: Path
) -> None:
    session = Session(Model(golden_file(NAME)))
    session.feed([3, 5, 8])
    session.state.tofile(tmp_path / "in.f32")
    assert run(13, "in.f32", "out.f32", "logits.f32").returncode == 0
    logits = session.feed([13])
    np.testing.assert_array_equal(floats(tmp_path / "logits.f32"), logits)
    np.testing.assert_array_equal(floats(tmp_path / "out.f32"), session.state)


@pytest.mark.parametrize("size", [1, 4, -4, -1, 4_000_000])
def test_main_rwkv_refuses_a_state_of_another_size(
    run: Run, size: int, golden_file: Callable[[str], Path], tmp_path: Path
) -> None:
    right = 4 * Model(golden_file(NAME)).state_size
    (tmp_path / "in.f32").write_bytes(bytes(right + size if size < 1000 else size))
    done = run(1, "in.f32", "out.f32", "logits.f32")
    assert done.returncode == 1
    assert "in.f32" in done.stderr and "state" in done.stderr
    assert not (tmp_path / "out.f32").exists() and not (tmp_path / "logits.f32").exists()


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("x", "", "o", "l"), "x: not a token"),
        (("1.5", "", "o", "l"), "not a token"),
        (("", "", "o", "l"), "not a token"),
        (("64", "", "o", "l"), "expected one of the vocabulary"),
        (("-1", "", "o", "l"), "expected one of the vocabulary"),
        (("99999999999999999999", "", "o", "l"), "not a token"),
        (("4294967296", "", "o", "l"), "not a token"),
        (("1", ".", "o", "l"), "not a state"),
        (("1", "", "missing/o", "l"), "missing/o"),
        (("1", "", "o", "missing/l"), "missing/l"),
    ],
)
def test_main_rwkv_bad_argument(run: Run, args: tuple[str, ...], word: str) -> None:
    done = run(*args)
    assert done.returncode == 1
    assert word in done.stderr and done.stderr.startswith("main_rwkv: ")
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_main_rwkv_usage_and_missing_model(main_rwkv: Path, run: Run, tmp_path: Path) -> None:
    done = run(1)
    assert done.returncode == 2 and "usage: main_rwkv MODEL TOKEN" in done.stderr
    done = subprocess.run(
        [main_rwkv, "none.bin", "1", "", "o", "l"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and "none.bin" in done.stderr
    assert list(tmp_path.iterdir()) == []
