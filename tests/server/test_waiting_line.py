"""The line of those who wait: how many places one client may have, how long the others take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

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
            assert told() == 1
            time.sleep(2.1)
            assert told() >= 3  # texts take more than 2 s here
        wait_for(lambda: idle(client))


def test_who_embeds_much_keeps_nobody_waiting(serve: Serve, pychat_file: Path) -> None:
    """Neither those who write, nor those who embed little; and nobody fills that line alone."""
    with serve({"m": pychat_file}, max_waiting=6, api_keys=("much", "little")) as client:
        much, little = ({"x-api-key": key} for key in ("much", "little"))
        found: list[int] = []
        long = {"input": ["import this " * 150] * 2}

        def embed() -> None:
            answer = client.post("/v1/embeddings", json=long, headers=much)
            found.append(answer.status_code)

        threads = [threading.Thread(target=embed) for _ in range(10)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(found) == 6)
        assert found == [429] * 6  # one at work, three in line
        for path, ask in (
            ("/v1/completions", {"prompt": "a", "max_tokens": 3}),
            ("/v1/embeddings", {"input": "a"}),
        ):
            assert client.post(path, json=ask, headers=little).status_code == 200
            assert len(found) < 9  # before those in line
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
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/embeddings", json={"input": ["import this " * 1000] * 20}, timeout=0.3)
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
