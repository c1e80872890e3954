"""The work that `rwkv batch` and `Engine` are measured by, and its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import batch


def test_the_work_is_of_mixed_length_and_the_same_again(tmp_path: Path) -> None:
    bodies = batch.requests(300, 64, 1000)
    assert bodies == batch.requests(300, 64, 1000)
    lengths = {len(body["prompt"]) for body in bodies}
    assert min(lengths) < 5 and 60 < max(lengths) <= 64
    assert {body["max_tokens"] for body in bodies} == set(range(1, 33))
    assert all(0 < token < 1000 for body in bodies for token in body["prompt"])
    batch.write_lines(bodies, tmp_path / "in")
    lines = [json.loads(line) for line in (tmp_path / "in").open()]
    assert len({line["custom_id"] for line in lines}) == 300
    assert lines[7]["body"] == {**bodies[7], "logit_bias": {"0": -100.0}}


@pytest.mark.slow
def test_both_do_it(
    tmp_path: Path, converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shipped model, whose tokens are bytes."""
    monkeypatch.setattr(batch, "BUILD", tmp_path)
    batch.write_lines(batch.requests(4, 8, 256), tmp_path / "in")
    args = batch.parse(["--threads", "1"])
    for name in (batch.ENGINE, batch.OURS):
        seconds, whole = batch.once(name, converted("q4_0"), tmp_path / "in", args)
        assert 0 < seconds < whole


def test_table() -> None:
    runs = [
        batch.Run(batch.ENGINE, 95.0, 97.0, 500, 950),
        batch.Run(batch.OURS, 100, 103, 500, 950),
    ]
    (table,) = batch.tables(runs)
    assert table.rows[0] == ["Engine alone", "95.0", "10.0", "15.3", "100 %", "97.0"]
    assert table.rows[1] == ["rwkv batch", "100", "9.50", "14.5", "95 %", "103"]


def test_options() -> None:
    args = batch.parse([])
    assert (args.shape, args.prompts, args.longest, args.repeats) == ("0.1B", 2000, 256, 3)
    for wrong in (["--quick", "--docs"], ["--longest", "1"]):
        with pytest.raises(SystemExit):
            batch.parse(wrong)
