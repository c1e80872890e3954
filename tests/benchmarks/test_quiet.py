"""Figures for the documentation are measured on a quiet machine, or not kept."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import pytest
from benchmarks.figures import Figure, Measurements
from benchmarks.pool import neighbour

from benchmarks import figures, quiet, speed

RUN = {
    "cpu": "a processor",
    "cpu_family_model": "1/2",
    "physical_cores": 2,
    "commit": "1234567",
    "date": "2026-01-01",
}


def test_a_busy_process_is_seen() -> None:
    others = quiet.Others()
    with neighbour(max(os.sched_getaffinity(0))):
        for _ in range(5):
            others.look()
    assert others.median() > quiet.QUIET


def test_our_own_waiting_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    busy = iter([0, 2 * ticks])  # user + nice + system + irq + softirq + steal; not idle, not disk

    def read_text(self: Path) -> str:
        assert self == Path("/proc/stat")
        n = next(busy)
        return f"cpu  {n} {n} {n} 999 999 {n} {n} {n} 0 0\ncpu0 1 2 3\n"

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", iter([10.0, 14.0]).__next__)
    assert quiet.Others().look() == pytest.approx(6 * 2 / 4)


def test_median_begins_anew() -> None:
    others = quiet.Others()
    others._seen = [1.0, 5.0, 2.0]
    assert others.median() == 2.0
    others._seen = [3.0]
    assert others.median() == 3.0


def test_a_machine_that_is_not_quiet_is_refused() -> None:
    quiet.require(quiet.QUIET)
    with pytest.raises(SystemExit, match=r"at most 0\.1 cores in use, got 0\.50"):
        quiet.require(0.5)


@pytest.mark.parametrize("docs", [False, True])
def test_disturbed_figures_are_named_and_not_kept(
    docs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "DATA", tmp_path)
    calm = Figure("0.1B", "q4_0", "avx2", 2, "decode", 300.0, 0.8, others=0.01)
    loud = Figure("0.1B", "q4_0", "avx2", 2, "prefill 512", 10.0, 0.1, others=0.7)
    args = argparse.Namespace(docs=docs, markdown=False, output=tmp_path / "out")
    found = Measurements(figures=[calm, loud])
    if docs:
        with pytest.raises(SystemExit, match=r"0\.1B q4_0 avx2 2 prefill 512 \(0\.70\)$"):
            speed.publish(args, "bench", RUN, found)
        kept = figures.read(tmp_path / "speed.json")
        assert [(f.work, f.run) for f in kept.figures] == [("decode", "bench 1234567 2026-01-01")]
    else:
        speed.publish(args, "bench", RUN, found)
        assert not (tmp_path / "speed.json").exists()
    assert (tmp_path / "out.json").exists()


@pytest.mark.parametrize("module", ["speed", "peers", "pool"])
def test_commands_look_before_they_measure(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --docs on a busy machine nothing is measured."""
    from benchmarks import machine, peers, pool

    command = {"speed": speed, "peers": peers, "pool": pool}[module]
    monkeypatch.setattr("sys.argv", [module, "--docs"])
    monkeypatch.setattr(machine, "build_native", lambda: None)
    monkeypatch.setattr(speed, "model_file", lambda *_: Path("model.bin"))
    monkeypatch.setattr(machine, "levels", lambda: ["reference", "avx2"])
    monkeypatch.setattr(peers, "pairs_of", lambda *_: ["a pair"])
    monkeypatch.setattr(quiet, "now", lambda: 1.5)
    for name in ("describe", "Limits"):
        monkeypatch.delattr(machine, name)
    with pytest.raises(SystemExit, match=r"expected at most 0\.1 cores in use, got 1\.50"):
        command.main()
