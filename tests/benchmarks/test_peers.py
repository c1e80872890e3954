"""Who is held against whom, and that they take turns."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.figures import Figure, Peer
from benchmarks.models import SHAPES
from benchmarks.peers import TYPES, Contender, compare, default_levels, opponents, pairs_of, parse
from benchmarks.speed import Task, tasks

from benchmarks import peers, quiet

HERE = ["reference", "avx2", "avx512", "avx512_vnni"]


def test_types_have_the_peers_that_offer_them() -> None:
    assert all("llama.cpp" in TYPES[t] for t in ("q4_0", "q8_0", "fp16"))
    assert "rwkv package, bf16" in TYPES["fp16"]
    assert TYPES["fp32"] == ("rwkv package, fp32",)


@pytest.mark.parametrize(
    ("name", "levels", "expected"),
    [
        ("llama.cpp, AVX2", HERE, ["avx2"]),
        ("llama.cpp, AVX2", ["avx512"], []),
        ("llama.cpp", ["avx2", "avx512", "amx"], ["avx512", "amx"]),
        ("llama.cpp", ["neon", "neon_dotprod"], ["neon", "neon_dotprod"]),
        ("rwkv package, fp32", HERE, ["avx512_vnni"]),
    ],
)
def test_opponents_are_built_for_the_same(
    name: str, levels: list[str], expected: list[str]
) -> None:
    assert opponents(name, levels) == expected


def test_default_levels_are_all_in_4_bits_else_two() -> None:
    assert default_levels("q4_0", HERE) == ["avx2", "avx512", "avx512_vnni"]
    assert default_levels("q8_0", HERE) == ["avx2", "avx512_vnni"]
    assert default_levels("fp16", ["reference", "avx2"]) == ["avx2"]


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers and files that take minutes to make."""
    monkeypatch.setattr(peers, "llama_cpp", lambda avx2_only: Path(f"python-{avx2_only}"))
    monkeypatch.setattr(peers, "rwkv_package", lambda: Path("python-rwkv"))
    monkeypatch.setattr(peers, "gguf_file", lambda shape, dtype: Path(f"{dtype}.gguf"))
    monkeypatch.setattr(peers, "pth_file", lambda shape: Path("model.pth"))
    monkeypatch.setattr(peers, "model_file", lambda shape, dtype: Path(f"{dtype}.bin"))


@pytest.mark.usefixtures("nothing_is_made")
def test_pairs_of_fp16_are_each_level_with_its_peers() -> None:
    pairs = pairs_of(SHAPES["0.1B"], "fp16", ["avx2", "avx512"], peers.PEERS)
    assert [(us.level, them.name, them.engine, str(them.python)) for us, them in pairs] == [
        ("avx2", "llama.cpp, AVX2", "llama_cpp", "python-True"),
        ("avx512", "llama.cpp", "llama_cpp", "python-False"),
        ("avx512", "rwkv package, bf16", "rwkv_package:bf16", "python-rwkv"),
    ]
    assert {str(us.path) for us, _ in pairs} == {"fp16.bin"}


@pytest.mark.usefixtures("nothing_is_made")
def test_pairs_of_chosen_peers_alone() -> None:
    pairs = pairs_of(SHAPES["0.1B"], "fp16", ["avx2", "avx512"], ["rwkv"])
    assert [them.name for _, them in pairs] == ["rwkv package, bf16"]
    assert pairs_of(SHAPES["0.1B"], "q4_0", ["avx2"], ["rwkv"]) == []


class FakeWorker:
    """Answers with times that are written down, and notes who was asked."""

    def __init__(self, name: str, seconds: list[float], asked: list[tuple[str, str]]) -> None:
        self.opened = {"engine": name}
        self._name, self._seconds, self._asked = name, seconds, asked

    def ask(self, work: str, **_: Any) -> dict[str, float]:
        self._asked.append((self._name, work))
        turn = sum(1 for asked in self._asked if asked == (self._name, work))
        return {"seconds": self._seconds[turn - 1]}


class Limits:
    """Says what the machine can do, and notes what was asked."""

    def __init__(self, seconds: list[float]) -> None:
        self.asked: list[tuple[int, int, str]] = []
        self._seconds = iter(seconds)

    def measure(self, n_bytes: int, threads: int, level: str) -> float:
        self.asked.append((n_bytes, threads, level))
        return next(self._seconds)


def test_compare_takes_turns_and_gives_the_median_of_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str]] = []
    # The machine is three times slower in the third turn: ratios 2, 2, 2; rates 1, 0.5, 1/3.
    seconds = {"ours": [1.0, 2.0, 3.0], "rwkv": [2.0, 4.0, 6.0]}

    @contextmanager
    def opened(self: Contender, threads: int) -> Iterator[FakeWorker]:
        assert threads == 2
        yield FakeWorker(self.name, seconds[self.name], asked)

    monkeypatch.setattr(Contender, "open", opened)
    us = Contender("ours", "runtime", Path(), level="avx2")
    them = Contender("rwkv", "rwkv_package:bf16", Path())
    # Half of the limit in the first turn, a quarter in the second, a sixth in the third.
    limits = Limits([0.5, 0.5, 0.5] * 2)
    monkeypatch.setattr(peers, "work_of", lambda path: SimpleNamespace(decode_bytes=7))
    monkeypatch.setattr(peers, "model_file", lambda shape, dtype: Path(dtype))

    def limited(*arguments: Any) -> list[Task]:
        return [replace(task, limit=lambda work, rates: rates) for task in tasks(*arguments)]

    monkeypatch.setattr(peers, "tasks", limited)
    looks = iter([0.0, 0.3, 0.1, 0.0, 0.2, 0.0])
    monkeypatch.setattr(quiet.Others, "look", lambda self: self._seen.append(next(looks)))
    args = argparse.Namespace(repeats=3, seconds=1.0)
    found = compare(SHAPES["0.1B"], "fp16", 2, [(us, them)], args, limits)
    # No many sequences: the package cannot.
    works = [work for work in ("decode", "prefill") for _ in range(6)]
    assert asked == [(name, w) for name, w in zip(["ours", "rwkv"] * 6, works, strict=True)]
    assert limits.asked == [(7, 2, "avx2")] * 6
    assert found == [
        Figure("0.1B", "fp16", "avx2", 2, work, n / 2, 0.25, (Peer("rwkv", n / 4, 2.0),), others)
        for work, n, others in (("decode", 1, 0.1), ("prefill 512", 512, 0.0))
    ]


def test_contender_can_do_what_its_engine_can() -> None:
    decode, prefill, concurrent = tasks([512], [16])
    package = Contender("p", "rwkv_package:fp32", Path())
    assert [package.can(task) for task in (decode, prefill, concurrent)] == [True, True, False]
    assert Contender("l", "llama_cpp", Path()).can(concurrent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--docs", "--quick"], "--docs: expected a full run, got --quick"),
        (["--types", "q9"], "--types: expected some of q4_0, q8_0, q4_K_M, fp16, fp32, got q9"),
        (["--peers", "llama"], "--peers: expected some of llama.cpp, rwkv, got llama"),
        (["--shapes", "9B"], "--shapes: expected some of 0.1B"),
    ],
)
def test_parse_refuses_unknown_names(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err
