"""A line of limited length, prompts of limited length."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from prompts import ENDLESS, PROMPT, first_piece
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


def test_nobody_fills_the_line_alone(trained: Model) -> None:
    """A share has no more places than are left: alone half of them, and one is always left."""
    with Engine(trained, max_running=1, max_waiting=8) as engine:
        requests = [engine.submit(PROMPT, share="a", **ENDLESS)]
        asked = {"a": 0, "b": 0, "c": 0}
        for share in asked:
            while True:
                try:
                    requests.append(engine.submit("a", share=share, max_tokens=3))
                except EngineFullError as error:
                    refusal = error
                    break
                asked[share] += 1
        assert asked == {"a": 4, "b": 2, "c": 1}
        assert str(refusal).startswith(
            "engine: expected fewer than 1 requests of one client in line while 1 places are free, "
            "got 1. Try "
        )
        requests.append(engine.submit("a", share="d", max_tokens=3))
        with pytest.raises(EngineFullError, match="fewer than 8 requests in line, got 8"):
            engine.submit("a", share="e", max_tokens=3)
        requests[0].cancel()
        assert all(len(request.result()) <= 3 for request in requests[1:])


def test_who_is_nobodys_may_have_the_whole_line(trained: Model) -> None:
    with Engine(trained, max_running=1, max_waiting=4) as engine:
        requests = [engine.submit(PROMPT, **ENDLESS) for _ in range(5)]
        with pytest.raises(EngineFullError, match="fewer than 4 requests in line, got 4"):
            engine.submit(PROMPT, **ENDLESS)
        for request in requests:
            request.cancel()


def test_a_full_line_says_how_long_it_takes(trained: Model) -> None:
    """By what texts took lately: long ones, then short ones."""
    with Engine(trained, max_running=2, max_waiting=0) as engine:

        def said(n_tokens: int, n_texts: int) -> tuple[float, float]:
            took = []
            for _ in range(n_texts):
                text = engine.submit("a", max_tokens=n_tokens, banned_tokens=[0])
                text.result()
                assert text.started_at is not None and text.finished_at is not None
                took.append(text.finished_at - text.started_at)
            at_work = [engine.submit(PROMPT, **ENDLESS) for _ in range(2)]
            with pytest.raises(EngineFullError) as caught:
                engine.submit("b")
            for request in at_work:
                request.cancel()
            return caught.value.retry_seconds, sum(took) / len(took)

        begun = [engine.submit(PROMPT, **ENDLESS) for _ in range(2)]
        for request in begun:
            first_piece(request)
        time.sleep(0.3)
        with pytest.raises(EngineFullError) as caught:  # nobody has left, but those have been there
            engine.submit("b")
        assert caught.value.retry_seconds > 0.1
        for request in begun:
            request.cancel()

        found, took = said(800, 2)
        assert found > took / 8
        found_later, took_later = said(1, 70)
        assert took_later < took / 8 and found_later < found / 3


def test_how_long_a_request_would_wait(trained: Model) -> None:
    with Engine(trained, max_running=2) as engine:
        assert engine.seconds_to_begin == engine.seconds_to_end == 0
        requests = [engine.submit(PROMPT, **ENDLESS)]
        first_piece(requests[0])
        time.sleep(0.3)
        assert engine.seconds_to_begin == 0 and engine.seconds_to_end > 0.2
        requests += [engine.submit(PROMPT, **ENDLESS) for _ in range(4)]
        first_piece(requests[1])
        # Three wait: four must leave, of whom there is one in half the time that a text takes.
        assert engine.seconds_to_begin > 4 * 0.3 / 2
        assert engine.seconds_to_end > engine.seconds_to_begin
        for request in requests:
            request.cancel()


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
        assert len(engine.submit("a" * 10, max_tokens=2, banned_tokens=[0], seed=1).result()) == 2
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


def test_it_tells_whose_requests_there_are(trained: Model) -> None:
    with Engine(trained, max_running=2) as engine:
        assert engine.shares == {}
        asked = [engine.submit(PROMPT, share=share, **ENDLESS) for share in ("a", "b", "a", "")]
        assert engine.shares == {"a": 2, "b": 1, "": 1}
        asked[0].cancel()
        asked[3].cancel()
        assert engine.shares == {"a": 1, "b": 1}
        asked[1].cancel()
        asked[2].cancel()
        assert engine.shares == {}
