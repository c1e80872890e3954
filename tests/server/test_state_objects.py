"""`/v1/states`: keeping, listing, forking, files, owners, limits."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.protocols import (
    CHAT,
    DRAWN,
    PROMPT,
    STATES,
    post,
    refused,
)
from server.serving import Serve


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


def test_files_in_forms(serve: Serve, pychat_file: Path) -> None:
    with serve({"m": pychat_file}) as client:
        state = post(client, STATES, prompt=PROMPT)
        data = client.get(f"{STATES}/{state['id']}/content").content
        for query, fields in (
            ("", {"name": "mine", "model": "m"}),
            ("?name=mine&model=m", {"purpose": "what we do not know"}),
            ("?name=other", {"name": "mine"}),
        ):
            file = {"file": ("any name.state", data)}
            answer = client.post(STATES + query, files=file, data=fields)
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert (found["name"], found["fingerprint"]) == ("mine", state["fingerprint"])
            assert client.get(f"{STATES}/{found['id']}/content").content == data
        before = client.get(STATES).json()
        for files, fields, message in (
            ([("other", ("x", data))], {}, "file: expected a state file, got none"),
            ([("a", (None, b"b"))], {"file": "x"}, "file: expected a state file, got a text"),
            ([("file", ("x", data))] * 2, {}, "body: expected a form with one file, got another"),
            ([("file", ("x", data[:-1]))], {}, "file: expected a state file, got another or a dam"),
            ([("file", ("x", b""))], {}, "file: expected a state file, got another or a damaged"),
            ([("file", ("x", data))], {"name": "a" * 201}, "name: expected string"),
            ([("file", ("x", data))], {"model": "other"}, "model: expected one of m, got 'other'"),
            ([("file", ("x", data))], {str(i): "x" for i in range(20)}, "body: expected a form"),
        ):
            answer = client.post(STATES, files=files, data=fields)
            assert answer.status_code == (404 if "model" in fields else 400)
            assert answer.json()["error"]["message"].startswith(message)
        assert client.get(STATES).json() == before


def test_forms_that_are_none(client: httpx.Client) -> None:
    """Any bytes are a form, or a 400."""
    form = httpx.Request("POST", "http://x", files={"file": ("x.state", b"rwkv" * 50)})
    whole, kind = form.read(), form.headers["content-type"]
    random = np.random.default_rng(3)
    bodies = [whole[:n] for n in range(1, len(whole), 7)]
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(256)
        bodies.append(bytes(damaged))
    for body in bodies:
        headers = {"content-type": kind}
        answer = client.post(f"{STATES}?model=pydoc", content=body, headers=headers)
        assert answer.status_code == 400, (body, answer.text)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; b",
                 "multipart/form-data; boundary=" + "x" * 300, "multipart/form-data; charset=utf-7",
                 "Multipart/Form-Data;boundary=\xe9"):  # fmt: skip
        headers = httpx.Headers({"content-type": kind}, encoding="latin-1")
        answer = client.post(f"{STATES}?model=pydoc", content=whole, headers=headers)
        assert answer.status_code == 400, (kind, answer.text)
        assert answer.json()["error"]["message"] == (
            "body: expected a form with one file, got another"
        )


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
        "content-type: expected application/json, application/octet-stream or multipart/form-data, "
        "got text/plain"
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


@pytest.mark.parametrize("lasts", [False, True], ids=["until it ends", "in a folder"])
def test_a_quota_for_each_key(serve: Serve, pychat_file: Path, tmp_path: Path, lasts: bool) -> None:
    """To the byte; what is deleted is free again, and another key has its own."""
    with serve({"m": pychat_file}) as client:
        size = post(client, STATES, prompt=PROMPT)["bytes"]
    settings: dict[str, Any] = {"api_keys": ("one", "two"), "state_quota_bytes": 2 * size}
    if lasts:
        settings["state_dir"] = tmp_path / "states"
    one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    ask = {"prompt": PROMPT}
    with serve({"m": pychat_file}, **settings) as client:
        names = [client.post(STATES, json=ask, headers=one).json()["id"] for _ in range(2)]
    if not lasts:
        names = []
    with serve({"m": pychat_file}, **settings) as client:
        while len(names) < 2:
            names.append(client.post(STATES, json=ask, headers=one).json()["id"])
        path = f"{STATES}/{names[0]}"
        data = client.get(f"{path}/content", headers=one).content
        octets = {**one, "content-type": "application/octet-stream"}
        for answer in (
            client.post(STATES, json=ask, headers=one),
            client.post(f"{path}/fork", headers=one),
            client.post(STATES, content=data, headers=octets),
        ):
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("quota_exceeded", "states")
            assert error["message"].endswith(f" bytes, got 0 of {2 * size} of one key")
        assert len(client.get(STATES, headers=one).json()["data"]) == 2
        assert client.post(STATES, json=ask, headers=two).status_code == 200
        for _ in range(2):  # deleted twice is free once
            client.delete(path, headers=one)
        codes = [client.post(STATES, json=ask, headers=one).status_code for _ in range(2)]
        assert codes == [200, 400]
    with serve({"m": pychat_file}, state_quota_bytes=size - 1) as client:
        message = refused(client, STATES, 400, prompt=PROMPT)
        assert message == (
            f"states: expected room for {size} bytes, got {size - 1} of {size - 1} of one key"
        )
        assert client.get(STATES).json()["data"] == []


def test_a_state_that_goes_while_it_is_forked(
    serve: Serve, pychat_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({"m": pychat_file}) as client:
        name = post(client, STATES, prompt=PROMPT)["id"]
        store = client.app.state.context.states  # type: ignore[attr-defined]
        find = store.find

        async def found_and_gone(*args: Any, **more: Any) -> Any:
            state = await find(*args, **more)
            await store.delete(state)
            return state

        monkeypatch.setattr(store, "find", found_and_gone)
        assert client.post(f"{STATES}/{name}/fork").status_code == 404


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
