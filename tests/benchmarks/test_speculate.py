"""The figures of `bench:speculate`: that they are of what they say."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.speculate import Curve, Written, parse, tables
from benchmarks.speculated_texts import DraftThatHolds, Knowing, write

from rwkv_py import Model, Session
from rwkv_py.pass_times import PassTimes

TEXT = list(range(1, 201))


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Model:
    return Model(converted("q4_0"))


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_the_guesses_hold_at_the_rate(rate: float) -> None:
    guesser = Knowing(range(10_000), rate, 5)
    held = []
    for token in range(2_000):
        ((first, *others),) = Knowing.guess([(guesser, 30)])
        assert len(others) == 4
        held.append(first == token)
        guesser.read(token)
    assert sum(held) / len(held) == pytest.approx(rate, abs=0.04)


def test_the_text_that_is_given_is_written(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()  # every pass takes a second: whether to guess depends on it
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(model, "_pass_times", PassTimes())
    session = Session(model)
    rate, none = write(session, TEXT[:1], TEXT[1:], None)
    assert rate > 0
    assert none is None
    _, counts = write(session, TEXT[:1], TEXT[1:], Knowing(TEXT, 1.0, 5))
    assert counts is not None
    assert counts.n_kept == counts.n_guessed > 0


def test_a_draft_is_made_to_hold(model: Model) -> None:
    draft = DraftThatHolds(model, TEXT, 1.0)
    draft.begin(TEXT[:10])
    assert DraftThatHolds.guess([(draft, 4)]) == [TEXT[10:14]]
    for token in TEXT[10:12]:
        draft.read(token)
    assert DraftThatHolds.guess([(draft, 3)]) == [TEXT[12:15]]


def test_the_tables_say_ratios() -> None:
    curves = [Curve("0.4B", 2, 1, 0.010, 0.010, 0.010), Curve("0.4B", 2, 6, 0.012, 0.0126, 0.012)]
    written = [Written("0.4B", "q4_0", "avx2", 2, "80% hold", 100.0, 250.0, 2.5, 0.8, 3.7)]
    cost, texts = tables(curves, written)
    assert cost.rows[1][3:] == ["1.20 ×", "5 %", "0 %"]
    assert texts.rows[0][2:] == ["100", "250", "2.50 ×", "80 %", "3.70"]


def test_docs_need_a_full_run() -> None:
    with pytest.raises(SystemExit):
        parse(["--quick", "--docs"])
