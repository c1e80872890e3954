"""Vectors are made for one client at a time, of all its requests that wait."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import numpy as np
import pytest

from rwkv_py import EngineFullError, InvalidArgumentError, Model, embed
from rwkv_py.server import embedding_line
from rwkv_py.server.embedding_line import EmbeddingLine

PROMPTS = [[*f"text number {i}".encode()] for i in range(50)]


class Served:
    """As much of a served model as texts are read with."""

    def __init__(self, model: Model):
        self.model = model
        self.tokenizer = None


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were read in each turn."""
    found: list[int] = []

    def counted(model: Model, prompts: Any, **options: Any) -> Any:
        found.append(len(prompts))
        return embed(model, prompts, **options)

    monkeypatch.setattr(embedding_line, "embed", counted)
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Readings wait: the first event says that one has begun, the second lets all go on."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(model: Model, prompts: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return embed(model, prompts, **options)

    monkeypatch.setattr(embedding_line, "embed", wait)
    return begun, go_on


def test_what_waits_is_read_together(pychat: Model, reads: list[int]) -> None:
    served: Any = Served(pychat)

    async def ask() -> list[Any]:
        line = EmbeddingLine(100)
        wanted = [line.embed(served, [prompt], "mean", "a") for prompt in PROMPTS]
        return await asyncio.gather(*wanted)

    vectors = np.concatenate(asyncio.run(ask()))
    np.testing.assert_array_equal(vectors, embed(pychat, PROMPTS))
    assert sorted(reads) == [18, 32]


def test_not_with_others(pychat: Model, reads: list[int]) -> None:
    """Of another client, or in another way."""
    served: Any = Served(pychat)

    async def ask() -> None:
        line = EmbeddingLine(100)
        asked = [("a", "mean"), ("b", "mean"), ("a", "last"), ("a", "mean"), ("b", "mean")]
        wanted: list[Any] = [line.embed(served, [PROMPTS[0]], p, share) for share, p in asked]  # type: ignore[arg-type]
        found = await asyncio.gather(*wanted)
        for vectors, (_, pooling) in zip(found, asked, strict=True):
            expected = embed(pychat, [PROMPTS[0]], pooling=pooling)  # type: ignore[arg-type]
            np.testing.assert_array_equal(vectors, expected)

    asyncio.run(ask())
    assert sorted(reads) == [1, 2, 2]


def test_a_fault_is_told_to_whoever_sent_it(pychat: Model) -> None:
    served: Any = Served(pychat)

    async def ask() -> list[Any]:
        line = EmbeddingLine(100)
        asked = [[PROMPTS[0]], [[]], [PROMPTS[1]], [[99999]], [PROMPTS[2]]]
        wanted = [line.embed(served, prompts, "mean", "a") for prompts in asked]
        return await asyncio.gather(*wanted, return_exceptions=True)

    found = asyncio.run(ask())
    for i, prompt in ((0, PROMPTS[0]), (2, PROMPTS[1]), (4, PROMPTS[2])):
        np.testing.assert_array_equal(found[i], embed(pychat, [prompt]))
    assert isinstance(found[1], InvalidArgumentError)
    assert isinstance(found[3], Exception)


def test_who_goes_away_does_not_take_others_along(
    pychat: Model, held: tuple[threading.Event, threading.Event]
) -> None:
    served: Any = Served(pychat)
    begun, go_on = held

    async def ask() -> None:
        line = EmbeddingLine(100)
        long = [PROMPTS[0] * 300]
        tasks = [asyncio.create_task(line.embed(served, long, "mean", "a"))]
        tasks += [
            asyncio.create_task(line.embed(served, [prompt], "mean", "a")) for prompt in PROMPTS[:5]
        ]
        assert await asyncio.to_thread(begun.wait, 60)
        tasks[0].cancel()
        tasks[3].cancel()
        go_on.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        for i in (1, 2, 4, 5):
            np.testing.assert_array_equal(found[i], embed(pychat, [PROMPTS[i - 1]]))
        assert not line._wanted
        await line.embed(served, [PROMPTS[0]], "mean", "b")  # whose turn it is now

    asyncio.run(ask())


def test_cancelled_twice_it_leaves_no_complaint(
    pychat: Model, held: tuple[threading.Event, threading.Event]
) -> None:
    """As at the end of a command: once by whoever waits, once by the loop, which ends all tasks."""
    served: Any = Served(pychat)
    begun, go_on = held
    complaints: list[dict[str, Any]] = []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        before = asyncio.all_tasks()
        task = asyncio.create_task(embedding_line._embed(served, [PROMPTS[0]], "mean"))
        assert await asyncio.to_thread(begun.wait, 60)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({task})
        assert task.cancelled()
        go_on.set()
        await asyncio.wait(asyncio.all_tasks() - before)  # the one that reads
        gc.collect()

    asyncio.run(ask())
    assert complaints == []


def test_a_full_line_is_refused(pychat: Model) -> None:
    served: Any = Served(pychat)

    async def ask() -> list[Any]:
        line = EmbeddingLine(2)
        wanted = [line.embed(served, [PROMPTS[0]], "mean", "a") for _ in range(5)]
        return await asyncio.gather(*wanted, return_exceptions=True)

    refused = [isinstance(each, EngineFullError) for each in asyncio.run(ask())]
    assert True in refused
    assert False in refused
