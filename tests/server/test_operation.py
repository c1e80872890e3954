"""Who may ask, how much, and what happens to those who go away, wait, or send garbage."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rwkv_py import EngineClosedError, InvalidArgumentError, Model, Request
from rwkv_py.server import Settings
from rwkv_py.server.models import Served
from server.conversations import ANSWER, PLAIN, QUESTION
from server.serving import Serve, idle, wait_for

ENDLESS: dict[str, Any] = {"max_tokens": 16384, "logit_bias": {"0": -100, "10": -100}, "seed": 1}
CHAT = "/v1/chat/completions"
SAID = {"messages": [{"role": "user", "content": QUESTION}]}


def only(client: httpx.Client) -> Served:
    """The one model of a server."""
    (served,) = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    found: Served = served
    return found


def running(client: httpx.Client) -> list[Request]:
    """The texts that are being written."""
    models = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    return [task.request for model in models for task in model.engine._running]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", CHAT, "/v1/responses", "/v1/messages"])
def test_a_client_that_goes_away_frees_its_place(
    client: httpx.Client, path: str, stream: bool
) -> None:
    ask: dict[str, Any] = {"model": "pydoc", "stream": stream, **ENDLESS, "n": 2}
    if path == "/v1/completions":
        ask["prompt"] = "import "
    elif path == "/v1/responses":
        ask["input"] = QUESTION
    else:
        ask.update(SAID)
    if path == "/v1/messages":
        ask["banned_tokens"] = [0, 10]
    body = json.dumps(ask).encode()
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: running(client) != [])
        if stream:
            assert connection.recv(10)
        begun = running(client)
        assert begun
    wait_for(lambda: idle(client))
    assert all(text.finish_reason == "cancelled" for text in begun)


def test_a_client_that_goes_away_while_its_texts_are_read(client: httpx.Client) -> None:
    ask = {"model": "pydoc", "input": ["import this " * 2000] * 20}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/embeddings", json=ask, timeout=httpx.Timeout(60, read=0.5))
    gone = time.monotonic()
    wait_for(lambda: idle(client))
    assert time.monotonic() - gone < 10  # all of it takes longer


def test_the_line_is_bounded(serve: Serve, pychat_file: Path) -> None:
    """Two are written, one waits, and the next is told to come again."""
    with serve({"m": pychat_file}, max_running=2, max_waiting=1) as client:
        engine = only(client).engine
        with ThreadPoolExecutor(3) as pool:
            answers = [
                pool.submit(
                    client.post,
                    "/v1/completions",
                    json={"prompt": "a", **ENDLESS, "max_tokens": 3000},
                )
                for _ in range(3)
            ]
            wait_for(lambda: engine.n_running + engine.n_waiting == 3)
            for path, ask in (
                ("/v1/completions", {"prompt": "a"}),
                ("/v1/messages", {**SAID, "max_tokens": 9}),
            ):
                refused = client.post(path, json=ask)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["type"] == "rate_limit_error"
            assert all(answer.result().status_code == 200 for answer in answers)
        # Of several texts all are begun or none: such as do not end while others are begun.
        several = {"prompt": "a", "n": 5, **ENDLESS, "max_tokens": 700}
        refused = client.post("/v1/completions", json=several)
        assert refused.status_code == 429
        wait_for(lambda: idle(client))


def test_a_text_that_takes_too_long_ends_where_it_is(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, max_running=1, max_seconds=0.5) as client:
        ask = {"prompt": "a", **ENDLESS}
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(client.post, "/v1/completions", json=ask)
            wait_for(lambda: only(client).engine.n_running == 1)
            begun = time.monotonic()
            second = client.post("/v1/completions", json=ask)
            assert time.monotonic() - begun < 5
        (choice,) = first.result().json()["choices"]
        assert choice["finish_reason"] == "length" and choice["text"]
        assert second.status_code in (200, 503)  # its turn came at the last moment, or did not
        if second.status_code == 503:
            assert "expected its turn in time" in second.json()["error"]["message"]


def test_limits_of_prompt_and_output(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, max_prompt_tokens=50, max_output_tokens=7) as client:
        refused = client.post("/v1/completions", json={"prompt": "a" * 51})
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "prompt: expected at most 50 tokens, got 51"
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        refused = client.post(CHAT, json={"messages": [{"role": "user", "content": "a" * 51}]})
        assert refused.json()["error"]["param"] == "messages"
        refused = client.post("/v1/embeddings", json={"input": "a" * 51})
        assert refused.json()["error"]["param"] == "input"
        for ask in ({"max_tokens": 100}, {"max_tokens": 7}):
            found = client.post("/v1/completions", json={"prompt": "a", **ENDLESS, **ask}).json()
            assert found["usage"]["completion_tokens"] == 7
        found = client.post(CHAT, json={**SAID, "seed": 1, "logit_bias": {"0": -100, "10": -100}})
        assert found.json()["usage"]["completion_tokens"] == 7


def test_a_body_that_is_too_long(serve: Serve, pychat_file: Path) -> None:
    """Whether it says so or not."""
    with serve({"m": pychat_file}, max_body_bytes=1000) as client:
        refused = client.post("/v1/completions", json={"prompt": "a" * 1000})
        assert refused.status_code == 413
        assert "body: expected at most 1000 bytes, got 10" in refused.json()["error"]["message"]

        def pieces() -> Any:
            yield b'{"prompt": "'
            for _ in range(20):
                yield b"a" * 100

        kind = {"content-type": "application/json"}
        refused = client.post("/v1/messages", content=pieces(), headers=kind)
        assert refused.status_code == 413
        assert refused.json()["error"]["type"] == "request_too_large"
        assert client.post("/v1/completions", json={"prompt": "a"}).status_code == 200
        # Who sends all before it reads gets the answer; who asks before it sends need not send.
        host, port = client.base_url.host, client.base_url.port
        assert port is not None
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n"
        for sent in (b"\r\n" + b"a" * 20_000_000, b"Expect: 100-continue\r\n\r\n"):
            with socket.create_connection((host, port), timeout=10) as connection:
                connection.sendall(head.encode() + sent)
                assert connection.recv(12) == b"HTTP/1.1 413"


def test_keys(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, api_keys=("first-key", "second-key")) as client:
        for headers in (
            {},
            {"authorization": "Bearer other"},
            {"authorization": "first-key"},
            {"authorization": "Bearer"},
            {"x-api-key": "first-ke"},
            {"x-api-key": b"\xff\xfe"},
        ):
            for path in ("/v1/models", "/metrics", "/v1/messages", "/openapi.json", "/nothing"):
                refused = client.get(path, headers=headers)  # type: ignore[arg-type]
                assert refused.status_code == 401, (headers, path)
                assert "first-key" not in refused.text
        error = client.post("/v1/messages", json={}).json()
        assert error["error"]["type"] == "authentication_error"
        assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert client.get("/health").status_code == 200
        for headers in ({"authorization": "Bearer second-key"}, {"x-api-key": "first-key"}):
            assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_response_is_its_owners(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, api_keys=("one", "two"), max_stored=2) as client:
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        ask = {"input": QUESTION, "max_output_tokens": 3}
        names = [client.post("/v1/responses", json=ask, headers=one).json()["id"] for _ in range(3)]
        assert client.get(f"/v1/responses/{names[2]}", headers=one).status_code == 200
        assert client.get(f"/v1/responses/{names[2]}", headers=two).status_code == 404
        assert client.delete(f"/v1/responses/{names[2]}", headers=two).status_code == 404
        assert client.get(f"/v1/responses/{names[0]}", headers=one).status_code == 404  # too old


def test_pages_of_other_origins(serve: Serve, client: httpx.Client, pychat_file: Path) -> None:
    """Off unless it is named."""
    origin = {"origin": "http://page.example"}
    assert "access-control-allow-origin" not in client.get("/health", headers=origin).headers
    with serve({"m": pychat_file}, cors_origins=("http://page.example",), api_keys=("k",)) as other:
        allowed = other.get("/health", headers=origin).headers
        assert allowed["access-control-allow-origin"] == "http://page.example"
        preflight = {**origin, "access-control-request-method": "POST",
                     "access-control-request-headers": "authorization"}  # fmt: skip
        assert other.options(CHAT, headers=preflight).status_code == 200
        stranger = {"origin": "http://other.example"}
        assert "access-control-allow-origin" not in other.get("/health", headers=stranger).headers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "body: expected a value, got none"),
        (b"{", "body: expected JSON, got none"),
        (b"\xff\xfe", "body: expected JSON, got none"),
        (b"[" * 100_000, "body: expected JSON, got none that can be read"),
        (b"[]", "body: expected"),
        (b"null", "body: expected"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature: expected a number"),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature: expected a number"),
        (b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}", "body: expected JSON"),
        (b'{"prompt": "a", "max_tokens": -100000000000000000000}', "max_tokens: "),
        (b'{"prompt": "a", "top_k": 99999999999}', "top_k: expected 0 (all) or more"),
        (b'{"model": "\\ud800", "prompt": "a"}', "model: expected one of"),
        (b'{"prompt": "a", "stop": ["\\udfff"]}', "stop: expected Unicode characters"),
    ],
)
def test_garbage(client: httpx.Client, content: bytes, message: str) -> None:
    kind = {"content-type": "application/json"}
    answer = client.post("/v1/completions?", content=content, headers=kind)
    assert 400 <= answer.status_code < 500, answer.text
    if b"model" not in content and b"prompt" in content:
        content = content.replace(b"{", b'{"model": "pydoc", ', 1)
        answer = client.post("/v1/completions", content=content, headers=kind)
    assert answer.status_code in (400, 404), answer.text
    assert message in answer.json()["error"]["message"]


def test_paths_and_methods_that_there_are_not(client: httpx.Client) -> None:
    for path, kind in (
        ("/v1/nothing", "invalid_request_error"),
        ("/v1/messages/x", "not_found_error"),
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == kind
    assert client.get("/v1/completions").status_code == 405
    assert client.get("/v1/completions").headers["allow"] == "POST"


def test_nothing_that_a_client_sends_is_logged(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rwkv_py.server"):
        secret = "a-secret-word"
        headers = {"authorization": f"Bearer {secret}"}
        for path in ("/v1/completions", f"/v1/{secret}"):
            ask = {"model": "pydoc", "prompt": secret}
            client.post(f"{path}?key={secret}", json=ask, headers=headers)
        client.post("/v1/completions", json={"model": secret})
    lines = [record.getMessage() for record in caplog.records]
    assert any("POST /v1/completions 200" in line for line in lines)
    assert any("POST unknown 404" in line for line in lines)
    assert not any(secret in line for line in lines)


def test_a_fault_of_ours(
    serve: Serve,
    pychat_file: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a 500 in the protocol's form, and the log says where, not what."""
    with serve({"m": pychat_file}) as client:

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("with a secret in it")

        monkeypatch.setattr(only(client).engine, "submit", fail)
        for path in (CHAT, "/v1/messages"):
            answer = client.post(path, json={**SAID, "max_tokens": 5})
            assert answer.status_code == 500
            assert answer.json()["error"]["message"] == "server: expected an answer, got a fault"
        monkeypatch.setattr("rwkv_py.server.openai_models._facts", fail)
        with caplog.at_level(logging.ERROR, "rwkv_py.server"):
            assert client.get("/v1/models").status_code == 500
        assert "fault: RuntimeError in fail" in caplog.text
        assert "secret" not in caplog.text
        monkeypatch.undo()
        assert client.post(CHAT, json={**SAID, "max_tokens": 5}).status_code == 200


