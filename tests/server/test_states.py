"""`/v1/states`: what a response ended in is kept, and any request may begin there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import numpy as np
import openai
import pytest

from rwkv_py import Model, Session
from server.conversations import LOOK_UP, PLAIN, QUESTION
from server.serving import Serve, serve

CHAT = "/v1/chat/completions"
STATES = "/v1/states"
NEXT = "Tell me more."
PROMPT = ".. function:: getcwd()\n\n   Return a string that is the name of the folder, and "
# What is drawn differs with all that was read.
DRAWN: dict[str, Any] = {"temperature": 1, "top_p": 1, "seed": 7, "presence_penalty": 0,
                         "frequency_penalty": 0}  # fmt: skip


@pytest.fixture(scope="module")
def alone(pychat_file: Path, pydoc_file: Path) -> Iterator[httpx.Client]:
    """A server without a cache: each request is a single run."""
    with serve({"pychat": pychat_file, "pydoc": pydoc_file}, cache_bytes=0) as client:
        yield client


def post(client: httpx.Client, path: str, **ask: Any) -> dict[str, Any]:
    answer = client.post(path, json=ask)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: httpx.Client, path: str, code: int, **ask: Any) -> str:
    kind = {"content-type": "application/json"}
    answer = client.post(path, content=json.dumps(ask), headers=kind)
    assert answer.status_code == code, answer.text
    message: str = answer.json()["error"]["message"]
    return message


class Protocol:
    """How a conversation is asked for, and what its answer says."""

    def __init__(self, path: str):
        self.path = path

    def ask(self, said: list[dict[str, str]], **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "pychat", **DRAWN, **more}
        if self.path == "/v1/responses":
            return {**body, "input": said, "max_output_tokens": 30}
        if self.path == "/v1/completions":
            text = "".join(each["content"] for each in said)
            return {**body, "prompt": text, "max_tokens": 30}
        return {**body, "messages": said, "max_tokens": 30}

    def text(self, answer: dict[str, Any]) -> str:
        if self.path == "/v1/responses":
            return "".join(part["text"] for item in answer["output"] for part in item["content"])
        if self.path == "/v1/messages":
            return "".join(block["text"] for block in answer["content"])
        (choice,) = answer["choices"]
        if self.path == "/v1/completions":
            return str(choice["text"])
        return str(choice["message"]["content"])

    def streamed(self, client: httpx.Client, ask: dict[str, Any]) -> str:
        answer = client.post(self.path, json={**ask, "stream": True})
        assert answer.status_code == 200, answer.text
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        return "".join(map(self._delta, map(json.loads, lines)))

    def _delta(self, event: dict[str, Any]) -> str:
        if "choices" in event:
            (choice,) = event["choices"]
            found = choice["text"] if "text" in choice else choice["delta"].get("content")
        elif event["type"] == "response.output_text.delta":
            found = event["delta"]
        else:
            found = event["delta"].get("text") if event["type"] == "content_block_delta" else ""
        return found or ""


PROTOCOLS = [Protocol(f"/v1/{name}")
             for name in ("chat/completions", "completions", "responses", "messages")]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.path)
def test_going_on_from_a_state_is_going_on_with_all_that_was_said(
    protocol: Protocol, client: httpx.Client, alone: httpx.Client
) -> None:
    """Streamed or not, alone or in company, and as often as one likes: a state never changes."""
    user = {"role": "user", "content": QUESTION}
    first = post(client, protocol.path, **protocol.ask([user]))
    state = post(client, STATES, response_id=first["id"], name="a talk")
    said = [user, {"role": "assistant", "content": protocol.text(first)}]
    new = {"role": "user", "content": NEXT}
    expected = post(alone, protocol.path, **protocol.ask([*said, new]))
    wanted = protocol.text(expected)
    assert len(wanted) > 5

    ask = protocol.ask([new], state=state["id"])
    answer = post(client, protocol.path, **ask)
    assert protocol.text(answer) == wanted
    usage, all_usage = answer["usage"], expected["usage"]
    for name in ("prompt_tokens", "input_tokens"):
        if name in usage:
            new_tokens = usage[name] + usage.get("cache_read_input_tokens", 0)
            assert new_tokens == all_usage[name] - state["tokens"] <= 60
    with ThreadPoolExecutor(6) as pool:
        whole = [pool.submit(post, client, protocol.path, **ask) for _ in range(3)]
        pieces = [pool.submit(protocol.streamed, client, ask) for _ in range(3)]
        others = [pool.submit(post, client, protocol.path, **protocol.ask([new])) for _ in range(2)]
        assert [protocol.text(each.result()) for each in whole] == [wanted] * 3
        assert [each.result() for each in pieces] == [wanted] * 3
        assert protocol.text(others[0].result()) != wanted  # the state is what makes it
    # What went on from a state is a response like others.
    second = post(client, STATES, response_id=answer["id"])
    said += [new, {"role": "assistant", "content": wanted}]
    ask = protocol.ask([user], state=second["id"])
    expected = post(alone, protocol.path, **protocol.ask([*said, user]))
    assert protocol.text(post(client, protocol.path, **ask)) == protocol.text(expected)
    assert second["tokens"] > state["tokens"]


def test_without_the_cache_that_was_there_then(
    serve: Serve, pychat_file: Path, client: httpx.Client
) -> None:
    """A response is read again where its state is not kept any more."""
    with serve({"pychat": pychat_file}, cache_bytes=200_000_000, max_stored=2) as other:
        protocol = PROTOCOLS[0]
        ask = protocol.ask([{"role": "user", "content": QUESTION}])
        answer = post(other, protocol.path, **ask)
        (served,) = other.app.state.context.models.loaded  # type: ignore[attr-defined]
        served.cache.clear()
        one, two = (post(other, STATES, response_id=answer["id"]) for _ in range(2))
        files = [other.get(f"{STATES}/{each['id']}/content").content for each in (one, two)]
        assert files[0] == files[1]
        kept = post(client, STATES, response_id=post(client, protocol.path, **ask)["id"])
        assert client.get(f"{STATES}/{kept['id']}/content").content == files[0]
        for _ in range(2):
            post(other, protocol.path, **ask)
        message = refused(other, STATES, 404, response_id=answer["id"])
        assert message.startswith("response_id: expected a response that is kept, got 'chatcmpl-")


def test_what_a_state_is_of(client: httpx.Client, alone: httpx.Client, pydoc: Model) -> None:
    """A prompt, tokens, a text that goes on from one, a system prompt."""
    tokens = [*PROMPT.encode()]
    half = len(tokens) // 2
    asks: list[dict[str, Any]] = [{"prompt": PROMPT}, {"prompt": tokens}]
    first = post(client, STATES, model="pydoc", prompt=PROMPT[:half])
    asks.append({"prompt": PROMPT[half:], "state": first["id"]})
    written = post(client, "/v1/completions", model="pydoc", prompt=tokens[:half], max_tokens=0)
    read = post(client, STATES, response_id=written["id"])
    asks.append({"prompt": tokens[half:], "state": read["id"]})
    expected = Session(pydoc)
    expected.feed(PROMPT)
    for ask in asks:
        state = post(client, STATES, model="pydoc", **ask)
        assert (state["tokens"], state["model"]) == (len(tokens), "pydoc")
        assert state["fingerprint"] == f"{pydoc.info.fingerprint:016x}"
        found = Session(pydoc)
        path = Path(client.app.state.context.states._folder.path) / "x.state"  # type: ignore[attr-defined]
        path.write_bytes(client.get(f"{STATES}/{state['id']}/content").content)
        found.load_state(path)
        path.unlink()
        assert np.array_equal(found.state, expected.state)
        more = {"model": "pydoc", "max_tokens": 20, **DRAWN}
        text = post(client, "/v1/completions", state=state["id"], prompt="the ", **more)
        whole = post(alone, "/v1/completions", prompt=PROMPT + "the ", **more)
        assert text["choices"][0]["text"] == whole["choices"][0]["text"]
        # A state knows its last token: nothing need be read before writing.
        text = post(client, "/v1/completions", state=state["id"], **more)
        whole = post(alone, "/v1/completions", prompt=PROMPT, **more)
        assert text["choices"][0]["text"] == whole["choices"][0]["text"]
    system = {"role": "system", "content": "Answer in one sentence, in the words of the manual."}
    user = {"role": "user", "content": NEXT}
    state = post(client, STATES, model="pychat", messages=[system])
    protocol = PROTOCOLS[0]
    answer = post(client, protocol.path, **protocol.ask([user], state=state["id"]))
    expected_text = protocol.text(post(alone, protocol.path, **protocol.ask([system, user])))
    assert protocol.text(answer) == expected_text


def test_what_begins_a_document_and_several_texts(client: httpx.Client) -> None:
    ask = {"model": "pydoc", "prompt": "", "n": 2, "max_tokens": 9, **DRAWN}
    answer = post(client, "/v1/completions", **ask)
    for i, choice in enumerate(answer["choices"]):
        state = post(client, STATES, response_id=answer["id"], choice=i)
        assert state["tokens"] == 1 + len(choice["text"])
    assert refused(client, STATES, 400, response_id=answer["id"], choice=2) == (
        "choice: expected at most 1, got 2"
    )
    assert post(client, STATES, model="pydoc", prompt="")["tokens"] == 1


def test_tools_are_told_once(client: httpx.Client, alone: httpx.Client) -> None:
    tools = [{"type": "function", "function": LOOK_UP}]
    user = {"role": "user", "content": "Look json up."}
    ask = {
        "model": "pychat",
        "messages": [user],
        "tools": tools,
        "tool_choice": "required",
        **PLAIN,
    }
    first = post(client, CHAT, **ask)
    message = first["choices"][0]["message"]
    (call,) = message["tool_calls"]
    state = post(client, STATES, response_id=first["id"])
    gave = {"role": "tool", "tool_call_id": call["id"], "content": "Encode and decode JSON."}
    more = {"model": "pychat", "tools": tools, "tool_choice": "required", **DRAWN, "max_tokens": 60}
    whole = post(alone, CHAT, messages=[user, message, gave], **more)
    answer = post(client, CHAT, messages=[gave], state=state["id"], **more)
    arguments = [
        each["choices"][0]["message"]["tool_calls"][0]["function"] for each in (answer, whole)
    ]
    assert arguments[0] == arguments[1]
    assert answer["usage"]["prompt_tokens"] < 80 < state["tokens"]
    other = [{"type": "function", "function": {**LOOK_UP, "name": "find"}}]
    answer = post(client, CHAT, messages=[gave], state=state["id"], **{**more, "tools": other})
    assert answer["usage"]["prompt_tokens"] > 150  # of those it knew nothing


def test_an_answer_that_was_cut_and_one_that_was_begun(
    client: httpx.Client, alone: httpx.Client
) -> None:
    user = {"role": "user", "content": QUESTION}
    begun = {"role": "assistant", "content": "The module json: En"}
    protocol = PROTOCOLS[0]
    for said in ([user], [user, begun]):
        first = post(client, CHAT, model="pychat", messages=said, max_tokens=9, **PLAIN)
        text = first["choices"][0]["message"]["content"]
        assert first["choices"][0]["finish_reason"] == "length"
        whole = begun["content"] + text if begun in said else text
        state = post(client, STATES, response_id=first["id"])
        new = {"role": "user", "content": NEXT}
        history = [user, {"role": "assistant", "content": whole}, new]
        expected = protocol.text(post(alone, CHAT, **protocol.ask(history)))
        answer = post(client, CHAT, **protocol.ask([new], state=state["id"]))
        assert protocol.text(answer) == expected


def test_responses_go_on_where_a_state_began(client: httpx.Client, alone: httpx.Client) -> None:
    """`previous_response_id` remembers the state; and a state remembers what it was of."""
    protocol = PROTOCOLS[2]
    said = [{"role": "system", "content": "Answer in one sentence."}]
    state = post(client, STATES, model="pychat", messages=said)["id"]
    more: dict[str, Any] = {"state": state}
    for content in (QUESTION, NEXT, "What is os.getcwd?"):
        said.append({"role": "user", "content": content})
        answer = post(client, protocol.path, **protocol.ask(said[-1:], **more))
        text = protocol.text(answer)
        assert text == protocol.text(post(alone, protocol.path, **protocol.ask(said)))
        said.append({"role": "assistant", "content": text})
        more = {"previous_response_id": answer["id"]}
    ask = protocol.ask(said[:1], state=state, **more)
    assert refused(client, protocol.path, 400, **ask).startswith(
        "state: expected none with previous"
    )
    client.delete(f"{STATES}/{state}")
    message = refused(client, protocol.path, 404, **protocol.ask(said[1:2], **more))
    assert message == f"state: expected a state that is kept, got '{state}'"


def test_official_clients(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, client: httpx.Client
) -> None:
    messages: Any = [{"role": "user", "content": NEXT}]
    first = openai_client.chat.completions.create(
        model="pychat", messages=[{"role": "user", "content": QUESTION}], **PLAIN
    )
    state = post(client, STATES, response_id=first.id)["id"]
    ours = {"state": state, **PLAIN}
    answer = openai_client.chat.completions.create(
        model="pychat", messages=messages, extra_body=ours
    )
    text = answer.choices[0].message.content
    written = openai_client.responses.create(model="pychat", input=NEXT, extra_body=ours)
    assert written.output_text == text
    message = anthropic_client.messages.create(
        model="pychat", messages=messages, max_tokens=500, extra_body=ours
    )
    (block,) = message.content
    assert block.type == "text" and block.text == text
    count = anthropic_client.messages.count_tokens(
        model="pychat", messages=messages, extra_body=ours
    )
    assert count.input_tokens == len(f"User: {NEXT}\n\nAssistant:")
    with pytest.raises(openai.NotFoundError, match="state: expected a state that is kept"):
        openai_client.completions.create(model="pychat", prompt="x", extra_body={"state": "no"})
    with pytest.raises(anthropic.NotFoundError, match="state: expected a state that is kept"):
        anthropic_client.messages.create(
            model="pychat", messages=messages, max_tokens=5, extra_body={"state": "no"}
        )


# --------------------------------------------------------------------------------------------------
# The objects themselves


def test_list_show_fork_download_upload_delete(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}) as client:
        empty = {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
        assert client.get(STATES).json() == empty
        first = post(client, STATES, prompt=PROMPT, name="one", metadata={"a": "b"})
        assert (first["object"], first["model"], first["tokens"]) == ("state", "m", len(PROMPT))
        assert (first["name"], first["metadata"]) == ("one", {"a": "b"})
        path = f"{STATES}/{first['id']}"
        assert client.get(path).json() == first
        same = post(client, f"{path}/fork")
        named = post(client, f"{path}/fork", name="two")
        assert (same["name"], same["metadata"]) == ("one", {"a": "b"})
        assert (named["name"], named["metadata"], named["tokens"]) == (
            "two",
            {"a": "b"},
            len(PROMPT),
        )
        download = client.get(f"{path}/content")
        assert download.headers["content-type"] == "application/octet-stream"
        assert len(download.content) == first["bytes"]
        octets = {"content-type": "application/octet-stream"}
        upload = client.post(
            f"{STATES}?name=three", content=download.content, headers=octets
        ).json()
        assert (upload["name"], upload["tokens"], upload["fingerprint"], upload["bytes"]) == (
            "three", None, first["fingerprint"], first["bytes"])  # fmt: skip
        every = [first, same, named, upload]
        assert client.get(STATES).json()["data"] == every
        page = client.get(f"{STATES}?limit=2").json()
        assert (page["data"], page["has_more"]) == (every[:2], True)
        page = client.get(f"{STATES}?limit=2&after={page['last_id']}").json()
        assert (page["data"], page["has_more"]) == (every[2:], False)
        assert client.get(f"{STATES}?after=no").status_code == 400
        assert client.delete(path).json() == {"id": first["id"], "object": "state", "deleted": True}
        for answer in (client.get(path), client.delete(path), client.get(f"{path}/content"),
                       client.post(f"{path}/fork")):  # fmt: skip
            assert answer.status_code == 404
            assert answer.json()["error"]["message"].startswith(
                "state_id: expected a state that is"
            )
        ask = {"max_tokens": 20, **DRAWN}
        texts = [
            post(client, "/v1/completions", state=each["id"], **ask)["choices"][0]["text"]
            for each in every[1:]
        ]
        assert texts == [texts[0]] * 3
        # A state that began at an uploaded one has as many tokens as nobody knows.
        assert post(client, STATES, prompt="x", state=upload["id"])["tokens"] is None
        folder = Path(client.app.state.context.states._folder.path)  # type: ignore[attr-defined]
        assert folder.is_dir()
    assert not folder.exists()  # without --state-dir they end with the server


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x", "file: expected a state file, got another or a damaged one"),
        (b"rwkvstat" * 1000, "file: expected a state file, got another or a damaged one"),
        (None, "file: expected a state of the model pydoc, got another model's"),
        (b"", "body: expected a value"),
    ],
)
def test_files_that_are_no_states(
    client: httpx.Client, content: bytes | None, message: str
) -> None:
    before = client.get(STATES).json()
    if content is None:
        state = post(client, STATES, model="pychat", prompt=PROMPT)["id"]
        content = client.get(f"{STATES}/{state}/content").content
        client.delete(f"{STATES}/{state}")
    octets = {"content-type": "application/octet-stream"}
    answer = client.post(f"{STATES}?model=pydoc", content=content, headers=octets)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)
    assert client.get(STATES).json() == before


@pytest.mark.parametrize("n_damaged", [1, 64])
def test_damaged_files(client: httpx.Client, n_damaged: int) -> None:
    state = post(client, STATES, model="pydoc", prompt=PROMPT)["id"]
    good = client.get(f"{STATES}/{state}/content").content
    random = np.random.default_rng(n_damaged)
    octets = {"content-type": "application/octet-stream"}
    for _ in range(8):
        damaged = bytearray(good)
        for place in random.integers(0, len(good), n_damaged):
            damaged[place] ^= 1 << int(random.integers(8))
        cut = bytes(damaged[: int(random.integers(1, len(good) + 1))])
        for content in (bytes(damaged), cut):
            if content == good:
                continue
            answer = client.post(f"{STATES}?model=pydoc", content=content, headers=octets)
            assert answer.status_code == 400, answer.text
    assert client.get(f"{STATES}/{state}/content").content == good


def test_wrong_requests(client: httpx.Client) -> None:
    state = post(client, STATES, model="pychat", prompt=PROMPT)
    for path, ask in (
        ("/v1/completions", {"prompt": "x"}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x"}]}),
        (STATES, {"prompt": "x"}),
    ):
        message = refused(client, path, 400, model="pydoc", state=state["id"], **ask)
        assert message.startswith("state: expected one of the model pydoc, whose fingerprint is ")
        assert message.endswith(f"got one of a model with fingerprint {state['fingerprint']}")
        for wrong in ("state_0", "", "../../x", "\ud800", "state_" + "0" * 9999):
            message = refused(client, path, 404, model="pychat", state=wrong, **ask)
            assert message.startswith("state: expected a state that is kept, got ")
        assert refused(client, path, 400, model="pychat", state=5, **ask).startswith(
            "state: expected"
        )
    user = [{"role": "user", "content": "x"}]
    for ask, code, begin in (
        ({}, 400, "body: expected one of response_id, prompt and messages, got none"),
        (
            {"prompt": "x", "messages": user},
            400,
            "body: expected one of response_id, prompt and me",
        ),
        ({"prompt": [99999]}, 400, "prompt[0]: expected"),
        ({"prompt": ["x"]}, 400, "prompt"),
        ({"messages": []}, 400, "messages: "),
        (
            {"messages": user},
            400,
            "messages: expected an answer of the assistant last, or a system",
        ),
        ({"response_id": "no"}, 404, "response_id: expected a response that is kept, got 'no'"),
        ({"response_id": "resp_no"}, 404, "response_id: expected a response that is kept, got "),
        ({"prompt": "x", "name": "a" * 201}, 400, "name: expected"),
        ({"prompt": "x", "metadata": {"a": 1}}, 400, "metadata.a: expected"),
        (
            {"prompt": "x", "model": "other"},
            404,
            "model: expected one of pychat, pydoc, got 'other'",
        ),
    ):
        assert refused(client, STATES, code, **{"model": "pychat", **ask}).startswith(begin)
    answer = client.post(STATES, json="x")
    assert answer.json()["error"]["message"] == "body: expected an object, got a string"
    answer = client.post(STATES, content=b"a=b", headers={"content-type": "text/plain"})
    assert answer.json()["error"]["message"] == (
        "content-type: expected application/json or application/octet-stream, got text/plain"
    )
    answer = post(client, "/v1/completions", model="pydoc", prompt="x", max_tokens=1)
    message = refused(client, STATES, 400, response_id=answer["id"], model="pychat")
    assert message.startswith("model: expected pydoc, which wrote it, or none, got 'pychat'")
    message = refused(client, STATES, 400, response_id=answer["id"], state=state["id"])
    assert message.startswith("state: expected none with response_id")


def test_what_they_may_take(serve: Serve, pychat_file: Path) -> None:
    """Their bytes are bounded."""
    with serve({"m": pychat_file}, cache_bytes=1_000_000, max_body_bytes=500_000) as client:
        sizes = []
        for _ in range(20):
            answer = client.post(STATES, json={"prompt": PROMPT})
            if answer.status_code != 200:
                break
            sizes.append(answer.json()["bytes"])
        assert sum(sizes) <= 1_000_000 < sum(sizes) + sizes[0]
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "states_full"
        assert "states: expected room for " in answer.json()["error"]["message"]
        name = client.get(STATES).json()["first_id"]
        assert client.post(f"{STATES}/{name}/fork").status_code == 400
        data = client.get(f"{STATES}/{name}/content").content
        octets = {"content-type": "application/octet-stream"}
        assert client.post(STATES, content=data, headers=octets).status_code == 400
        client.delete(f"{STATES}/{name}")
        assert client.post(STATES, content=data, headers=octets).status_code == 200


def test_a_state_is_its_owners(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, api_keys=("one", "two")) as client:
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        ask = {"prompt": PROMPT, "max_tokens": 3}
        written = client.post("/v1/completions", json=ask, headers=one).json()["id"]
        by_response = {"response_id": written}
        assert client.post(STATES, json=by_response, headers=two).status_code == 404
        name = client.post(STATES, json=by_response, headers=one).json()["id"]
        assert [each["id"] for each in client.get(STATES, headers=one).json()["data"]] == [name]
        assert client.get(STATES, headers=two).json()["data"] == []
        path = f"{STATES}/{name}"
        for method, where in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path),
                              ("POST", f"{path}/fork")):  # fmt: skip
            assert client.request(method, where, headers=two).status_code == 404
        for headers, code in ((two, 404), (one, 200)):
            answer = client.post("/v1/completions", json={**ask, "state": name}, headers=headers)
            assert answer.status_code == code
            again = {"prompt": "x", "state": name}
            assert client.post(STATES, json=again, headers=headers).status_code == code
        assert client.get(path).status_code == 401


def test_many_at_once(serve: Serve, pychat_file: Path) -> None:
    """Kept, forked, used and deleted by many at the same time: nobody meets a fault."""
    with serve({"m": pychat_file}, cache_bytes=3_000_000) as client:
        codes: list[int] = []

        def work(seed: int) -> None:
            for i in range(4):
                made = client.post(STATES, json={"prompt": f"{PROMPT}{seed}"})
                codes.append(made.status_code)
                names = [each["id"] for each in client.get(STATES).json()["data"]]
                for name in names[seed % 3 :: 3]:
                    ask = {"prompt": "x", "state": name, "max_tokens": 2}
                    codes.append(client.post("/v1/completions", json=ask).status_code)
                    codes.append(client.post(f"{STATES}/{name}/fork").status_code)
                    if (seed + i) % 2:
                        codes.append(client.delete(f"{STATES}/{name}").status_code)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(codes) <= {200, 400, 404} and codes.count(200) > 20
        kept = client.get(STATES).json()["data"]
        folder = Path(client.app.state.context.states._folder.path)  # type: ignore[attr-defined]
        assert len(list((folder / "states").iterdir())) == len(kept)
        assert sum(each["bytes"] for each in kept) <= 3_000_000
