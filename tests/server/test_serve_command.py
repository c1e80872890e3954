"""`rwkv serve`: how it begins and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.conversations import ANSWER, QUESTION
from server.serving import wait_for

RWKV = str(Path(sys.executable).parent / "rwkv")
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
RunCli = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def running(*args: str | Path, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it says."""
    command = [RWKV, "serve", *map(str, args), "--port", "0"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert " at http://" in line, line + process.stderr.read()
            yield process, line.rsplit(" ", 1)[1].strip()
        finally:
            process.kill()


def test_it_serves_with_its_defaults(pychat_file: Path) -> None:
    """The options of sampling hold where a client gives none; the name is the file's."""
    plain = ("--temperature", "0", "--presence-penalty", "0", "--frequency-penalty", "0")
    with running(pychat_file, *plain) as (process, url):
        answer = httpx.post(f"{url}/v1/chat/completions", json=ASK, timeout=60).json()
        assert answer["choices"][0]["message"]["content"] == ANSWER
        assert answer["model"] == pychat_file.stem
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read() == process.stderr.read() == ""


def test_sigterm_finishes_what_there_is(pychat_file: Path) -> None:
    with running(pychat_file, "--alias", "m") as (process, url):
        found: list[httpx.Response] = []
        ask = {
            "prompt": "x",
            "max_tokens": 3000,
            "logit_bias": {"0": -100},
            "seed": 1,
            "stream": True,
        }

        def write() -> None:
            found.append(httpx.post(f"{url}/v1/completions", json=ask, timeout=60))

        thread = threading.Thread(target=write)
        thread.start()
        wait_for(lambda: 'rwkv_running{model="m"} 1.0' in httpx.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not accepts(url))  # nobody new
        thread.join()
        assert found[0].text.rstrip().endswith("data: [DONE]")
        assert '"finish_reason":"length"' in found[0].text
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_drain_has_an_end(pychat_file: Path) -> None:
    with running(pychat_file, "--drain", "1", "--max-output", "1000000") as (process, url):
        ask = {"prompt": "x", "max_tokens": 1_000_000, "logit_bias": {"0": -100}, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=ask, timeout=60) as stream:
            next(stream.iter_bytes())
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(pychat_file: Path) -> None:
    with running(pychat_file, "--drain", "100", "--max-output", "1000000") as (process, url):
        ask = {"prompt": "x", "max_tokens": 1_000_000, "logit_bias": {"0": -100}, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=ask, timeout=60) as stream:
            next(stream.iter_bytes())
            process.send_signal(signal.SIGINT)
            wait_for(lambda: not accepts(url))
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def accepts(url: str) -> bool:
    address = httpx.URL(url)
    try:
        with socket.create_connection((address.host, address.port or 0), timeout=1):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_keys_from_a_file_and_the_environment(pychat_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\ntwo\n")
    for args, env, key in (
        (("--api-keys", file), {}, "two"),
        ((), {"RWKV_API_KEYS": "three"}, "three"),
    ):
        with running(pychat_file, *args, **env) as (_, url):
            assert httpx.get(f"{url}/v1/models").status_code == 401
            headers = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


@pytest.mark.slow
def test_others_may_ask_only_with_a_key_or_if_that_is_said(
    pychat_file: Path, run_cli: RunCli
) -> None:
    done = run_cli("rwkv", "serve", pychat_file, "--host", "0.0.0.0", "--port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "rwkv: host: expected an address that only this machine reaches, since no key is asked "
        "for, got 0.0.0.0. Try --api-keys FILE, or --no-key if all who can reach it may ask\n"
    )
    with running(pychat_file, "--host", "0.0.0.0", "--no-key") as (_, url):
        port = httpx.URL(url).port
        assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["{folder}/no.bin"], 1, "no.bin: "),
        (["{folder}/no.bin", "{model}"], 1, "no.bin: "),
        (["{folder}/empty"], 1, "empty: "),
        (["{model}", "{model}"], 2, "expected another name for each model"),
        (
            ["{model}", "--alias", "a", "--alias", "b"],
            2,
            "expected at most one for each of 1 models",
        ),
        (
            ["{model}", "--host", "no.such.host.invalid"],
            1,
            "host: expected an address of this machine",
        ),
        (["{model}", "--port", "70000"], 2, "--port"),
        (["{model}", "--format", "other"], 1, "format: expected one of world"),
        (["{model}", "--api-keys", "{folder}/none"], 1, "none: "),
        (["{model}", "--api-keys", "{folder}/empty"], 1, "empty: expected a key in each line"),
        (["{model}", "--tokenizer", "{folder}/none"], 1, "none: cannot be opened"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_usage(
    args: list[str], code: int, message: str, pychat_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    (tmp_path / "empty").write_text("\n")
    given = [arg.format(folder=tmp_path, model=pychat_file) for arg in args]
    done = run_cli("rwkv", "serve", *given, env={"COLUMNS": "160"})
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_port_that_is_taken(pychat_file: Path, run_cli: RunCli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_cli("rwkv", "serve", pychat_file, "--port", str(port))
    assert done.returncode == 1
    assert f"port: expected one that is free at 127.0.0.1, got {port}" in done.stderr


@pytest.mark.slow
def test_without_the_extra(pychat_file: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError('no', name='fastapi')")
    done = run_cli("rwkv", "serve", pychat_file, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        "rwkv: rwkv_py.server: expected the package fastapi, found none. Try `pip install "
        "rwkv-py[server]`\n"
    )
