"""Commands where the system has what Windows has, as far as that can be known here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rwkv_py import InvalidArgumentError
from rwkv_py._system import lock_file
from rwkv_py.chat_template import format_of_template

AS_WINDOWS = Path(__file__).with_name("as_windows.py")


def rwkv(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, AS_WINDOWS, "rwkv", *arguments]
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )


def test_batch(pychat_file: Path, tmp_path: Path) -> None:
    """Its journal is read at places, and one process has it at a time."""
    n_lines = 5
    with (tmp_path / "in.jsonl").open("w") as file:
        for i in range(n_lines):
            body = {"model": str(pychat_file), "input": f"line {i}"}
            line = {"custom_id": f"#{i}", "method": "POST", "url": "/v1/embeddings", "body": body}
            file.write(json.dumps(line) + "\n")
    command = ("batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--json")

    journal = tmp_path / "out.jsonl.journal"
    with journal.open("wb") as taken:
        assert lock_file(taken.fileno())
        refused = rwkv(*command)
    assert refused.returncode == 1
    assert "expected that nobody else works on it" in refused.stderr
    journal.unlink()

    done = rwkv(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["n_answered"] == n_lines
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"#{i}" for i in range(n_lines)]
    assert all(answer["response"]["status_code"] == 200 for answer in answers)


def test_a_checkpoint_is_converted_once(repo: Path, tmp_path: Path) -> None:
    checkpoint = repo / "examples" / "rwkv7-pydoc-L6-D256.pth"
    command = ("generate", checkpoint, "--prompt", "import ", "--max-tokens", 1, "--temperature", 0)
    first = rwkv(*command, RWKV_CACHE=str(tmp_path))
    assert (first.returncode, "of 3.00 GB" in first.stderr) == (0, True), first.stderr
    assert len(list(tmp_path.rglob("*.bin"))) == 1
    again = rwkv(*command, RWKV_CACHE=str(tmp_path))
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)


def test_template_is_not_run_without_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    script = (
        "import runpy, sys; sys.modules['resource'] = None; "
        "runpy.run_path(sys.argv[-1], run_name='__main__')"
    )
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{script}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", os.fspath(python))
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(InvalidArgumentError, match="expected a system that limits what a program"):
        format_of_template(template, str(tmp_path / "model.gguf"))
