"""The figures of `ray:bench`: that they are of what they say."""

from __future__ import annotations

import pytest
from benchmarks.ray_actors import Run, parse, tables


def test_all_is_held_against_one_process() -> None:
    runs = [Run("one", 0.0, 10.0, 1000), Run("two", 12.0, 12.5, 1000)]
    (table,) = tables(runs)
    assert table.rows == [
        ["one", "-", "10.0", "100", "100 %"],
        ["two", "12.0", "12.5", "80.0", "80 %"],
    ]
    (short,) = tables([runs[0], Run("two", 12.0, -0.5, 1000)])
    assert short.rows[1] == ["two", "12.0", "-", "-", "-"]


def test_docs_need_a_full_run() -> None:
    with pytest.raises(SystemExit):
        parse(["--quick", "--docs"])
    assert parse(["--quick"]).shape == "0.1B"
    assert parse([]).rows == 512
