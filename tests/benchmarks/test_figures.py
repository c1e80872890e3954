"""The table of measurements: each figure once, nothing lost, nothing mixed up between machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.figures import (
    Agreement,
    Figure,
    Measurements,
    Multiplying,
    Opening,
    Peer,
    Reading,
    as_text,
    best,
    keep,
    machine_name,
    read,
    run_name,
)

from benchmarks import tables

RUN = {
    "cpu": "a processor",
    "cpu_family_model": "1/2",
    "physical_cores": 2,
    "commit": "1234567",
    "date": "2026-01-01",
}
OLDER = {**RUN, "commit": "0000000", "date": "2025-01-01"}
ELSEWHERE = {**OLDER, "cpu": "another"}
LLAMA = Peer("llama.cpp, AVX2", 200.0, 1.5)


def figure(**changes: Any) -> Figure:
    values = {
        "model": "0.4B",
        "type": "q4_0",
        "level": "avx2",
        "threads": 2,
        "work": "decode",
        "tokens_per_s": 300.0,
        "share": 0.8,
    }
    return Figure(**{**values, **changes})


def measured(*rows: Figure, run: dict[str, Any] = RUN, command: str = "bench") -> Measurements:
    return Measurements(figures=list(rows)).named(run_name(command, run), run)


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    assert read(path) == Measurements()
    whole = Measurements(
        figures=[figure(peers=(LLAMA,), others=0.02), figure(share=None, work="prefill 512")],
        openings=[Opening("0.1B", "q4_0", "avx2", 1, 0.1, 3, 2, 1)],
        reading=[Reading(100, 1, 2.0, 1.0, 3.0)],
        multiplying=[Multiplying("avx2", 1, 3.0, 0.0, 2.0)],
        agreements=[Agreement("0.4B", "fp16", "llama.cpp", 1.0, 5.0, 16, 16)],
    ).named("bench 1", RUN)
    path.write_text(as_text(whole))
    assert read(path) == whole


def test_new_figures_replace_their_like_and_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    keep(path, measured(figure(), figure(work="prefill 512"), run=OLDER))
    keep(path, measured(figure(tokens_per_s=400.0), figure(type="q8_0")))
    found = [(f.type, f.work, f.tokens_per_s, f.run) for f in read(path).figures]
    assert found == [
        ("q4_0", "decode", 400.0, "bench 1234567 2026-01-01"),
        ("q4_0", "prefill 512", 300.0, "bench 0000000 2025-01-01"),
        ("q8_0", "decode", 300.0, "bench 1234567 2026-01-01"),
    ]


def test_a_run_whose_last_figure_was_replaced_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    keep(path, measured(figure(), run=OLDER))
    keep(path, measured(figure()))
    assert list(read(path).runs) == ["bench 1234567 2026-01-01"]


def test_figures_of_another_machine_stay(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    keep(path, measured(figure(), run=ELSEWHERE))
    keep(path, measured(figure(tokens_per_s=400.0)))
    whole = read(path)
    assert [f.tokens_per_s for f in whole.figures] == [300.0, 400.0]
    here, there = whole.machines()  # the one that measured last comes first
    assert here == machine_name(RUN)
    assert [f.tokens_per_s for f in whole.of(there).figures] == [300.0]
    assert [f.tokens_per_s for f in whole.of(here).figures] == [400.0]


def test_figure_in_turns_with_peers_is_replaced_by_another_such_alone(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    keep(path, measured(figure(peers=(LLAMA,)), run=OLDER, command="bench:peers"))
    keep(path, measured(figure(tokens_per_s=60.0)))
    assert [f.tokens_per_s for f in read(path).figures] == [300.0]
    keep(path, measured(figure(tokens_per_s=310.0, peers=(LLAMA,)), command="bench:peers"))
    assert [f.tokens_per_s for f in read(path).figures] == [310.0]


def test_disturbed_figures_are_parted_from_the_others() -> None:
    calm, loud, old = figure(others=0.1), figure(others=0.11, work="prefill 512"), figure()
    kept, disturbed = measured(calm, loud, old).parted(0.1)
    assert [f.others for f in kept.figures] == [0.1, None]
    assert [f.others for f in disturbed] == [0.11]


def test_best_is_the_highest_level_of_each_type_with_all_threads() -> None:
    rows = [
        figure(peers=(LLAMA,)),
        figure(level="avx512_vnni", peers=(Peer("llama.cpp", 100.0, 3.0),)),
        figure(level="avx512_vnni", threads=1, peers=(Peer("llama.cpp", 100.0, 3.0),)),
        figure(type="fp16", peers=(LLAMA,)),
        figure(type="fp32", peers=(Peer("rwkv package, fp32", 1.0, 9.0),)),
        figure(model="0.1B", peers=(LLAMA,)),
    ]
    assert best(rows, "0.4B") == [rows[1], rows[3]]


def test_digest_shows_ours_and_the_ratio() -> None:
    rows = [figure(peers=(LLAMA,)), figure(type="q8_0", work="prefill 512", peers=(LLAMA,))]
    table = tables.digest(rows, "0.4B")
    assert table.columns == ["", "q4_0", "q8_0"]
    assert table.rows == [["decode", "300 (1.50 ×)", "-"], ["prefill 512", "-", "300 (1.50 ×)"]]


def test_tables_show_every_figure_with_its_run() -> None:
    rows = [
        figure(run="a"),
        figure(level="reference", share=None, run="b"),
        figure(model="1.5B", work="prefill 512", threads=1),
    ]
    small, large = tables.speed(rows, {"a": "A", "b": "B"})
    assert small.columns == ["0.4B", "decode", "prefill 512"]
    assert small.rows == [
        ["q4_0, reference, 2 threads", "300B", "-"],
        ["q4_0, avx2, 2 threads", "300A (80 %)", "-"],
    ]
    assert large.rows == [["q4_0, avx2, 1 thread", "-", "300 (80 %)"]]


@pytest.mark.parametrize(("runs", "expected"), [(1, {}), (2, {"0": "a", "1": "b"})])
def test_runs_have_letters_where_there_are_several(runs: int, expected: dict[str, str]) -> None:
    assert tables.marks(Measurements({str(i): RUN for i in range(runs)})) == expected


def test_table_of_peers_holds_ours_against_each() -> None:
    row = figure(peers=(LLAMA, Peer("rwkv package, bf16", 30.0, 10.0)))
    (table,) = tables.peers([row, figure(work="16 sequences")])
    assert table.rows == [
        ["q4_0, avx2, 2 threads; llama.cpp, AVX2", "300 : 200 = 1.50 ×"],
        ["q4_0, avx2, 2 threads; rwkv package, bf16", "300 : 30.0 = 10.00 ×"],
    ]
