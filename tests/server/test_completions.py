"""`/v1/completions`: what it writes is what `Session` writes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from prompts import PROMPT
from rwkv_py import Model, Session
from rwkv_py.probabilities import log_softmax
from server.serving import Serve

URL = "/v1/completions"


def complete(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"model": "pydoc", "prompt": PROMPT, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def streamed(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    ask = {"model": "pydoc", "prompt": PROMPT, "stream": True, **fields}
    with client.stream("POST", URL, json=ask) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


OPTIONS = [
    {"temperature": 0},
    {"seed": 5, "temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.01},
    {"seed": 6, "presence_penalty": 0.4, "frequency_penalty": 0.3, "penalty_decay": 0.99},
    {"seed": 7, "mirostat_tau": 3.0, "typical_p": 0.9, "repetition_penalty": 1.1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_text_is_that_of_a_session(
    client: httpx.Client, pydoc: Model, options: dict[str, Any]
) -> None:
    alone = Session(pydoc).generate(PROMPT, max_tokens=40, **options)
    found = complete(client, max_tokens=40, **options)
    (choice,) = found["choices"]
    assert choice == {"index": 0, "text": alone, "logprobs": None, "finish_reason": "length"}
    assert (found["object"], found["model"]) == ("text_completion", "pydoc")
    chunks = streamed(client, max_tokens=40, **options)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == alone
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "length"]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


def test_guesses_change_nothing_of_the_text(client: httpx.Client, pydoc: Model) -> None:
    prompt = PROMPT * 3
    alone = Session(pydoc).generate(prompt, max_tokens=60, seed=2)
    for guesser in ("lookup", "none"):
        found = complete(client, prompt=prompt, max_tokens=60, seed=2, speculate=guesser)
        assert found["choices"][0]["text"] == alone
    refused = client.post(URL, json={"model": "pydoc", "prompt": "a", "speculate": "magic"})
    assert refused.status_code == 400
    assert "speculate" in refused.json()["error"]["message"]


def test_defaults(client: httpx.Client) -> None:
    """16 tokens, and null is as nothing."""
    found = complete(client, temperature=None, stop=None, n=None, echo=None, seed=1)
    assert found["usage"]["completion_tokens"] == 16
    assert found["usage"]["prompt_tokens"] == len(PROMPT)


def test_usage_in_a_stream(client: httpx.Client) -> None:
    chunks = streamed(client, max_tokens=5, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert all("usage" not in chunk for chunk in streamed(client, max_tokens=5))


def test_cached_tokens(client: httpx.Client) -> None:
    prompt = "A prompt that nobody has sent before, of enough tokens. " * 3
    assert complete(client, prompt=prompt)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    found = complete(client, prompt=prompt + "More.")
    assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt)


def test_stop(client: httpx.Client, pydoc: Model) -> None:
    alone = Session(pydoc).generate(PROMPT, max_tokens=60, temperature=0)
    stop = alone[20:24]
    for given in (stop, ["\0never", stop]):
        (choice,) = complete(client, max_tokens=60, temperature=0, stop=given)["choices"]
        assert choice["text"] == alone[: alone.index(stop)]
        assert choice["finish_reason"] == "stop"
    chunks = streamed(client, max_tokens=60, temperature=0, stop=stop)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == alone[: alone.index(stop)]


def test_logit_bias(client: httpx.Client) -> None:
    (choice,) = complete(client, max_tokens=3, logit_bias={"88": 100})["choices"]
    assert choice["text"] == "XXX"


def test_tokens_that_the_server_bans(serve: Serve, pydoc_file: Path) -> None:
    """By `rwkv serve --banned-tokens` and `--logit-bias`: which there are, the model knows."""
    sampling = {"banned_tokens": [ord("e")], "logit_bias": {ord("a"): -100.0}}
    with serve({"m": pydoc_file}, sampling=sampling) as client:
        ask = {"prompt": PROMPT, "max_tokens": 60, "seed": 1}
        text = client.post("/v1/completions", json=ask).json()["choices"][0]["text"]
        assert len(text) > 20
        assert not set("ea") & set(text)
    with serve({"m": pydoc_file}, sampling={"banned_tokens": [70_000]}) as client:
        refused = client.post("/v1/completions", json={"prompt": PROMPT})
        assert refused.status_code == 400
        assert refused.json()["error"]["message"].startswith("banned_tokens: token: expected 0 to")


def test_several_prompts_and_several_texts(client: httpx.Client, pydoc: Model) -> None:
    """Text i has seed + i: with the same seed they all come again."""
    found = complete(client, prompt=[PROMPT, "import "], n=2, seed=3, max_tokens=12)
    texts = [choice["text"] for choice in found["choices"]]
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert texts == [
        Session(pydoc).generate(prompt, max_tokens=12, seed=seed)
        for prompt in (PROMPT, "import ")
        for seed in (3, 4)
    ]
    assert found["usage"]["prompt_tokens"] == len(PROMPT) + len("import ")
    assert found["usage"]["completion_tokens"] == 48
    chunks = streamed(client, prompt=[PROMPT, "import "], n=2, seed=3, max_tokens=12)
    for i, text in enumerate(texts):
        choices = [chunk["choices"][0] for chunk in chunks]
        assert "".join(c["text"] for c in choices if c["index"] == i) == text


def test_tokens_as_prompts(client: httpx.Client) -> None:
    tokens = list(PROMPT.encode())
    texts = [
        complete(client, prompt=prompt, temperature=0)["choices"][0]["text"]
        for prompt in (PROMPT, tokens, [tokens], [PROMPT])
    ]
    assert len(set(texts)) == 1


@pytest.mark.parametrize("prompt", ["", None])
def test_an_empty_prompt_begins_a_document(
    client: httpx.Client, pydoc: Model, prompt: str | None
) -> None:
    (choice,) = complete(client, prompt=prompt, seed=1)["choices"]
    assert choice["text"] == Session(pydoc).generate("", max_tokens=16, seed=1)


def test_echo(client: httpx.Client) -> None:
    text = complete(client, temperature=0)["choices"][0]["text"]
    for prompt in (PROMPT, list(PROMPT.encode())):
        found = complete(client, prompt=prompt, temperature=0, echo=True)
        assert found["choices"][0]["text"] == PROMPT + text
        chunks = streamed(client, prompt=prompt, temperature=0, echo=True)
        assert "".join(c["choices"][0]["text"] for c in chunks) == PROMPT + text
    assert complete(client, echo=True, max_tokens=0)["choices"][0]["text"] == PROMPT


def test_logprobs(client: httpx.Client, pydoc: Model) -> None:
    """Of the prompt and of what is written: the model's own, with offsets of characters."""
    prompt = "naïve "
    (choice,) = complete(client, prompt=prompt, echo=True, logprobs=2, max_tokens=4, temperature=0)[
        "choices"
    ]
    logprobs = choice["logprobs"]
    session = Session(pydoc)
    tokens = choice["text"].encode()
    expected: list[float | None] = [None]
    for before, token in itertools.pairwise(tokens):
        expected.append(float(log_softmax(session.feed([before]))[token]))
    assert logprobs["token_logprobs"][0] is None
    np.testing.assert_allclose(
        np.array(logprobs["token_logprobs"][1:]), np.array(expected[1:]), atol=1e-3
    )
    assert logprobs["tokens"][:4] == ["n", "a", "bytes:\\xc3", "bytes:\\xaf"]
    assert logprobs["text_offset"][:6] == [0, 1, 2, 2, 3, 4]
    assert logprobs["top_logprobs"][0] is None
    for token, logprob, top in zip(
        logprobs["tokens"][-4:],
        logprobs["token_logprobs"][-4:],
        logprobs["top_logprobs"][-4:],
        strict=True,
    ):
        assert len(top) == 2
        assert max(top.values()) == logprob == top[token]  # greedy


