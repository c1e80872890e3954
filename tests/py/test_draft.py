"""What a draft model reads of texts, and what it spares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rwkv_py import Engine, Model, Session
from rwkv_py.draft import DraftGuesser
from rwkv_py.prompt import PIECE_TOKENS
from rwkv_py.speculation import Pass, Speculation


@pytest.fixture
def draft(trained: Model) -> Iterator[Model]:
    with Model(trained.path, threads=1) as model:
        yield model


@pytest.fixture
def n_read(draft: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many tokens the draft has read since the last time."""
    read: list[int] = []
    step = Model.step

    def counted(model: Model, work: Any, *rest: Any) -> Any:
        work = list(work)
        if model is draft:
            read.extend(len(tokens) for _, tokens in work)
        return step(model, work, *rest)

    monkeypatch.setattr(Model, "step", counted)

    def since() -> int:
        n = sum(read)
        read.clear()
        return n

    return since


def guesses(guesser: DraftGuesser, text: list[int], n: int = 5) -> list[int]:
    guesser.begin(text)
    while True:
        (found,) = DraftGuesser.guess([(guesser, n)])
        if found:
            return found


def test_a_beginning_is_read_once(draft: Model, n_read: Callable[[], int]) -> None:
    text = list(b"import os  # and so on, for a long while\n" * 20)
    first = guesses(DraftGuesser(draft), text)
    assert n_read() == len(text) + 4
    again = guesses(DraftGuesser(draft), text)
    assert (again, n_read()) == (first, 4)
    longer = text + list(b"import")
    more = guesses(DraftGuesser(draft), longer)
    assert n_read() == len(longer) - len(text) // PIECE_TOKENS * PIECE_TOKENS + 4
    with Model(draft.path, threads=1) as fresh:  # which has nothing to find
        assert guesses(DraftGuesser(fresh), text) == first
        assert guesses(DraftGuesser(fresh), longer) == more


def test_the_next_turn_of_a_conversation_costs_what_is_new(
    trained: Model,
    draft: Model,
    n_read: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompt = "import os  # and so on, for a long while\n" * 30

    def want_one(self: Pass, offers: list[Any]) -> None:
        for offer in offers:
            offer.n_wanted = min(1, offer.limit)

    # It is as large as what it guesses for: no guess would be worth it.
    monkeypatch.setattr(Pass, "_choose", want_one)
    monkeypatch.setattr(Speculation, "_may_lose", lambda self: True)
    with Engine(trained) as engine:
        answer = engine.submit(prompt, max_tokens=20, seed=1, draft=draft).result()
        assert n_read() >= len(prompt)
        turn = prompt + answer + "\nimport sys"
        text = engine.submit(turn, max_tokens=20, seed=1, draft=draft).result()
        assert n_read() < PIECE_TOKENS + 200
    assert text == Session(trained).generate(turn, max_tokens=20, seed=1)
