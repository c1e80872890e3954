"""A line of a batch gets what a request gets, and gets it again to the byte."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from rwkv_py.batch import Answered, BadLine, Journal, Line, Lines, NotNow, work_through
from rwkv_py.server import Settings, batch_answers
from rwkv_py.server.batch_answers import URLS, BatchAnswers
from rwkv_py.server.context import open_context
from server.conversations import LOOK_UP, QUESTION
from server.protocols import CHAT, DRAWN, PROTOCOLS

SAID = [{"role": "user", "content": QUESTION}]
TOOL = {"type": "function", "function": LOOK_UP}
LINES = [
    *((protocol.path, protocol.ask(SAID)) for protocol in PROTOCOLS),
    (CHAT, {"messages": SAID, "max_tokens": 30, "n": 2, "logprobs": True, **DRAWN}),
    (CHAT, {"messages": SAID, "tools": [TOOL], "tool_choice": "required", **DRAWN}),
    ("/v1/responses", {"input": QUESTION, "tools": [{**LOOK_UP, "type": "function"}],
                       "tool_choice": "required", **DRAWN}),
    ("/v1/messages", {"messages": SAID, "max_tokens": 90, "tools": [
        {"name": "look_up", "input_schema": LOOK_UP["parameters"]}],
        "tool_choice": {"type": "any"}, **DRAWN}),
    ("/v1/completions", {"prompt": "The json ", "echo": True, "logprobs": 2, "max_tokens": 0}),
    ("/v1/completions", {"prompt": ["import ", "json"], "n": 2, "max_tokens": 9, **DRAWN}),
    ("/v1/embeddings", {"input": ["json", "The module json."], "encoding_format": "base64"}),
    ("/v1/embeddings", {"input": "os", "pooling": "last", "normalize": True}),
]  # fmt: skip
NAMES = {"id", "call_id", "created", "created_at", "cached_tokens", "cache_read_input_tokens",
         "input_tokens", "store"}  # fmt: skip


def content(answer: Any) -> Any:
    """An answer without what differs whenever it is made."""
    if isinstance(answer, dict):
        return {key: content(value) for key, value in answer.items() if key not in NAMES}
    return [content(each) for each in answer] if isinstance(answer, list) else answer


def answered(
    file: Path, lines: list[tuple[int, Line | BadLine]], at_once: int = 99, **options: Any
) -> dict[int, Answered]:
    """What lines get, so many of them at once."""
    given = {"exact_cache": True, "max_stored": 0, "max_waiting": 1000}

    async def answer() -> dict[int, Answered]:
        async with open_context({"pychat": file}, Settings(**given)) as context:
            rest: dict[str, Any] = {"work": "w", "seed": 0, "created": 0, **options}
            answers = BatchAnswers(context, "", "", **rest)
            room = asyncio.Semaphore(at_once)

            async def one(number: int, line: Line | BadLine) -> Answered:
                async with room:
                    return await answers.answer(number, line)

            found = await asyncio.gather(*(one(*each) for each in lines))
            return dict(zip((number for number, _ in lines), found, strict=True))

    return asyncio.run(answer())


def test_a_line_gets_what_a_request_gets(client: httpx.Client, pychat_file: Path) -> None:
    assert {path for path, _ in LINES} == set(URLS)
    lines = [Line(str(i), path, {"model": "pychat", **ask}) for i, (path, ask) in enumerate(LINES)]
    found = answered(pychat_file, list(enumerate(copy.deepcopy(lines))))
    for number, line in enumerate(lines):
        expected = client.post(line.url, json=line.body)
        assert found[number].status == expected.status_code == 200, found[number].body
        assert content(json.loads(found[number].body)) == content(expected.json())
        usage = expected.json()["usage"]
        told = usage.get("total_tokens") or usage["input_tokens"] + usage["output_tokens"]
        # What a cache of Anthropic's form spared is told apart there; here nothing is.
        assert found[number].n_tokens == told + usage.get("cache_read_input_tokens", 0)


def test_it_is_the_same_again_in_any_company(pychat_file: Path) -> None:
    """Alone, or beside others, which share beginnings with it; seeds follow from its number."""
    long = "The :mod:`json` module encodes and decodes JSON. " * 12
    asks = [*LINES, *[("/v1/completions", {"prompt": long})] * 4]
    lines: list[tuple[int, Line | BadLine]] = [
        (i, Line(str(i), path, {"model": "pychat", **ask})) for i, (path, ask) in enumerate(asks)
    ]
    together = answered(pychat_file, copy.deepcopy(lines))
    random.Random(1).shuffle(lines)
    assert answered(pychat_file, copy.deepcopy(lines[::2]), at_once=1).items() <= together.items()
    last = len(asks) - 1
    alone: list[tuple[int, Line | BadLine]] = [(last, Line("x", *copy.deepcopy(_of(asks[last]))))]
    assert answered(pychat_file, alone)[last] == together[last]
    assert answered(pychat_file, alone, seed=1)[last] != together[last]
    texts = {json.loads(together[i].body)["choices"][0]["text"] for i in range(last - 3, last + 1)}
    assert len(texts) == 4
    ids = [json.loads(each.body).get("id") for each in together.values()]
    named = [name for name in ids if name is not None]
    assert len(set(named)) == len(named)


def _of(ask: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return ask[0], {"model": "pychat", **ask[1]}


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        (BadLine("line: expected JSON", None), 400, "line: expected JSON"),
        (Line("a", "/v1/images", {}), 404, "url: expected one of /v1/chat/completions, "),
        (Line("a", "/v1/completions", {"model": "other"}), 404, "model: expected one of pychat, "),
        (Line("a", "/v1/completions", {"prompt": 5}), 400, "prompt: expected "),
        (Line("a", "/v1/completions", {"stream": True}), 400, "stream: expected none, got one"),
        (Line("a", "/v1/completions", {"temperature": -1}), 400, "temperature: expected "),
        (Line("a", "/v1/completions", {"prompt": [70000]}), 400, "prompt"),
        (Line("a", "/v1/embeddings", {"input": ""}), 400, "input[0]: expected at least one token"),
        (Line("a", "/v1/chat/completions", {"messages": []}), 400, "messages: expected "),
        (Line("a", "/v1/completions", {"prompt": "x", "state": "state_1"}), 404, "state: expected"),
        (Line("a", "/v1/completions", {"prompt": "x" * 131073}), 400, "prompt: expected at most "),
    ],
)
def test_a_bad_line_is_told_what_is_wrong(
    pychat_file: Path, line: Line | BadLine, status: int, message: str
) -> None:
    good = Line("b", "/v1/completions", {"prompt": "import ", "max_tokens": 3})
    fine = Line("c", "/v1/embeddings", {"input": "import"})
    found = answered(pychat_file, [(0, line), (1, good), (2, fine)])
    assert found[0].status == status
    assert json.loads(found[0].body)["error"]["message"].startswith(message)
    assert found[1].status == found[2].status == 200


def test_anthropics_errors_have_their_form(pychat_file: Path) -> None:
    found = answered(pychat_file, [(0, Line("a", "/v1/messages", {"messages": []}))])
    assert json.loads(found[0].body)["error"]["type"] == "invalid_request_error"
    assert json.loads(found[0].body)["type"] == "error"


def test_one_url_if_the_batch_says_so(pychat_file: Path) -> None:
    line = Line("a", "/v1/completions", {"prompt": "x"})
    found = answered(pychat_file, [(0, line)], url="/v1/embeddings")
    assert "url: expected /v1/embeddings, as the batch says" in found[0].body.decode()


def test_what_may_pass_is_no_answer(pychat_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is missing now."""

    async def fails(*_: Any) -> Any:
        raise MemoryError

    ask = ("/v1/completions", {"prompt": "x"})
    kind, _ = batch_answers._OPERATIONS[ask[0]]
    monkeypatch.setitem(batch_answers._OPERATIONS, ask[0], (kind, fails))
    with pytest.raises(NotNow) as caught:
        answered(pychat_file, [(0, Line("a", *ask))])
    assert caught.value.answered is not None
    assert caught.value.answered.status == 503


