"""A line of limited length, prompts of limited length."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from prompts import ENDLESS, PROMPT
from rwkv_py import (
    Engine,
    EngineClosedError,
    EngineFullError,
    InvalidArgumentError,
    Model,
    Request,
    Session,
)


def test_a_full_line_refuses(trained: Model) -> None:
    with Engine(trained, max_running=1, max_waiting=2) as engine:
        running = engine.submit(PROMPT, **ENDLESS)
        waiting = [engine.submit("a", max_tokens=3) for _ in range(2)]
        for _ in range(2):
            with pytest.raises(
                EngineFullError, match="engine: expected fewer than 2 requests in line, got 2"
            ) as caught:
                engine.submit("b", max_tokens=3)
            assert "max_waiting=" in caught.value.remedy
        waiting[0].cancel()
        waiting.append(engine.submit("c", max_tokens=3))  # in the place of the one that left
        with pytest.raises(EngineFullError):
            engine.submit("b")
        running.cancel()
        assert all(len(request.result()) <= 3 for request in waiting)
        engine.submit("d", max_tokens=3).result()


def test_a_batch_waits_for_room(trained: Model) -> None:
    with Engine(trained, max_running=2, max_waiting=0) as engine:
        texts = engine.generate_batch([PROMPT] * 7, max_tokens=9, temperature=0)
        assert texts == [Session(trained).generate(PROMPT, max_tokens=9, temperature=0)] * 7


def test_a_batch_that_waits_for_room_hears_that_the_engine_closes(trained: Model) -> None:
    engine = Engine(trained, max_running=1, max_waiting=0)
    blocking = engine.submit(PROMPT, **ENDLESS)
    threading.Timer(0.2, engine.close, kwargs={"cancel": True}).start()
    with pytest.raises(EngineClosedError):
        engine.generate_batch([PROMPT] * 3, max_tokens=3)
    assert blocking.finish_reason == "cancelled"


def test_a_batch_that_fails_cancels_what_it_asked_for(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Request] = []
    join = Engine._join
    monkeypatch.setattr(
        Engine, "_join", lambda self, task, **o: (made.append(task.request), join(self, task, **o))
    )
    with Engine(trained) as engine:
        with pytest.raises(InvalidArgumentError):
            engine.generate_batch([PROMPT, PROMPT, None], **ENDLESS)  # type: ignore[list-item]
        assert [request.finish_reason for request in made] == ["cancelled"] * 2


def test_long_prompts_are_refused(trained: Model) -> None:
    with Engine(trained, max_prompt_tokens=10) as engine:
        assert len(engine.submit("a" * 10, max_tokens=2, banned_tokens=[0]).result()) == 2
        for prompt in ("a" * 11, [65] * 11):
            with pytest.raises(
                InvalidArgumentError, match="prompt: expected at most 10 tokens, got 11"
            ):
                engine.submit(prompt)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_waiting": -1}, "max_waiting: expected 0 or more, got -1"),
        ({"max_waiting": "4"}, "max_waiting: expected a whole number, got '4'"),
        ({"max_running": 1.5}, "max_running: expected a whole number, got 1.5"),
        ({"max_running": True}, "max_running: expected a whole number, got True"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens: expected 1 or more, got 0"),
        ({"max_runing": 3}, r"^Engine: expected an argument .* 'max_runing'\. Try max_running$"),
    ],
)
def test_bounds_are_checked(trained: Model, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Engine(trained, **arguments)
