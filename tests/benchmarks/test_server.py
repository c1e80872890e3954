"""What clients measure, and the tables of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from benchmarks.server_load import load

from benchmarks import server


def test_clients_measure_what_they_see() -> None:
    """Each request has its own prompt, and as many are under way as there are clients."""
    prompts: list[tuple[int, ...]] = []
    n_now, most = 0, 0

    async def ask(prompt: list[int], n_tokens: int, seed: int) -> AsyncIterator[None]:
        nonlocal n_now, most
        prompts.append(tuple(prompt))
        n_now += 1
        most = max(most, n_now)
        for i in range(n_tokens):
            await asyncio.sleep(0.1 if i == 0 else 0.02)
            yield
        n_now -= 1

    job = {"clients": 3, "requests": 2, "prompt": 9, "tokens": 5, "n_vocab": 100, "seed": 0}
    found = asyncio.run(load(ask, job))
    asked = [prompt for prompt in prompts if len(prompt) == 9]
    assert len(set(asked)) == 6 and most in (3, 4)  # the first, short one may still be open
    assert all(0 < token < 100 for prompt in asked for token in prompt)
    # At least what was slept, in seconds; and more where the machine is busy.
    assert 0.1 <= found["first_p50"] <= found["first_p99"] < 10
    assert 0.02 <= found["gap_p50"] <= found["gap_p99"] < 2
    assert 30 / 20 < found["tokens_per_second"] <= 30 / 0.36
    assert 0 <= found["client_cores"] < 1


def test_tables() -> None:
    rows = [
        server.Load(name, 4, rate, 0.1, 0.2, 0.01, 0.0304, 0.05)
        for name, rate in ((server.OURS, 90.0), (server.PEER, 30.0), (server.ENGINE, 100.0))
    ]
    talk = server.Conversation(200, early=0.1, late=0.11, early_tokens=20, late_tokens=21)
    rate_table, wait_table, talk_table = server.tables(rows, talk)
    asked = "rwkv serve, 4 clients"
    assert rate_table.rows[0] == [asked, "90.0", "3.00 ×", "90 %", "0.05"]
    assert wait_table.rows[0] == [asked, "100", "200", "10.0", "30.4"]
    assert rate_table.rows[2][-1] == ""  # what an engine uses is not its clients'
    assert talk_table.rows[1] == ["200", "110", "1.10 ×", "21"]


def test_options() -> None:
    args = server.parse([])
    assert (args.shape, args.clients, args.tokens, args.turns) == ("0.4B", [1, 4, 16, 64], 64, 200)
    with pytest.raises(SystemExit):
        server.parse(["--quick", "--docs"])
    with pytest.raises(SystemExit):
        server.parse(["--turns", "5"])
