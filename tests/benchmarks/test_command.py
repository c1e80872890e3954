"""What benchmarks have in common as commands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import command, machine, quiet, report

TABLE = report.Table("Speeds", ["", "tokens per second"], [["ours", "7"]])


def options(tmp_path: Path, *given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=tmp_path / "found")
    return command.parse(parser, list(given))


def test_a_quick_run_is_none_for_the_docs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(tmp_path, "--quick", "--docs")
    assert "--docs: expected a full run, got --quick" in capsys.readouterr().err
    assert options(tmp_path, "--quick").quick


@pytest.mark.parametrize("busy", ["never", "before", "meanwhile"])
def test_only_what_a_quiet_machine_gave_is_kept(
    busy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "DATA", tmp_path)
    monkeypatch.setattr(machine, "describe", lambda: {"cpu": "one"})
    monkeypatch.setattr(quiet, "now", lambda: 1.0 if busy == "before" else 0.0)
    monkeypatch.setattr(quiet.Others, "median", lambda _: 1.0 if busy == "meanwhile" else 0.0)
    n_measured = 0

    def measure(args: argparse.Namespace, others: quiet.Others) -> command.Found:
        nonlocal n_measured
        n_measured += 1
        return [TABLE], {"speed": 7}

    args = options(tmp_path, "--docs", "--markdown")
    if busy == "never":
        command.run("speeds", args, measure)
        found = {"machine": {"cpu": "one"}, "speed": 7}
        assert json.loads((tmp_path / "speeds.json").read_text()) == found
        assert json.loads((tmp_path / "found.json").read_text()) == found
        assert "| ours | 7 |" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit, match="--docs: other processes, expected at most"):
        command.run("speeds", args, measure)
    assert n_measured == (busy == "meanwhile")
    assert not (tmp_path / "speeds.json").exists()