def test_what_lines_begin_with_alike_is_read_once(pychat_file: Path, tmp_path: Path) -> None:
    """With room for few states: lines that begin alike are far from each other in the file."""
    n_groups, n_each = 6, 8
    with (tmp_path / "in").open("w") as file:
        for i in range(n_each):
            for group in range(n_groups):
                prompt = f"{group} is the number of this text. " * 18 + f"It is line {i}"
                body = {"model": "pychat", "prompt": prompt, "max_tokens": 1}
                line = {"custom_id": f"{group} {i}", "method": "POST", "url": "/v1/completions"}
                file.write(json.dumps({**line, "body": body}) + "\n")
    given = {"exact_cache": True, "cache_bytes": 5_000_000, "max_running": 2, "max_waiting": 99}

    async def work(lines: Lines, journal: Journal) -> tuple[int, int]:
        async with open_context({"pychat": pychat_file}, Settings(**given)) as context:
            answers = BatchAnswers(context, "", "", "w", 0, 0)
            await work_through(lines, journal, answers.answer, work="w", at_once=4)
            cache = context.models.loaded[0].cache
            return cache.tokens_read, cache.tokens_found

    with (
        Lines(tmp_path / "in", max_bytes=10_000) as lines,
        Journal(tmp_path / "journal", {}, len(lines)) as journal,
    ):
        n_read, n_found = asyncio.run(work(lines, journal))
    # Of each group two lines begin at once, of 512 tokens that they share; the others find these.
    assert n_found >= n_groups * (n_each - 2) * 512
    assert n_read + n_found > n_groups * n_each * 512


@pytest.mark.parametrize("exact", [True, False])
def test_an_exact_cache_finds_no_texts(pychat_file: Path, exact: bool) -> None:
    """Which would make a line depend on the lines before it."""

    async def found() -> int:
        async with open_context({"m": pychat_file}, Settings(exact_cache=exact)) as context:
            answers = BatchAnswers(context, "", "", "w", 0, 0)
            for i, prompt in enumerate(("x" * 100, "x" * 100 + " and more")):
                await answers.answer(i, Line("a", "/v1/completions", {"prompt": prompt}))
            return context.models.loaded[0].cache.tokens_found

    assert (asyncio.run(found()) == 0) == exact
