"""The server on Ray Serve: two replicas, and which of them a request comes to."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.serving import serve as serve_alone

pytest.importorskip("ray", reason="only in `hatch run ray:test`")
import ray
from ray import serve

from rwkv_py.ray import app, build
from rwkv_py.ray.routing import Asked, named_in, parsed, session_of

pytestmark = pytest.mark.slow

MODEL = "pychat"
JSON = {"Content-Type": "application/json"}
ENDLESS = {"logit_bias": {"0": -100, "10": -100}}  # without what ends a text or an answer
Message = dict[str, Any]


@pytest.fixture(scope="module")
def client(
    cluster: str, pychat_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Of two replicas, which keep their states in a folder."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    settings = {
        "state_dir": str(tmp_path_factory.mktemp("states")),
        "max_body_bytes": 1 << 20,
        "max_output_tokens": 1_000_000,
    }
    application = build(
        {"models": {MODEL: str(pychat_file)}, "replicas": 2, "threads": 1, "settings": settings}
    )
    serve.run(application, name="rwkv")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        yield client
    serve.shutdown()


def question(about: str) -> list[Message]:
    return [{"role": "user", "content": f"What is the module {about} for? Tell me all of it."}]


def answer(client: httpx.Client, messages: list[Message], **options: Any) -> dict[str, Any]:
    ask = {"model": MODEL, "messages": messages, "max_tokens": 16, "seed": 1, **options}
    reply = client.post("/v1/chat/completions", json=ask)
    assert reply.status_code == 200, reply.text
    return reply.json()  # type: ignore[no-any-return]


def cached(reply: dict[str, Any]) -> int:
    usage = reply["usage"]
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return int(details["cached_tokens"])


def after(messages: list[Message], reply: dict[str, Any], said: str) -> list[Message]:
    """The conversation with the answer, and what is said then."""
    text = reply["choices"][0]["message"]["content"]
    return [
        *messages,
        {"role": "assistant", "content": text},
        {"role": "user", "content": said},
    ]


def replica_of(messages: list[Message]) -> str:
    """The replica that a conversation belongs to, as the door finds it."""
    body = json.dumps({"messages": messages}).encode()
    return ask("/health", session=session_of(parsed(body), body))[0]


def ask(path: str, *, session: str = "", replica: str | None = None) -> tuple[str, str]:
    """Ask the replica of a session, or one by its name; return its name, and what it says."""
    handle = serve.get_deployment_handle("Replica", "rwkv").options(
        method_name="ask", stream=True, session_id=session or path
    )
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    name, *messages = handle.remote(Asked(scope, b"", replica, ()))
    said = b"".join(one.get("body", b"") for several in messages for one in several)
    return str(name), said.decode()


def lose(replica: str) -> None:
    ray.kill(ray.get_actor(f"SERVE_REPLICA::rwkv#Replica#{replica}", namespace="serve"))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def healthy() -> bool:
    return bool(serve.status().applications["rwkv"].deployments["Replica"].status == "HEALTHY")


def test_turns_go_to_the_replica_that_has_the_state(
    client: httpx.Client, pychat_file: Path
) -> None:
    """Also where another protocol, or other fields, stand around the same messages."""
    used = set()
    with serve_alone({MODEL: pychat_file}) as alone:
        for name in ("json", "re", "os", "csv", "abc", "io"):
            messages = question(name)
            used.add(replica_of(messages))
            first = answer(client, messages)
            assert cached(first) == 0
            expected = answer(alone, messages)["choices"][0]["message"]["content"]
            assert first["choices"][0]["message"]["content"] == expected
            messages = after(messages, first, "And what else?")
            assert cached(answer(client, messages, temperature=0)) > 60
            parts = [{"type": "text", "text": messages[0]["content"]}]
            ask = {"model": MODEL, "max_tokens": 9, "messages": [
                {"role": "user", "content": parts}, *messages[1:]]}  # fmt: skip
            usage = client.post("/v1/messages", json=ask).json()["usage"]
            assert usage["cache_read_input_tokens"] > 60
    assert len(used) == 2


def test_what_a_replica_holds_is_found_by_its_name(client: httpx.Client) -> None:
    ask: dict[str, Any] = {"model": MODEL, "max_output_tokens": 9}
    for about in ("csv", "io", "os"):  # of both replicas
        reply = client.post("/v1/responses", json={**ask, "input": question(about)}).json()
        for _ in range(2):
            more = {**ask, "input": "And?", "previous_response_id": reply["id"]}
            reply = client.post("/v1/responses", json=more).json()
            assert cached(reply) > 40
        assert client.get(f"/v1/responses/{reply['id']}").json()["id"] == reply["id"]
        state = client.post("/v1/states", json={"response_id": reply["id"]}).json()
        assert client.get(f"/v1/states/{state['id']}").json() == state
        told = answer(client, [{"role": "user", "content": "So?"}], state=state["id"])
        assert told["usage"]["prompt_tokens"] < 40
        listed = client.get("/v1/states").json()["data"]
        assert state in listed
    assert len(listed) == 3
    page = client.get("/v1/states", params={"limit": 2, "after": listed[0]["id"]}).json()
    assert page["data"] == listed[1:] and page["has_more"] is False
    assert client.get("/v1/states", params={"limit": 2}).json()["has_more"] is True
    assert client.get("/v1/states", params={"limit": 0}).status_code == 400
    assert client.get("/v1/states", params={"after": "x"}).status_code == 400
    assert client.get("/v1/files", params={"order": "x"}).status_code == 400
    for path in ("/v1/responses/resp_none", "/v1/states/state_none", "/v1/files/file-none"):
        assert client.get(path).status_code == 404


def test_a_batch_is_where_its_file_is(client: httpx.Client) -> None:
    made = []
    for number in range(3):  # by both replicas
        line = {
            "custom_id": f"of {number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": MODEL, "prompt": "import ", "max_tokens": 3},
        }
        form = {"file": (f"{number}.jsonl", json.dumps(line).encode())}
        file = client.post("/v1/files", data={"purpose": "batch"}, files=form).json()
        ask = {
            "input_file_id": file["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        }
        batch = client.post("/v1/batches", json=ask).json()
        path = f"/v1/batches/{batch['id']}"
        until(lambda path=path: client.get(path).json()["status"] == "completed")
        answers = client.get(f"/v1/files/{client.get(path).json()['output_file_id']}/content")
        assert json.loads(answers.text)["custom_id"] == f"of {number}"
        made.append((file["id"], batch["id"]))
    files = [file["id"] for file in client.get("/v1/files").json()["data"]]
    assert {file for file, _ in made} < set(files)
    oldest_first = client.get("/v1/files", params={"order": "asc"}).json()["data"]
    assert [file["id"] for file in oldest_first] == files[::-1]
    times = [file["created_at"] for file in oldest_first]
    assert times == sorted(times)
    batches = [batch["id"] for batch in client.get("/v1/batches").json()["data"]]
    assert set(batches) == {batch for _, batch in made}


def test_streams_and_errors_are_those_of_one_server(
    client: httpx.Client, pychat_file: Path
) -> None:
    ask = {"model": MODEL, "messages": question("json"), "max_tokens": 16, "seed": 1}
    came = []
    with client.stream("POST", "/v1/chat/completions", json={**ask, "stream": True}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                came.append((time.monotonic(), json.loads(line[6:])))
    text = "".join(e["choices"][0]["delta"].get("content") or "" for _, e in came)
    assert text == answer(client, question("json"))["choices"][0]["message"]["content"]
    with serve_alone({MODEL: pychat_file}, max_body_bytes=1 << 20) as alone:
        for path, content in [
            ("/v1/chat/completions", json.dumps({**ask, "model": "other"}).encode()),
            ("/v1/chat/completions", json.dumps({**ask, "top_p": 7}).encode()),
            ("/v1/chat/completions", b"{"),
            ("/v1/messages", b"[]"),
            ("/nothing", b""),
            ("/v1/chat/completions", b" " * ((1 << 20) + 1)),
        ]:
            one = alone.post(path, content=content)
            reply = client.post(path, content=content)
            assert (reply.status_code, reply.json()) == (one.status_code, one.json())


def test_whoever_goes_away_leaves_nothing_running(client: httpx.Client) -> None:
    long = {"model": MODEL, "messages": question("re"), "max_tokens": 1_000_000, **ENDLESS}
    holder = replica_of(question("re"))
    with client.stream("POST", "/v1/chat/completions", json={**long, "stream": True}) as stream:
        lines = stream.iter_lines()  # whose end would be the stream's
        next(lines)
        until(lambda: running(holder) == 1)
    until(lambda: running(holder) == 0)  # it would be written for longer


def running(replica: str) -> int:
    """How many texts a replica is writing."""
    found = re.search(r"^rwkv_running\{.*\} (\d+)", ask("/metrics", replica=replica)[1], re.M)
    assert found is not None
    return int(found[1])


def test_a_lost_replica_costs_time_and_nothing_else(client: httpx.Client) -> None:
    """Its requests and conversations go to the other, and what it kept comes back with the next."""
    messages = question("abc")
    first = answer(client, messages)
    messages = after(messages, first, "Tell me more of it.")
    second = answer(client, messages)
    response = client.post(
        "/v1/responses", json={"model": MODEL, "input": messages, "max_output_tokens": 9}
    ).json()
    holder = replica_of(messages)

    # A long text that this replica writes, undisturbed and disturbed.
    for seed in range(100):
        long = {"prompt": "import ", "max_tokens": 5000, "seed": seed, **ENDLESS}
        body = json.dumps(long).encode()
        if ask("/health", session=session_of(long, body))[0] == holder:
            break
    expected = client.post("/v1/completions", content=body, headers=JSON).json()
    assert expected["usage"]["completion_tokens"] == 5000
    replies = []
    asking = threading.Thread(
        target=lambda: replies.append(client.post("/v1/completions", content=body, headers=JSON))
    )
    asking.start()
    until(lambda: running(holder) == 1)
    lose(holder)

    # Until the next replica has the folder of the lost one, clients are told to come again.
    more = {"model": MODEL, "input": "And?", "previous_response_id": response["id"]}
    statuses = []
    while True:
        reply = client.post("/v1/responses", json={**more, "max_output_tokens": 9})
        statuses.append(reply.status_code)
        if reply.status_code != 503:
            break
        assert int(reply.headers["retry-after"]) > 0
        time.sleep(0.2)
        assert len(statuses) < 600
    assert statuses[0] == 503
    assert reply.status_code == 200, reply.text
    assert cached(reply.json()) > 60  # the state itself was on the disk, too

    asking.join()
    assert replies[0].json()["choices"] == expected["choices"]
    assert replica_of(messages) != holder
    assert answer(client, after(messages, second, "And then?"))["choices"]
    until(healthy)


def test_a_stream_of_a_lost_replica_is_cut(client: httpx.Client) -> None:
    """What was sent cannot be taken back: the client is to see that it is not whole."""
    long = {"model": MODEL, "messages": question("os"), "max_tokens": 16_000, **ENDLESS}
    holder = replica_of(question("os"))
    lines = []
    with (
        pytest.raises(httpx.RemoteProtocolError),
        client.stream("POST", "/v1/chat/completions", json={**long, "stream": True}) as stream,
    ):
        for line in stream.iter_lines():
            lines.append(line)
            if len(lines) == 3:
                lose(holder)
    assert not any("[DONE]" in line for line in lines)
    until(healthy)


def test_sessions() -> None:
    """What all requests of a conversation have in common, and what tells two apart."""

    def session(**asked: Any) -> str:
        return session_of(asked, b"")

    system, hello = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}
    reply, more = {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "More"}
    first = session(messages=[system, hello])
    assert session(messages=[system, hello, reply, more], temperature=1) == first
    assert session(messages=[{**system, "name": "x"}, hello]) == first
    assert session(messages=[system, more]) != first
    assert session(messages=[hello]) != first
    part = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    of_hello = session(messages=[hello])
    assert session(messages=[{"role": "user", "content": [part]}, reply, more]) == of_hello
    assert session(input="Hello") == of_hello
    assert session(input=[hello, reply, more]) == of_hello
    assert session(input="Hello", instructions="Be kind.") == first
    assert session(messages=[hello], system="Be kind.") == first
    assert session_of({"prompt": "a"}, b"a") != session_of({"prompt": "a"}, b"b")
    for odd in ([None], [[]], [7], [{"content": {"text": ["\ud800", 1]}}], {}, "", None):
        assert len(session(messages=odd)) == 64
    assert parsed(b'{"a": 1}') == {"a": 1}
    for body in (b"", b"[1]", b"{", b"[" * 10**5, b'{"a":' * 10**5):
        assert parsed(body) == {}


def test_names() -> None:
    assert named_in("/v1/responses", {"previous_response_id": "resp_1", "state": None}) == "resp_1"
    assert named_in("/v1/chat/completions", {"state": "state_1"}) == "state_1"
    assert named_in("/v1/states/state_2/content", {}) == "state_2"
    assert named_in("/v1/states", {"response_id": "chatcmpl-3"}) == "chatcmpl-3"
    assert named_in("/v1/responses", {"previous_response_id": 7}) is None
    assert named_in("/v1/states", {}) is None


def test_what_is_refused(pychat_file: Path) -> None:
    with pytest.raises(ValueError, match="replicas: expected 1 or more, got 0"):
        app(pychat_file, replicas=0)
    with pytest.raises(ValueError, match="max_running: expected 1 or more, got 0"):
        build({"models": str(pychat_file), "threads": 1, "settings": {"max_running": 0}})
    with pytest.raises(TypeError, match="replica"):
        build({"models": str(pychat_file), "replica": 1})
