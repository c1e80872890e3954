"""The line of those who wait: how many places one client may have, how long the others take."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rwkv_py import Model, embed
from rwkv_py.server import embedding_line
from rwkv_py.server.turns import Turns
from server.serving import Serve, idle, wait_for

ENDLESS: dict[str, Any] = {"max_tokens": 16384, "logit_bias": {"0": -100}, "seed": 1}


def in_line(client: httpx.Client) -> int:
    (served,) = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    return int(served.engine.n_running + served.engine.n_waiting)


@contextmanager
def asking(client: httpx.Client, n: int, headers: dict[str, str]) -> Iterator[list[int]]:
    """So many endless texts, one after the other; yields the states of those that were refused."""
    refused: list[int] = []
    streams: list[threading.Thread] = []
    leave = threading.Event()
    before = in_line(client)

    def ask() -> None:
        body = {"prompt": "a", "stream": True, **ENDLESS}
        with client.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
            if answer.status_code != 200:
                refused.append(answer.status_code)
            leave.wait()

    try:
        for i in range(n):
            streams.append(threading.Thread(target=ask))
            streams[-1].start()
            wait_for(lambda i=i: in_line(client) - before + len(refused) > i)  # type: ignore[misc]
        yield refused
    finally:
        leave.set()
        for stream in streams:
            stream.join()


def test_a_client_cannot_fill_the_line_alone(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, max_running=1, max_waiting=6, api_keys=("much", "little")) as c:
        much, little = ({"x-api-key": key} for key in ("much", "little"))
        with asking(c, 7, much) as refused:
            assert refused == [429] * 3  # one at work, and half of the line
            answer = c.post("/v1/completions", json={"prompt": "a"}, headers=much)
            assert answer.status_code == 429
            assert "requests of one client in line" in answer.json()["error"]["message"]
            with asking(c, 2, little) as none_refused:
                assert none_refused == []
        wait_for(lambda: idle(c))


def test_retry_after_is_measured(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, max_running=1, max_waiting=0) as client:

        def told() -> int:
            answer = client.post("/v1/completions", json={"prompt": "a"})
            assert answer.status_code == 429
            return int(answer.headers["retry-after"])

        with asking(client, 1, {}):
            first = told()
            assert 1 <= first < 10
            time.sleep(2.1)
            assert told() >= first + 2  # so much longer do texts take here
        wait_for(lambda: idle(client))


def test_retry_after_of_whose_turn_did_not_come(serve: Serve, pychat_file: Path) -> None:
    """By how long the one at work has been there."""
    with serve({"m": pychat_file}, max_running=1, max_waiting=4, max_seconds=0.4) as client:
        (served,) = client.app.state.context.models.loaded  # type: ignore[attr-defined]
        at_work = served.engine.submit("a", max_tokens=100_000, banned_tokens=[0])
        wait_for(lambda: at_work.started_at is not None)
        time.sleep(1.7)
        for path in ("/v1/completions", "/v1/states"):
            answer = client.post(path, json={"prompt": "a"})
            assert answer.status_code == 503
            assert "in time, got none" in answer.json()["error"]["message"]
            assert 3 <= int(answer.headers["retry-after"]) <= 30
        at_work.cancel()


def test_how_long_turns_take() -> None:
    async def live() -> list[float]:
        turns = Turns(4)
        found = [turns.seconds_to_begin]
        for _ in range(2):
            async with turns.turn("a"):
                await asyncio.sleep(0.1)
                found.append(turns.seconds_to_begin)
                waiting = asyncio.ensure_future(turns.turn("b").__aenter__())
                await asyncio.sleep(0)
                found.append(turns.seconds_to_begin)
                waiting.cancel()
                await asyncio.sleep(0)
            found.append(turns.seconds_to_begin)
        return found

    nobody, first, beside, after, *later = asyncio.run(live())
    assert (nobody, after, later[-1]) == (0, 0, 0)
    assert first >= 0.1 and beside >= 2 * first
    assert later[0] >= 0.1 and later[1] == 2 * later[0]


def test_who_goes_away_when_its_turn_comes_keeps_nobody_waiting() -> None:
    """Just before the turn is given, and just after: the next has it."""

    async def live() -> list[str]:
        turns, had = Turns(9), []

        async def work(name: str) -> None:
            async with turns.turn(name):
                had.append(name)

        for gone in ("before", "after"):
            async with turns.turn("first"):
                waiting = [asyncio.ensure_future(work(f"{gone} {i}")) for i in range(2)]
                await asyncio.sleep(0)
                if gone == "before":
                    waiting[0].cancel()
            waiting[0].cancel()
            await asyncio.wait(waiting, timeout=5)
        return had

    assert asyncio.run(live()) == ["before 1", "after 1"]


def test_who_embeds_much_keeps_nobody_waiting(
    serve: Serve, pychat_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those who write, nor those who embed little; and nobody fills that line alone."""
    may_read = threading.Semaphore(0)  # so many of the long ones; the others as they come

    def held(model: Model, prompts: Any, **options: Any) -> Any:
        if len(prompts[0]) > 1000:
            may_read.acquire(timeout=60)
        return embed(model, prompts, **options)

    monkeypatch.setattr(embedding_line, "embed", held)
    with serve({"m": pychat_file}, max_waiting=6, api_keys=("much", "little")) as client:
        turns = client.app.state.context.embedding._turns  # type: ignore[attr-defined]
        much, little = ({"x-api-key": key} for key in ("much", "little"))
        found: list[int] = []
        long = {"input": ["import this " * 150] * 2}

        def ask() -> None:
            answer = client.post("/v1/embeddings", json=long, headers=much)
            found.append(answer.status_code)

        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(found) == 6)
        assert found == [429] * 6  # one at work, three in line
        text = {"prompt": "a", "max_tokens": 3}
        assert client.post("/v1/completions", json=text, headers=little).status_code == 200
        with ThreadPoolExecutor(1) as pool:
            vector = pool.submit(client.post, "/v1/embeddings", json={"input": "a"}, headers=little)
            wait_for(lambda: len(turns._waiting) == 4)
            may_read.release()
            assert vector.result().status_code == 200  # before those in line
        may_read.release(3)
        for thread in threads:
            thread.join()
        assert found[6:] == [200] * 4
        wait_for(lambda: idle(client))


def test_who_embeds_too_much_is_refused(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, max_seconds=0.2) as client:
        answer = client.post("/v1/embeddings", json={"input": ["import this " * 1000] * 20})
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == (
            "server: expected to have read all within 0.2 s, got no further"
        )
        assert idle(client)
    with serve({"m": pychat_file}) as client:  # and the turn is another's
        soon = httpx.Timeout(60, read=0.3)
        with pytest.raises(httpx.ReadTimeout):
            client.post(
                "/v1/embeddings", json={"input": ["import this " * 1000] * 20}, timeout=soon
            )
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
