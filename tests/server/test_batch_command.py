"""`rwkv batch`: a file of requests, answered whatever happens meanwhile."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import Engine, Model, embed
from server.conversations import ANSWER, PLAIN, QUESTION
from server.serving import wait_for
from server.test_serve_command import RWKV

RunCli = Callable[..., subprocess.CompletedProcess[str]]
GREEDY = ("--temperature", "0", "--presence-penalty", "0", "--frequency-penalty", "0")


def request(name: str, url: str, **body: Any) -> str:
    line = {"custom_id": name, "method": "POST", "url": url, "body": body}
    return json.dumps(line) + "\n"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_mixed(path: Path, model: Path, n_lines: int) -> None:
    """Requests of every kind, of many lengths, some of which begin alike, and some bad ones."""
    chance = random.Random(5)
    shared = "The :mod:`json` module encodes and decodes JSON.\n\n" * 12
    with path.open("w") as file:
        for i in range(n_lines):
            head = shared if chance.random() < 0.3 else ""
            n_tokens = chance.randrange(1, 40)
            body: dict[str, Any] = {"model": str(model), "max_tokens": n_tokens}
            kind = chance.randrange(6)
            if kind < 2:
                said = [{"role": "user", "content": f"{head}What does it do? {i}"}]
                file.write(request(f"#{i}", "/v1/chat/completions", **body, messages=said))
            elif kind < 4:
                prompt = f"{head}.. function:: f{i}("
                file.write(request(f"#{i}", "/v1/completions", **body, prompt=prompt))
            elif kind == 4:
                body["input"] = f"{head}{i}"
                file.write(request(f"#{i}", "/v1/embeddings", **body))
            else:
                file.write("no JSON\n")


def test_every_kind_of_line(run_cli: RunCli, pychat_file: Path, tmp_path: Path) -> None:
    model = str(pychat_file)
    said = [{"role": "user", "content": QUESTION}]
    (tmp_path / "in.jsonl").write_text(
        request("chat", "/v1/chat/completions", model=model, messages=said)
        + request("text", "/v1/completions", model=model, prompt="import ", max_tokens=9)
        + request("bad", "/v1/completions", model=model, prompt="import ", top_p=5)
        + request(
            "score", "/v1/completions", model=model, prompt="import json", max_tokens=0,
            echo=True, logprobs=0,
        )
        + "nonsense\n\n"
        + request("vector", "/v1/embeddings", model=model, input="import json")
    )  # fmt: skip
    command = ("rwkv", "batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", *GREEDY)
    done = run_cli(*command, "--json", check=True)
    facts = json.loads(done.stdout)
    assert (facts["n_answered"], facts["n_failed"]) == (4, 2)
    assert facts["failures"] == str(tmp_path / "out.errors.jsonl")
    assert facts["n_tokens"] > 0
    assert done.stderr == ""
    assert files(tmp_path) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]

    found = {row["custom_id"]: row["response"]["body"] for row in rows(tmp_path / "out.jsonl")}
    assert list(found) == ["chat", "text", "score", "vector"]
    assert found["chat"]["choices"][0]["message"]["content"] == ANSWER
    opened = Model(pychat_file)
    with Engine(opened) as engine:
        expected = engine.submit("import ", max_tokens=9, **PLAIN).result()
        scored = engine.submit("import json", max_tokens=0, prompt_logprobs=0)
        scored.result()
    assert found["text"]["choices"][0]["text"] == expected
    told = found["score"]["choices"][0]["logprobs"]["token_logprobs"]
    assert told[1:] == [each.logprob for each in scored.prompt_logprobs[1:] if each is not None]
    vector = np.array(found["vector"]["data"][0]["embedding"], np.float32)
    assert (vector == embed(opened, ["import json"])[0]).all()

    failed = rows(tmp_path / "out.errors.jsonl")
    assert [row["custom_id"] for row in failed] == ["bad", None]
    for row, message in zip(failed, ("top_p: expected", "line: expected JSON"), strict=True):
        assert row["response"]["status_code"] == 400
        assert row["response"]["body"]["error"]["message"].startswith(message)

    before = (tmp_path / "out.jsonl").read_bytes()
    again = json.loads(run_cli(*command, "--json", check=True).stdout)
    assert (again["n_answered"], again["n_failed"], again["n_tokens"]) == (4, 2, 0)
    other = run_cli(*command, "--seed", "2")
    assert other.returncode == 1
    assert "Try another name, or --force" in other.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", (), "in.jsonl: expected a line that names a model, got none. Try --model"),
        (None, (), "in.jsonl: cannot be opened: No such file or directory"),
        ('{"custom_id": "a", "method": "POST", "url": "/", "body": {"model": "nonsense-9b"}}', (),
         "nonsense-9b"),
        ("x", ("--errors", "out.jsonl"), "out.jsonl: expected a file for each of requests"),
    ],
)  # fmt: skip
def test_what_cannot_begin_says_why(
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("in.jsonl").write_text(content)
    before = files(tmp_path)
    done = run_cli("rwkv", "batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl",
                   *(str(tmp_path / o) if o[0] != "-" else o for o in options))  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert files(tmp_path) == before


def test_the_names_of_the_model(run_cli: RunCli, pychat_file: Path, tmp_path: Path) -> None:
    """With --model lines call it by --alias, else by its file's name, or not at all."""
    texts = [request(str(i), "/v1/completions", prompt="x", max_tokens=1, **more) for i, more in
             enumerate([{}, {"model": pychat_file.stem}, {"model": "gpt-4o-mini"}])]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(texts))
    for options, expected in (((), ["0", "1"]), (("--alias", "gpt-4o-mini"), ["0", "2"])):
        out = tmp_path / f"out{len(options)}.jsonl"
        run_cli("rwkv", "batch", tmp_path / "in.jsonl", out, "--model", pychat_file, *options)
        assert [row["custom_id"] for row in rows(out)] == expected


