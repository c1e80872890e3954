"""`/v1/files` and `/v1/batches`: requests that nobody waits for, answered beside the others."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from rwkv_py.server import batch_runs
from server.conversations import ANSWER, PLAIN, QUESTION
from server.protocols import post, refused
from server.serving import serve, wait_for
from server.test_batch_command import request
from server.test_serve_command import running

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ENDED = {"completed", "failed", "cancelled", "expired"}


@pytest.fixture(scope="module")
def kept(pychat_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("kept")
    with serve({"pychat": pychat_file}, state_dir=folder, max_running=8) as client:
        yield client


def upload(client: httpx.Client, content: str | bytes, **headers: str) -> str:
    answer = client.post(
        "/v1/files",
        files={"file": ("in.jsonl", content)},
        data={"purpose": "batch"},
        headers=headers,
    )
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found


def begin(client: httpx.Client, content: str, url: str = TEXT, window: str = "24h") -> str:
    ask = {"input_file_id": upload(client, content), "endpoint": url, "completion_window": window}
    found: str = post(client, "/v1/batches", **ask)["id"]
    return found


def state(client: httpx.Client, batch: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/batches/{batch}").json()
    return found


def ended(client: httpx.Client, batch: str) -> dict[str, Any]:
    wait_for(lambda: state(client, batch)["status"] in ENDED, 60)
    return state(client, batch)


def rows(client: httpx.Client, file: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/files/{file}/content")
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def texts(n: int, **body: Any) -> str:
    given = {"prompt": ".. function:: ", "max_tokens": 30, **body}
    return "".join(request(f"#{i}", TEXT, **given) for i in range(n))


def test_the_official_client(kept: httpx.Client) -> None:
    """All that it can do with files and batches."""
    said = [{"role": "user", "content": QUESTION}]
    content = request("a", CHAT, messages=said, model="pychat", **PLAIN)
    content += request("b", CHAT, messages=[]) + "nonsense\n"
    content += request("c", TEXT, prompt="x")
    with openai.OpenAI(base_url=f"{kept.base_url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", io.BytesIO(content.encode())), purpose="batch")
        assert (file.filename, file.bytes, file.purpose) == ("in.jsonl", len(content), "batch")
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).read() == content.encode()
        assert file.id in [each.id for each in client.files.list(purpose="batch")]
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,  # type: ignore[arg-type]
            completion_window="24h",
            metadata={"whose": "ours"},
        )
        assert batch.status == "validating"
        wait_for(lambda: client.batches.retrieve(batch.id).status == "completed")
        batch = client.batches.retrieve(batch.id)
        assert batch.metadata == {"whose": "ours"}
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
        times = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
        assert times == sorted(each or 0 for each in times)
        assert batch.expires_at == batch.created_at + 86400
        assert batch.id in [each.id for each in client.batches.list(limit=3)]
        assert batch.output_file_id is not None
        assert batch.error_file_id is not None
        (answer,) = [
            json.loads(line) for line in client.files.content(batch.output_file_id).iter_lines()
        ]
        assert answer["custom_id"] == "a"
        message = answer["response"]["body"]["choices"][0]["message"]["content"]
        assert message == ANSWER
        # What goes on from there is not kept: a million of them would push out all others.
        name = answer["response"]["body"]["id"]
        assert "response_id" in refused(kept, "/v1/states", 404, response_id=name)
        failed = rows(kept, batch.error_file_id)
        assert [row["custom_id"] for row in failed] == ["b", None, "c"]
        assert "as the batch says" in failed[2]["response"]["body"]["error"]["message"]
        assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError, match="expected a file that is kept"):
            client.files.retrieve(file.id)
        with pytest.raises(openai.BadRequestError, match="expected one that has not ended"):
            client.batches.cancel(batch.id)


def test_a_cancelled_batch_keeps_what_was_answered(kept: httpx.Client) -> None:
    batch = begin(kept, texts(300))
    wait_for(lambda: state(kept, batch)["request_counts"]["completed"] > 3, 60)
    file = state(kept, batch)["input_file_id"]
    in_use = kept.delete(f"/v1/files/{file}")
    assert in_use.status_code == 400
    assert in_use.json()["error"]["code"] == "file_in_use"
    found = post(kept, f"/v1/batches/{batch}/cancel")
    assert found["status"] == "cancelling"
    found = ended(kept, batch)
    assert found["status"] == "cancelled"
    n_answered = found["request_counts"]["completed"]
    assert 3 < n_answered < 300
    assert len(rows(kept, found["output_file_id"])) == n_answered
    assert found["error_file_id"] is None


def test_one_that_waits_is_cancelled_at_once(kept: httpx.Client) -> None:
    """Of one owner one comes after the other."""
    first, second = begin(kept, texts(300)), begin(kept, texts(1))
    assert state(kept, second)["status"] == "validating"
    assert post(kept, f"/v1/batches/{second}/cancel")["status"] == "cancelled"
    post(kept, f"/v1/batches/{first}/cancel")
    assert ended(kept, first)["status"] == "cancelled"


def test_an_expired_batch_says_so_of_each_line(
    kept: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(batch_runs._SECONDS, "h", 1)
    n = 500
    batch = begin(kept, texts(n, max_tokens=200, logit_bias={"0": -100}), window="1h")
    found = ended(kept, batch)
    assert found["status"] == "expired"
    counts = found["request_counts"]
    assert counts["total"] == n == counts["completed"] + counts["failed"]
    assert counts["failed"] > 0
    failed = rows(kept, found["error_file_id"])
    assert len(failed) == counts["failed"]
    assert failed[-1]["response"] is None
    assert failed[-1]["error"]["code"] == "batch_expired"
    names = [row["custom_id"] for row in failed]
    if found["output_file_id"] is not None:
        names += [row["custom_id"] for row in rows(kept, found["output_file_id"])]
    assert sorted(names) == sorted(f"#{i}" for i in range(n))


def test_an_empty_file_fails(kept: httpx.Client) -> None:
    found = ended(kept, begin(kept, "\n\n"))
    assert found["status"] == "failed"
    assert found["errors"]["data"][0]["code"] == "empty_file"
    assert found["failed_at"] is not None


def test_who_waits_comes_first(kept: httpx.Client) -> None:
    """A batch leaves places free; while somebody waits it takes fewer."""
    long = {"max_tokens": 60, "logit_bias": {"0": -100}}
    batch = begin(kept, texts(2000, **long))
    engine = kept.app.state.context.models.loaded[0].engine  # type: ignore[attr-defined]
    wait_for(lambda: engine.n_running == 6, 60)
    for _ in range(10):
        time.sleep(0.02)
        assert engine.n_running <= 6
    with kept.stream("POST", TEXT, json={**long, "max_tokens": 16000, "stream": True}) as answer:
        lines = answer.iter_lines()  # which, let go, would end the answer
        next(lines)
        wait_for(lambda: engine.n_running == 3, 60)
        for _ in range(20):
            time.sleep(0.02)
            assert engine.n_running <= 3, engine.shares
    wait_for(lambda: engine.n_running == 6, 60)
    post(kept, f"/v1/batches/{batch}/cancel")
    assert ended(kept, batch)["status"] == "cancelled"


def test_lists_have_pages(kept: httpx.Client) -> None:
    ids = [upload(kept, "x") for _ in range(3)]
    page = kept.get("/v1/files", params={"limit": 2}).json()
    assert [each["id"] for each in page["data"]] == ids[:0:-1]
    assert page["has_more"]
    rest = kept.get("/v1/files", params={"limit": 2, "after": page["last_id"]}).json()
    assert rest["data"][0]["id"] == ids[0]
    oldest = kept.get("/v1/files", params={"order": "asc", "purpose": "batch"}).json()["data"]
    assert [each["id"] for each in oldest][-3:] == ids
    assert kept.get("/v1/files", params={"after": "file-1"}).status_code == 400
    for id in ids:
        assert kept.delete(f"/v1/files/{id}").json()["deleted"]


@pytest.mark.parametrize(
    ("ask", "status", "message"),
    [
        ({"endpoint": "/v1/images"}, 400, "endpoint: expected one of /v1/chat/completions, "),
        ({"input_file_id": "file-1"}, 404, "input_file_id: expected a file that is kept"),
        ({"input_file_id": "\ud800"}, 404, "input_file_id: expected a file that is kept"),
        ({"completion_window": "soon"}, 400, "completion_window: "),
        ({"completion_window": "0h"}, 400, "completion_window: "),
        ({"metadata": {"a": 1}}, 400, "metadata.a: "),
    ],
)
def test_what_is_refused(
    kept: httpx.Client, ask: dict[str, Any], status: int, message: str
) -> None:
    good = {"input_file_id": upload(kept, texts(1)), "endpoint": TEXT, "completion_window": "24h"}
    told = refused(kept, "/v1/batches", status, **{**good, **ask})
    assert told.startswith(message)


def test_uploads_that_are_refused(kept: httpx.Client) -> None:
    for options, message in (
        ({"data": {"purpose": "batch"}}, "file: expected a file of requests, got none"),
        ({"files": {"file": b"x"}}, "purpose: expected 'batch', got none"),
        (
            {"files": {"file": b"x"}, "data": {"purpose": "assistants"}},
            "purpose: expected 'batch', got 'assistants'",
        ),
        ({"files": [("file", b"x"), ("more", b"y")]}, "body: expected a form with one file"),
        ({"content": b"x"}, "file: expected a file of requests, got none"),
    ):
        answer = kept.post("/v1/files", **options)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(message)
    for path in ("files/file-1", "files/file-1/content", "batches/batch_1"):
        assert kept.get(f"/v1/{path}").status_code == 404
    assert kept.post("/v1/batches/batch_1/cancel").status_code == 404


def test_without_a_folder_it_says_what_is_missing(client: httpx.Client) -> None:
    for method, path in (("GET", "files"), ("POST", "files"), ("GET", "batches/x")):
        answer = client.request(method, f"/v1/{path}")
        assert answer.status_code == 400
        assert "expected one that was given --state-dir" in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == "no_state_dir"


def test_each_key_has_its_own(pychat_file: Path, tmp_path: Path) -> None:
    keys, limits = ("one", "two"), {"state_quota_bytes": 1000, "state_disk_bytes": 1500}
    one, two = ({"Authorization": f"Bearer {key}"} for key in keys)
    with serve({"m": pychat_file}, state_dir=tmp_path, api_keys=keys, **limits) as client:
        file = upload(client, "x" * 900, **one)
        assert client.get(f"/v1/files/{file}", headers=one).status_code == 200
        assert client.get(f"/v1/files/{file}", headers=two).status_code == 404
        assert client.delete(f"/v1/files/{file}", headers=two).status_code == 404
        assert client.get("/v1/files", headers=two).json()["data"] == []
        ask = {"input_file_id": file, "endpoint": TEXT, "completion_window": "24h"}
        assert client.post("/v1/batches", headers=two, json=ask).status_code == 404
        for headers, n_bytes, code in ((one, 200, "quota_exceeded"), (two, 700, "files_full")):
            more = client.post(
                "/v1/files",
                files={"file": b"x" * n_bytes},
                data={"purpose": "batch"},
                headers=headers,
            )
            assert more.status_code == 400
            assert more.json()["error"]["code"] == code
        client.delete(f"/v1/files/{file}", headers=one)
        upload(client, "x" * 900, **two)


@pytest.mark.parametrize(
    "number",
    [
        None,
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_after_a_restart(pychat_file: Path, tmp_path: Path, number: int | None) -> None:
    """Ended in peace, or as it may come: no line is answered twice or not at all."""
    folder, n = tmp_path / "kept", 200  # more than are written at once
    lines = texts(n, max_tokens=100, logit_bias={"0": -100})
    if number is None:
        with serve({"pychat": pychat_file}, state_dir=folder) as client:
            batch = begin(client, lines)
            wait_for(lambda: state(client, batch)["request_counts"]["completed"] > 3, 60)
    else:
        args = (pychat_file, "--alias", "pychat", "--state-dir", folder)
        with running(*args) as (process, url), httpx.Client(base_url=url) as client:
            batch = begin(client, lines)
            wait_for(lambda: state(client, batch)["request_counts"]["completed"] > 3, 60)
            process.send_signal(number)
            process.wait(60)
    journal = folder / "files" / "journals" / batch
    n_before = len(journal.read_bytes().splitlines()) - 1
    assert 3 < n_before < n
    with serve({"pychat": pychat_file}, state_dir=folder) as client:
        assert state(client, batch)["status"] == "in_progress"
        found = ended(client, batch)
        assert found["status"] == "completed"
        assert found["request_counts"] == {"total": n, "completed": n, "failed": 0}
        assert [row["custom_id"] for row in rows(client, found["output_file_id"])] == [
            f"#{i}" for i in range(n)
        ]
    assert not journal.exists()
    assert not list(folder.glob("files/*.part"))


def test_what_a_kill_left_is_removed(pychat_file: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "journals").mkdir(parents=True)
    for path in (files / "file-1", files / "journals" / "batch_1"):
        path.write_text("stray")
    with serve({"pychat": pychat_file}, state_dir=tmp_path) as client:
        kept = upload(client, "x")
    with serve({"pychat": pychat_file}, state_dir=tmp_path) as client:
        assert client.get(f"/v1/files/{kept}/content").text == "x"
    assert not (files / "file-1").exists()
    assert not list((files / "journals").iterdir())
