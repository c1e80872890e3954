"""What test_wide.py runs, in a process whose kernels have wide arithmetic.

There a piece of 32 tokens or more is computed otherwise than a shorter one, so that whatever cuts a
prompt otherwise than its single run is seen: parts are of fewer tokens, and of more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from rwkv_py import Engine, Model, Session
from server.protocols import PROTOCOLS, STATES, post
from server.serving import serve
from twin import ggmf, synth

PATH = "/v1/completions"
# A token is a byte.
FIRST = "Of what is read first there are more tokens than a few, "
NEXT = "\nand of what is said after the answer likewise, so they are wide."
LONG = ("A long one. " + FIRST * 11)[: 512 + 20]  # two whole pieces, and a few
# What is drawn of the bytes is text again when it is sent again.
DRAWN: dict[str, Any] = {"temperature": 1, "top_p": 1, "seed": 5, "max_tokens": 24,
                         "banned_tokens": [*range(32), *range(127, 256)]}  # fmt: skip


class Written(NamedTuple):
    """A text, and how probable each token was: to the bit what the model computed."""

    text: str
    logprobs: list[float]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "model.bin"
    checkpoint = synth.checkpoint("7", n_layer=1, n_embd=64, n_vocab=256)
    ggmf.write(path, ggmf.convert_reference(checkpoint, "q5_1"), "q5_1")
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    model = Model(file)
    assert model.info.kernels == "reference_wide"
    return model


@pytest.fixture(scope="module")
def without_cache(file: Path) -> Iterator[httpx.Client]:
    with serve({"m": file}, cache_bytes=0) as client:
        yield client


def single(model: Model, prompt: str, after: Session | None = None) -> Written:
    """What a session writes, alone; it is then where that ended."""
    session = Session(model) if after is None else after
    with Engine(model) as engine:
        request = engine.submit(prompt, session=session, logprobs=0, **DRAWN)
        text = request.result()
    assert session.generate(prompt, **DRAWN) == text
    assert len(request.logprobs) == DRAWN["max_tokens"]
    return Written(text, [each.logprob for each in request.logprobs])


def asked(client: httpx.Client, prompt: str, **more: Any) -> tuple[Written, int]:
    """What the server writes, and how many tokens it had not to read."""
    answer = post(client, PATH, prompt=prompt, logprobs=0, **DRAWN, **more)
    (choice,) = answer["choices"]
    written = Written(choice["text"], choice["logprobs"]["token_logprobs"])
    return written, answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def streamed(client: httpx.Client, prompt: str) -> Written:
    ask = {"prompt": prompt, "logprobs": 0, "stream": True, **DRAWN}
    lines = client.post(PATH, json=ask).raise_for_status().text.splitlines()
    choices = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    return Written(
        "".join(choice["text"] for choice in choices),
        [n for choice in choices for n in (choice["logprobs"] or {}).get("token_logprobs", [])],
    )


@pytest.mark.parametrize("prompt", [FIRST, LONG], ids=["short", "long"])
def test_alone_in_company_and_streamed(
    prompt: str, model: Model, without_cache: httpx.Client
) -> None:
    client, expected = without_cache, single(model, prompt)
    assert asked(client, prompt) == (expected, 0)
    assert streamed(client, prompt) == expected
    others = [LONG[:n] for n in (31, 290)]
    with ThreadPoolExecutor(5) as pool:
        company = [pool.submit(asked, client, other) for other in others]
        whole = pool.submit(asked, client, prompt)
        pieces = pool.submit(streamed, client, prompt)
        assert whole.result() == (expected, 0)
        assert pieces.result() == expected
        for other, each in zip(others, company, strict=True):
            assert each.result() == (single(model, other), 0)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.path)
def test_every_protocol(protocol: Any, without_cache: httpx.Client) -> None:
    ask = protocol.ask([{"role": "user", "content": FIRST}], model="m")
    text = protocol.text(post(without_cache, protocol.path, **ask))
    with ThreadPoolExecutor(2) as pool:
        pool.submit(asked, without_cache, LONG[:290])
        assert pool.submit(protocol.streamed, without_cache, ask).result() == text


def test_from_the_cache_and_after_a_restart(file: Path, model: Model, tmp_path: Path) -> None:
    """What is found as tokens has the cuts of the whole, what is found as text those of a talk."""
    first, long = single(model, FIRST), single(model, LONG)
    talk = FIRST + first.text + NEXT
    session = Session(model)
    session.feed(FIRST)
    for token in first.text[:-1]:  # the last one is read with what follows
        session.feed(token)
    next = single(model, first.text[-1] + NEXT, session)
    assert single(model, talk) != next  # cut otherwise: or this test could see nothing
    settings: dict[str, Any] = {"state_dir": tmp_path / "states"}
    with serve({"m": file}, **settings) as client:
        assert asked(client, FIRST) == (first, 0)
        assert asked(client, LONG) == (long, 0)
        assert asked(client, LONG[:-3]) == (single(model, LONG[:-3]), 512)
    for _ in range(2):  # after a restart, each time, and a second time
        with serve({"m": file}, **settings) as client:
            for _ in range(2):
                again, n_cached = asked(client, talk)
                assert n_cached in (len(FIRST) + len(first.text) - 1, len(talk))
                assert again == next
                again, n_cached = asked(client, LONG)
                assert n_cached == len(LONG)
                assert again == long
            assert streamed(client, talk) == next


def test_from_a_state(file: Path, model: Model) -> None:
    """It is where what was kept ended, and what follows is cut from there."""
    session = Session(model)
    session.feed(FIRST[:20])
    expected = single(model, NEXT, session)
    assert single(model, FIRST[:20] + NEXT) != expected
    with serve({"m": file}) as client:
        state = post(client, STATES, prompt=FIRST[:20])["id"]
        assert asked(client, NEXT, state=state)[0] == expected
        with ThreadPoolExecutor(3) as pool:
            found = [pool.submit(asked, client, NEXT, state=state) for _ in range(3)]
            assert [each.result()[0] for each in found] == [expected] * 3