def test_no_lines_are_no_answers(run_cli: RunCli, pychat_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n \n")
    command = ("rwkv", "batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    for _ in range(2):
        run_cli(*command, "--model", pychat_file, check=True)
        assert (tmp_path / "out.jsonl").read_bytes() == b""


def _kill(command: list[str], journal: Path, out: Path, number: int, chance: random.Random) -> bool:
    """Begin, and send a signal when something more is known; return whether it came in time."""
    before = journal.stat().st_size if journal.exists() else 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(
            lambda: (
                process.poll() is not None
                or (journal.exists() and journal.stat().st_size > max(before, 400))
            ),
            60,
        )
        time.sleep(chance.random() / 10)
        process.send_signal(number)
        process.wait()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    return process.returncode != 0


@pytest.mark.slow
def test_killed_five_times_the_output_is_the_same(
    run_cli: RunCli, pychat_file: Path, tmp_path: Path
) -> None:
    write_mixed(tmp_path / "in.jsonl", pychat_file, 600)
    chance = random.Random(1)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run_cli("rwkv", "batch", tmp_path / "in.jsonl", whole, check=True)
    command = [RWKV, "batch", str(tmp_path / "in.jsonl"), str(out), "--max-running", "5"]
    journal = tmp_path / "out.jsonl.journal"
    signals = [signal.SIGKILL] * 5 + [signal.SIGTERM, signal.SIGINT]
    killed = [_kill(command, journal, out, number, chance) for number in signals]
    assert all(killed)
    assert not out.exists()
    other = run_cli(*command, "--seed", "1")
    assert other.returncode == 1
    assert f"{journal}: begun with another seed, expected 0, got 1. Try the same" in other.stderr
    run_cli(*command, check=True)
    assert out.read_bytes() == whole.read_bytes()
    assert (tmp_path / "out.errors.jsonl").read_bytes() == (
        tmp_path / "whole.errors.jsonl"
    ).read_bytes()
    assert files(tmp_path) == ["in.jsonl", "out.errors.jsonl", "out.jsonl", "whole.errors.jsonl",
                               "whole.jsonl"]  # fmt: skip


def test_force_replaces_what_other_work_has_left(
    run_cli: RunCli, pychat_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(request("a", "/v1/embeddings", input="x"))
    (tmp_path / "out.jsonl").write_text("mine")
    (tmp_path / "out.jsonl.journal").write_text('{"form": "rwkv batch journal 1", "input": ""}\n')
    run_cli(
        "rwkv", "batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", pychat_file,
        "--force", check=True,
    )  # fmt: skip
    assert [row["custom_id"] for row in rows(tmp_path / "out.jsonl")] == ["a"]
    assert files(tmp_path) == ["in.jsonl", "out.jsonl"]
    again = run_cli(
        "rwkv", "batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", pychat_file,
        check=True,
    )  # fmt: skip
    told = " ".join(again.stdout.split())
    assert "answered 1 line, in " in told
    assert told.endswith("now nothing was left to do")
