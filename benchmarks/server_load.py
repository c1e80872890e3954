"""Clients that ask a server, or an `Engine`, all at once: a process of its own.

    python -m benchmarks.server_load http://127.0.0.1:8080
    python -m benchmarks.server_load model.bin

reads a job as JSON from stdin, does it, and writes what it measured as JSON to stdout. All times
are seconds. `server.py` is the other side.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import aiohttp

Ask: TypeAlias = Callable[[list[int], int, int], AsyncIterator[None]]
"""From a prompt, how many tokens to write and a seed to something whenever text comes."""

SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": 50}


# ---- many at once ------------------------------------------------------------------------------


async def load(ask: Ask, job: dict[str, Any]) -> dict[str, float]:
    """Has clients ask, each one request after the other, until each has asked as often as it is to.

    Args:
        ask: who is asked.
        job: `clients`; `requests` of each; `prompt` and `tokens`, how many a request reads and
            writes; `n_vocab`; `seed`, of the random prompts.
    """
    generator = np.random.default_rng(job["seed"])
    shape = (job["clients"], job["requests"], job["prompt"])
    prompts = generator.integers(1, job["n_vocab"], shape).tolist()
    first: list[float] = []
    gaps: list[float] = []

    async def client(number: int) -> None:
        for i, prompt in enumerate(prompts[number]):
            times = [time.perf_counter()]
            async for _ in ask(prompt, job["tokens"], i):
                times.append(time.perf_counter())
            first.append(times[1] - times[0])
            gaps.extend(np.diff(times[1:]).tolist())

    await anext(ask(prompts[0][0][:8], 1, 0), None)  # what is made when it is first needed
    used, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(client, range(job["clients"])))
    seconds = time.perf_counter() - begun
    return {
        "tokens_per_second": job["clients"] * job["requests"] * job["tokens"] / seconds,
        "first_p50": float(np.percentile(first, 50)),
        "first_p99": float(np.percentile(first, 99)),
        "gap_p50": float(np.percentile(gaps, 50)),
        "gap_p99": float(np.percentile(gaps, 99)),
        "client_cores": (time.process_time() - used) / seconds,
    }


def of_server(session: aiohttp.ClientSession) -> Ask:
    """Asks a server for streamed completions."""

    async def ask(prompt: list[int], n_tokens: int, seed: int) -> AsyncIterator[None]:
        body = {
            "model": "m", "prompt": prompt, "max_tokens": n_tokens, "seed": seed, "stream": True,
            "logit_bias": {"0": -100}, "ignore_eos": True, "min_p": 0.0, **SAMPLING,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        written = None
        async for event in _events(session, "/v1/completions", body):
            if usage := event.get("usage"):
                written = usage["completion_tokens"]
            if event["choices"] and event["choices"][0]["text"]:
                yield
        if written != n_tokens:
            raise RuntimeError(f"expected {n_tokens} tokens, got {written}")

    return ask


def of_engine(path: str, threads: int, max_running: int) -> Ask:
    """Asks an `Engine` in this process."""
    from rwkv_py import Engine, Model  # only where it is measured

    engine = Engine(Model(path, threads=threads), max_running=max_running)

    async def ask(prompt: list[int], n_tokens: int, seed: int) -> AsyncIterator[None]:
        options: Any = {"max_tokens": n_tokens, "seed": seed, "logit_bias": {0: -100.0}, **SAMPLING}
        async for _ in engine.submit(prompt, **options):
            yield

    return ask


async def _events(
    session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    async with session.post(path, json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}: {await answer.text()}")
        async for line in answer.content:
            if line.startswith(b"data: {"):
                event: dict[str, Any] = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(f"{path}: {event['error']}")
                yield event


# ---- a long conversation -----------------------------------------------------------------------


async def conversation(session: aiohttp.ClientSession, job: dict[str, Any]) -> dict[str, Any]:
    """Has a conversation of `turns`, and sends all of it each time.

    Returns:
        For each turn `first`, until text came, and `new_tokens`, how many of the prompt were read.
    """
    from rwkv_py import Tokenizer

    messages: list[dict[str, str]] = []
    # What random weights write is sent again in other tokens than it was written in, which a
    # model's words are not. These are a token each.
    words = Tokenizer.world().encode(" north south east west")
    first: list[float] = []
    new_tokens: list[int] = []
    for turn in range(job["turns"]):
        messages.append({"role": "user", "content": f"What comes after the number {turn}?"})
        body = {
            "model": "m", "messages": messages, "max_tokens": job["tokens"], "seed": turn,
            "stream": True, "stream_options": {"include_usage": True}, **SAMPLING,
            "logit_bias": {str(word): 100 for word in words},
        }  # fmt: skip
        said = ""
        begun, came = time.perf_counter(), None
        usage: dict[str, Any] = {}
        async for event in _events(session, "/v1/chat/completions", body):
            usage = event.get("usage") or usage
            text = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if text and came is None:
                came = time.perf_counter()
            said += text or ""
        assert came is not None, "expected an answer, got none"
        first.append(came - begun)
        new_tokens.append(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])
        messages.append({"role": "assistant", "content": said})
    return {"first": first, "new_tokens": new_tokens}


async def do(where: str, job: dict[str, Any]) -> dict[str, Any]:
    """Does a job."""
    if not where.startswith("http"):
        return await load(of_engine(where, job["threads"], job["clients"]), job)
    import aiohttp  # which only this needs

    # None is used again: llama-server closes those that it has answered.
    connections = aiohttp.TCPConnector(limit=0, force_close=True)
    patience = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(where, connector=connections, timeout=patience) as session:
        if "turns" in job:
            return await conversation(session, job)
        return await load(of_server(session), job)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(do(sys.argv[1], json.load(sys.stdin)))))
