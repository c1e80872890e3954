"""What a request tells, and what asyncio makes of it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import numpy as np
import pytest

from prompts import ENDLESS, PROMPT, first_piece
from rwkv_py import (
    Engine,
    InvalidArgumentError,
    Model,
    PrefixCache,
    Request,
    Session,
)


def test_facts_about_a_request(trained: Model) -> None:
    cache = PrefixCache(trained)
    with Engine(trained, cache=cache, max_running=1) as engine:
        before = time.monotonic()
        first = engine.submit(PROMPT * 20, max_tokens=5, banned_tokens=[0])
        waiting = engine.submit([*(PROMPT * 20).encode()], max_tokens=2, banned_tokens=[0])
        assert waiting.finished_at is None
        first.result()
        waiting.result()
        after = time.monotonic()
    assert first.n_prompt_tokens == waiting.n_prompt_tokens == 20 * len(PROMPT)
    assert (first.n_cached_tokens, waiting.n_cached_tokens) == (0, 20 * len(PROMPT))
    times: list[float] = []
    for request in (first, waiting):
        assert request.started_at is not None
        assert request.first_token_at is not None
        assert request.finished_at is not None
        times += [request.started_at, request.first_token_at, request.finished_at]
    assert [before, first.submitted_at, *times, after] == sorted(
        [before, first.submitted_at, *times, after]
    )
    assert first.submitted_at <= waiting.submitted_at <= times[3]


def test_logprobs_are_those_of_the_model(engine: Engine) -> None:
    """Whatever the sampler makes of the logits; and one for each token that was taken."""
    request = engine.submit(
        PROMPT, max_tokens=40, seed=5, temperature=1.5, logprobs=3, stop=".", presence_penalty=1.0
    )
    plain = engine.submit(PROMPT, max_tokens=40, seed=5, temperature=1.5, stop=".", logprobs=0,
                          presence_penalty=1.0)  # fmt: skip
    none = engine.submit(PROMPT, max_tokens=4, seed=5)
    request.result()
    plain.result()
    none.result()
    assert none.logprobs == []
    assert [each.token for each in request.logprobs] == request.tokens == plain.tokens
    session = Session(engine.model)
    logits = session.feed(PROMPT)
    for each, bare in zip(request.logprobs, plain.logprobs, strict=True):
        wide = logits.astype(np.float64)
        log_p = wide - np.logaddexp.reduce(wide)
        assert each.logprob == pytest.approx(log_p[each.token], rel=1e-9)
        assert bare == (each.token, each.logprob, ())
        best = np.sort(log_p)[::-1][:3]
        assert [p for _, p in each.top] == pytest.approx(best, rel=1e-9)
        assert [log_p[token] for token, _ in each.top] == pytest.approx(best, rel=1e-9)
        logits = session.feed([each.token])


def test_reprs(trained: Model) -> None:
    engine = Engine(trained, max_running=1)
    running = engine.submit(PROMPT, **ENDLESS)
    waiting = engine.submit("abc", max_tokens=2, banned_tokens=[0])
    first_piece(running)
    assert re.fullmatch(r"<Engine of <Model .*>: 1 running, 1 waiting>", repr(engine))
    assert re.fullmatch(
        rf"<Request: {len(PROMPT)} prompt tokens, \d+ written, writing>", repr(running)
    )
    assert repr(waiting) == "<Request: 3 prompt tokens, 0 written, waiting>"
    running.cancel()
    waiting.result()
    assert repr(waiting) == "<Request: 3 prompt tokens, 2 written, length>"
    engine.close()
    assert repr(engine).endswith(": closed>")


@pytest.mark.parametrize("logprobs", [-1, 1.5, True, "3"])
def test_logprobs_that_are_no_count(engine: Engine, logprobs: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="logprobs: expected"):
        engine.submit("a", logprobs=logprobs)


def test_a_request_is_what_asyncio_takes(trained: Model) -> None:
    options: dict[str, Any] = {"max_tokens": 9, "temperature": 0}
    expected = Session(trained).generate(PROMPT, **options)

    async def main(engine: Engine) -> None:
        def submit() -> Request:
            return engine.submit(PROMPT, **options)

        task = asyncio.create_task(submit())
        assert await task == expected
        assert await asyncio.gather(submit(), asyncio.create_task(submit())) == [expected] * 2
        assert await asyncio.wait_for(submit(), 60) == expected
        request = submit()  # two tasks of one request
        assert await asyncio.gather(*map(asyncio.create_task, [request, request])) == [expected] * 2
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(submit()) for _ in range(3)]
        assert [task.result() for task in tasks] == [expected] * 3
        bad = asyncio.create_task(engine.submit(PROMPT, banned_tokens=range(256)))
        with pytest.raises(InvalidArgumentError, match="ban"):
            await bad
        endless = engine.submit(PROMPT, **ENDLESS)
        task = asyncio.create_task(endless)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert endless.finish_reason == "cancelled"

    with Engine(trained) as engine:
        assert asyncio.run(engine.submit(PROMPT, **options)) == expected
        asyncio.run(main(engine))


def test_asyncio(trained: Model) -> None:
    options: dict[str, Any] = {"max_tokens": 300, "temperature": 0, "stop_tokens": ()}
    expected = Session(trained).generate(PROMPT, **options)

    async def pieces(request: Request) -> list[str]:
        return [piece async for piece in request]

    async def main() -> None:
        async with Engine(trained) as engine:
            requests = [engine.submit(PROMPT, **options) for _ in range(8)]
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while not all(request.done for request in requests):
                    ticks += 1
                    await asyncio.sleep(0)

            ticking = asyncio.create_task(tick())
            assert await requests[0] == expected
            assert await requests[0] == expected
            lists = await asyncio.gather(*(pieces(request) for request in requests[1:]))
            assert all("".join(each) == expected for each in lists)
            await ticking
            assert ticks > 10  # the event loop was free meanwhile

    asyncio.run(main())


def test_asyncio_failure_and_cancellation(trained: Model) -> None:
    async def main() -> None:
        async with Engine(trained) as engine:
            bad = engine.submit(PROMPT, banned_tokens=range(256))
            with pytest.raises(InvalidArgumentError):
                await bad
            with pytest.raises(InvalidArgumentError):
                async for _ in bad:
                    pass
            slow = engine.submit(PROMPT, **ENDLESS)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(slow, 0.1)
            assert slow.finish_reason == "cancelled"
            other = engine.submit(PROMPT, **ENDLESS)

            async def read() -> None:
                async for _ in other:
                    pass

            task = asyncio.create_task(read())
            while not other.tokens:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert other.finish_reason == "cancelled"

    asyncio.run(main())


def test_an_event_loop_that_went_away_hurts_nobody(engine: Engine) -> None:
    request = engine.submit(PROMPT, **ENDLESS)
    other = engine.submit(PROMPT, max_tokens=200, temperature=0)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(request._wait(lambda: request.done))
    loop.run_until_complete(asyncio.sleep(0))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    expected = Session(engine.model).generate(PROMPT, max_tokens=200, temperature=0)
    assert other.result() == expected
    assert first_piece(request)


def test_who_waits_for_the_whole_is_woken_once(trained: Model) -> None:
    """And who reads along, with each piece."""

    async def main() -> None:
        with Engine(trained) as engine:
            request = engine.submit(PROMPT, max_tokens=20, seed=1)
            steps = 0
            while True:
                try:
                    change = request.send(None)
                except StopIteration as end:
                    assert end.value == request.result()
                    break
                steps += 1
                await asyncio.wait({change})
            assert steps <= 1
            other = engine.submit(PROMPT, max_tokens=20, seed=1)
            assert "".join([piece async for piece in other]) == request.result()

    asyncio.run(main())
