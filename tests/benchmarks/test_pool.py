"""The benchmark of the thread pool: its neighbour, and what is expected beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from benchmarks.pool import Decoding, cores_left, neighbour, parse, tables


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def test_neighbour_never_rests_on_its_processor_and_ends() -> None:
    cpu = max(os.sched_getaffinity(0))
    with neighbour(cpu) as pid:
        assert os.sched_getaffinity(pid) == {cpu}
        before = _processor_seconds(pid)
        deadline = time.monotonic() + 20  # the core may be shared with others
        while _processor_seconds(pid) - before < 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_neighbour_that_cannot_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="processor 100000 ended"), neighbour(100_000):
        pass


@pytest.mark.parametrize(
    ("threads", "cores", "share"),
    [(1, 2, 1.0), (2, 2, 0.75), (1, 1, 0.5), (3, 4, 1.0), (4, 4, 0.875)],
)
def test_cores_left_beside_one_busy_core(threads: int, cores: int, share: float) -> None:
    assert cores_left(threads, cores) == share


def test_tables_show_microseconds_and_shares() -> None:
    costs = [
        {
            "threads": 2,
            "region": 1.25e-7,
            "beyond_pieces": 9e-8,
            "run": 3e-7,
            "wake": 1.1e-4,
            "idle": 5e-5,
        }
    ]
    found = [Decoding("0.1B", "q4_0", "avx2", 2, 350.0, 245.0, 0.7, 0.75, 1e-4)]
    alone, beside = tables(costs, found)
    assert alone.rows == [["2", "0.12", "0.09", "0.30", "110", "0.05"]]
    assert beside.rows == [
        ["0.1B, q4_0, avx2, 2 threads", "350", "245", "70 %", "75 %", "0.10"],
    ]
    assert all(len(t.columns) == len(row) for t in (alone, beside) for row in t.rows)


def test_parse_refuses_more_threads_than_cores(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--threads", "100000"])
    assert "--threads: expected 1 to" in capsys.readouterr().err
