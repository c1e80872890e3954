"""Any request may begin where a response ended, or at any other state."""

from __future__ import annotations

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
from server.protocols import (
    CHAT,
    DRAWN,
    NEXT,
    PROMPT,
    PROTOCOLS,
    STATES,
    Protocol,
    post,
    refused,
)
from server.serving import Serve, serve


@pytest.fixture(scope="module")
def alone(pychat_file: Path, pydoc_file: Path) -> Iterator[httpx.Client]:
    """A server without a cache: each request is a single run."""
    with serve({"pychat": pychat_file, "pydoc": pydoc_file}, cache_bytes=0) as client:
        yield client


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