def test_logprobs_in_a_stream_are_those_of_the_whole(client: httpx.Client) -> None:
    ask = {"echo": True, "logprobs": 1, "max_tokens": 30, "seed": 2}
    whole = complete(client, **ask)["choices"][0]["logprobs"]
    joined: dict[str, list[Any]] = {name: [] for name in whole}
    for chunk in streamed(client, **ask):
        for name, values in (chunk["choices"][0]["logprobs"] or {}).items():
            joined[name] += values
    assert joined == whole


def test_the_token_that_ends_a_text_has_a_logprob(client: httpx.Client) -> None:
    """As programs that score texts count on: one more than the prompt has."""
    (choice,) = complete(client, echo=True, logprobs=1, max_tokens=1, logit_bias={"0": 1000})[
        "choices"
    ]
    assert choice["text"] == PROMPT
    assert choice["finish_reason"] == "stop"
    assert len(choice["logprobs"]["tokens"]) == len(PROMPT) + 1


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"prompt": 5}, "prompt", "expected a valid string or a valid list, got 5"),
        ({"prompt": ["a", 5]}, "prompt[1]", "expected a valid string"),
        ({"prompt": []}, "prompt", "expected at least one, got an empty list"),
        ({"prompt": [256]}, "prompt[0]", "expected one of the vocabulary, 0 to 255, got 256"),
        ({"max_tokens": -1}, "max_tokens", "expected greater than or equal to 0, got -1"),
        ({"max_tokens": "9"}, "max_tokens", "expected a valid integer, got '9'"),
        ({"temperature": -1}, "temperature", "expected a number from 0 to 1e+06, got -1"),
        ({"temperature": True}, "temperature", "expected a valid number, got True"),
        ({"top_p": 2}, "top_p", "expected a number from 0 to 1, got 2"),
        ({"n": 0}, "n", "expected greater than or equal to 1, got 0"),
        ({"n": 1000}, "n", "expected at most 16 texts in all, got 1000"),
        ({"best_of": 3}, "best_of", "expected the same as n, 1, got 3"),
        ({"suffix": "x"}, "suffix", "expected none, got one"),
        ({"logprobs": 99}, "logprobs", "expected less than or equal to 20, got 99"),
        ({"stop": ""}, "stop", "expected no empty string, got one"),
        ({"stop": 3}, "stop", "expected a valid string or a valid list, got 3"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "expected numbers of tokens, got 'x'"),
        ({"logit_bias": {"999": 1}}, "logit_bias", "got 999"),
        ({"logit_bias": [1]}, "logit_bias", "expected a valid dictionary"),
        ({"stream_options": 1}, "stream_options", "expected"),
        ({"prompt": "a\ud800"}, "prompt", "expected Unicode characters"),
    ],
)
def test_wrong_values(
    client: httpx.Client, fields: dict[str, Any], param: str, message: str
) -> None:
    content = json.dumps({"model": "pydoc", **fields})
    answer = client.post(URL, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert message in error["message"]


def test_unknown_fields_are_ignored(client: httpx.Client) -> None:
    found = complete(client, user="me", whatever={"a": 1}, seed=1)
    assert found["choices"] == complete(client, seed=1)["choices"]


def test_a_model_that_is_not_served(client: httpx.Client) -> None:
    answer = client.post(URL, json={"model": "gpt-9", "prompt": "x"})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["message"] == "model: expected one of pychat, pydoc, got 'gpt-9'"
    assert error["code"] == "model_not_found"
    assert client.post(URL, json={"prompt": "x"}).status_code == 400