@pytest.mark.parametrize("error", [MemoryError(), EngineClosedError("engine: closed")])
def test_what_cannot_be_done_now_says_when(
    serve: Serve, pychat_file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """In the form of the protocol: when one that is loaded has no more to do, and another loads."""
    with serve({"m": pychat_file}) as client:
        client.app.state.context.models._loading_seconds = 7.2  # type: ignore[attr-defined]

        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(only(client).engine, "submit", fail)
        for path, kind in ((CHAT, "server_error"), ("/v1/messages", "overloaded_error")):
            answer = client.post(path, json={**SAID, "max_tokens": 5})
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "8"
            assert answer.json()["error"]["type"] == kind
        monkeypatch.setattr("rwkv_py.server.openai_models._facts", fail)
        assert client.get("/v1/models").headers["retry-after"] == "8"


def test_metrics(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}) as client:
        client.post(CHAT, json={**SAID, **PLAIN})
        client.post(CHAT, json={**SAID, **PLAIN})
        client.get("/v1/nothing")
        lines = dict(
            line.rsplit(" ", 1)
            for line in client.get("/metrics").text.splitlines()
            if line[0] != "#"
        )
    n_prompt = len(f"User: {QUESTION}\n\nAssistant:")
    assert float(lines['rwkv_requests_total{route="/v1/chat/completions",status="200"}']) == 2
    assert float(lines['rwkv_requests_total{route="unknown",status="404"}']) == 1
    assert float(lines['rwkv_prompt_tokens_total{model="m"}']) == 2 * n_prompt
    assert float(lines['rwkv_cached_tokens_total{model="m"}']) == n_prompt
    assert float(lines['rwkv_completion_tokens_total{model="m"}']) == 2 * (len(ANSWER) + 2)
    assert float(lines['rwkv_running{model="m"}']) == 0
    assert float(lines['rwkv_text_seconds_count{model="m"}']) == 2


def test_in_company_as_alone(client: httpx.Client, pychat: Model) -> None:
    """Streamed or not, from the cache or not: each text is the one of its request."""
    asks = [
        {"model": "pychat", "messages": [{"role": "user", "content": f"What is {name}?"}],
         "seed": i, "temperature": 1, "top_p": 1, "max_tokens": 40, "stream": i % 2 == 1}
        for i, name in enumerate(["json", "re.match", "os.path", "list", "ValueError", "yield"])
    ]  # fmt: skip

    def text(ask: dict[str, Any]) -> str:
        answer = client.post(CHAT, json=ask)
        assert answer.status_code == 200
        if not ask["stream"]:
            return str(answer.json()["choices"][0]["message"]["content"])
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        return "".join(
            json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines
        )

    alone = [text(ask) for ask in asks]
    with ThreadPoolExecutor(12) as pool:
        for _ in range(3):
            both = asks + [{**ask, "stream": not ask["stream"]} for ask in asks]
            assert list(pool.map(text, both)) == alone * 2


def test_one_who_asks_for_much_keeps_nobody_waiting(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}, max_running=2, api_keys=("much", "little")) as client:
        much, little = ({"x-api-key": key} for key in ("much", "little"))
        done: list[str] = []

        def ask(who: str, headers: dict[str, str], n_tokens: int) -> None:
            body = {"prompt": "a", **ENDLESS, "max_tokens": n_tokens}
            assert client.post("/v1/completions", json=body, headers=headers).status_code == 200
            done.append(who)

        threads = [threading.Thread(target=ask, args=("much", much, 120)) for _ in range(8)]
        for thread in threads:
            thread.start()
        engine = only(client).engine
        wait_for(lambda: engine.n_running + engine.n_waiting == 8)
        ask("little", little, 5)
        for thread in threads:
            thread.join()
    assert done.index("little") <= 4  # behind those at work, before those in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_running": 0}, "max_running: expected 1 or more, got 0"),
        ({"max_seconds": 0}, "max_seconds: expected a number above 0, got 0"),
        ({"api_keys": ("",)}, "api_keys: expected ASCII"),
        ({"api_keys": ("ä",)}, "api_keys: expected ASCII"),
        ({"chat_format": "other"}, "format: expected one of"),
        ({"sampling": {"top_p": 3}}, "top_p: expected a number from 0 to 1"),
        ({"memory": 0}, "memory: expected 1 or more, got 0"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Settings(**settings)
    assert str(caught.value).startswith(message)
