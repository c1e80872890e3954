"""The `rwkv` command, as a user meets it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from rwkv_py import Session, Tokenizer, __version__

RunCli = Callable[..., CompletedProcess[str]]
PROMPT = ".. function:: "
COMMANDS = ["bench", "compare", "generate", "info", "lambada", "perplexity", "tokenize"]


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Path:
    return converted("q4_0")


def test_generate_is_what_session_generates(model: Path, run_cli: RunCli) -> None:
    done = run_cli(
        "rwkv", "generate", model, "--prompt", PROMPT, "--max-tokens", "80", "--seed", "3",
        "--temperature", "0.8", "--top-p", "0.9", check=True,
    )  # fmt: skip
    session = Session(model)
    text = session.generate(PROMPT, max_tokens=80, seed=3, temperature=0.8, top_p=0.9)
    assert done.stdout == text + "\n"
    assert done.stderr == ""


def test_generate_every_option(model: Path, run_cli: RunCli) -> None:
    sampling = {
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 30,
        "min_p": 0.01,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "penalty_decay": 0.99,
        "seed": 4,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in sampling.items()]
    args = ("-p", PROMPT, "-n", "50", "--stop", "``", "--stop", "::", "--threads", "1")
    done = run_cli("rwkv", "generate", model, *args, *options, check=True)
    text = Session(model).generate(PROMPT, max_tokens=50, stop=["``", "::"], **sampling)
    assert done.stdout == text + "\n"


def test_generate_mirostat(model: Path, run_cli: RunCli) -> None:
    args = ("-p", PROMPT, "-n", "30", "--seed", "4", "--mirostat-tau", "2", "--mirostat-eta", "0.3")
    done = run_cli("rwkv", "generate", model, *args, check=True)
    text = Session(model).generate(PROMPT, max_tokens=30, seed=4, mirostat_tau=2, mirostat_eta=0.3)
    assert done.stdout == text + "\n"


def test_generate_prompt_from_stdin(model: Path, run_cli: RunCli) -> None:
    args = ("-n", "20", "--temperature", "0")
    expected = run_cli("rwkv", "generate", model, "-p", PROMPT, *args, check=True).stdout
    done = run_cli("rwkv", "generate", model, "-p", "-", *args, check=True, stdin=PROMPT)
    assert done.stdout == expected


def test_generate_streams(model: Path) -> None:
    """Text comes while the command is still writing, without waiting for a full buffer."""
    rwkv = str(Path(sys.executable).parent / "rwkv")
    command = [rwkv, "generate", str(model), "-p", PROMPT, "-n", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(10)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def test_generate_in_a_terminal_and_ctrl_c(model: Path) -> None:
    rwkv = shutil.which("rwkv", path=str(Path(sys.executable).parent))
    assert rwkv is not None
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(rwkv, [rwkv, "generate", str(model), "-p", PROMPT, "-n", "1000000"])
    screen = b""
    while len(screen) < 2000:
        screen += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            screen += os.read(terminal, 1000)
    except OSError:  # Linux's way of saying that the other end is closed
        pass
    finally:
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"Traceback" not in screen
    assert b"Aborted" not in screen


def test_generate_json(model: Path, run_cli: RunCli) -> None:
    args = ("-p", PROMPT, "-n", "30", "--seed", "4", "--stop", "\n\n", "--json")
    facts = json.loads(run_cli("rwkv", "generate", model, *args, check=True).stdout)
    stream = Session(model).stream(PROMPT, max_tokens=30, seed=4, stop="\n\n")
    assert facts == {
        "prompt": PROMPT,
        "text": "".join(stream),
        "finish_reason": stream.finish_reason,
        "tokens": stream.tokens,
    }


def test_tokenize(model: Path, run_cli: RunCli) -> None:
    world = run_cli("rwkv", "tokenize", "--tokenizer", "world", 'Hello, "né"\n', check=True)
    lines = [line.split(None, 1) for line in world.stdout.splitlines()]
    assert Tokenizer.world().decode([int(token) for token, _ in lines]) == 'Hello, "né"\n'
    assert "".join(json.loads(piece) for _, piece in lines) == 'Hello, "né"\n'
    assert run_cli("rwkv", "tokenize", model, "ab", check=True).stdout == '    97 "a"\n    98 "b"\n'


def test_tokenize_json_and_stdin(model: Path, run_cli: RunCli) -> None:
    done = run_cli("rwkv", "tokenize", model, "-", "--json", check=True, stdin="né")
    facts = json.loads(done.stdout)
    pieces = ["n", r"\xc3", r"\xa9"]
    assert facts == {"n_tokens": 3, "tokens": [110, 195, 169], "pieces": pieces}


def test_tokenize_vocabulary_file(tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "v.txt").write_text("1 'a' 1\n2 'ab' 2\n")
    args = ("tokenize", "aba", "--json", "--tokenizer", tmp_path / "v.txt")
    assert json.loads(run_cli("rwkv", *args, check=True).stdout)["tokens"] == [2, 1]


@pytest.mark.parametrize(
    "args", [["text alone"], ["{model}", "text", "--tokenizer", "world"], ["a", "b", "c"]]
)
def test_tokenize_wrong_usage(args: list[str], model: Path, run_cli: RunCli) -> None:
    done = run_cli("rwkv", "tokenize", *(arg.format(model=model) for arg in args))
    assert done.returncode == 2
    assert "expected MODEL and TEXT" in done.stderr


def test_bench(model: Path, run_cli: RunCli) -> None:
    args = ("rwkv", "bench", model, "--seconds", "0.05", "--threads", "1", "--batch", "3")
    facts = json.loads(run_cli(*args, "--json", check=True).stdout)
    for work in ("decode", "prefill", "batch"):
        assert facts[f"{work}_tokens_per_s"] > 1
    assert (facts["n_batch"], facts["n_threads"], facts["data_type"]) == (3, 1, "q4_0")
    text = run_cli(*args, check=True).stdout
    for fact in ("writing one text", "reading a prompt", "writing 3 texts", "tokens/s", "threads"):
        assert fact in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [("rwkv ", COMMANDS), ("rwkv per", ["perplexity"]), ("rwkv info --j", ["--json"])],
)
def test_shell_completion(words: str, expected: list[str], run_cli: RunCli) -> None:
    """What bash asks for when one presses Tab."""
    env = {
        "_RWKV_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    offered = run_cli("rwkv", env=env).stdout.split()
    assert set(expected) <= set(offered)
    assert all(offer.startswith(words.split(" ")[-1]) for offer in offered)


def test_shell_completion_script(run_cli: RunCli) -> None:
    done = run_cli("rwkv", env={"_RWKV_COMPLETE": "source_bash"})
    assert "complete -o default -F _rwkv_completion rwkv" in done.stdout


def test_info(model: Path, run_cli: RunCli) -> None:
    text = run_cli("rwkv", "info", model, check=True).stdout
    for fact in ("RWKV-7", "q4_0", "5,354,752", "4 of 64", "256 tokens"):
        assert fact in text
    facts = json.loads(run_cli("rwkv", "info", model, "--json", check=True).stdout)
    assert facts["version"] == "7"
    assert facts["n_vocab"] == 256
    assert facts["path"] == str(model)


def test_info_of_v4_has_no_heads(model_file: Callable[..., Path], run_cli: RunCli) -> None:
    text = run_cli("rwkv", "info", model_file("4"), check=True).stdout
    assert "RWKV-4" in text
    assert "heads" not in text
    assert "ln_x_eps" not in text


def test_version(run_cli: RunCli) -> None:
    assert run_cli("rwkv", "--version", check=True).stdout == f"rwkv {__version__}\n"


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help(command: list[str], run_cli: RunCli) -> None:
    for flag in ("--help", "-h"):
        assert "Usage: rwkv" in run_cli("rwkv", *command, flag, check=True).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["info", "{tmp}/missing.bin"], r"missing\.bin: .*No such file"),
        (["generate", "{tmp}/missing.bin", "-p", "x"], r"missing\.bin: .*No such file"),
        (["info", "{tmp}"], r"rwkv: "),
        (["generate", "{model}", "-p", "x", "--temperature", "-1"], r"temperature: expected"),
        (["generate", "{model}", "-p", "x", "--tokenizer", "{tmp}/v.txt"], r"v\.txt: .*No such"),
        (["generate", "{unknown}", "-p", "x"], r"has 64 tokens.*tokenizer="),
        (["tokenize", "{unknown}", "x"], r"has 64 tokens.*--tokenizer"),
        (["bench", "{model}", "--seconds", "0"], r"seconds: expected a number above 0"),
        (["generate", "{v4}", "-p", "x", "--ln-x-eps", "1e-5"], r"ln_x_eps"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    args: list[str],
    message: str,
    model: Path,
    model_file: Callable[..., Path],
    tmp_path: Path,
    run_cli: RunCli,
) -> None:
    files = {
        "tmp": tmp_path,
        "model": model,
        "unknown": model_file("7", n_vocab=64),
        "v4": model_file("4", n_vocab=256),
    }
    done = run_cli("rwkv", *(arg.format(**files) for arg in args))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("rwkv: ")
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)


@pytest.mark.parametrize(
    "args", [["generate"], ["nonsense"], ["info", "a", "b"], ["info", "a", "--nonsense"], []]
)
def test_wrong_usage(args: list[str], run_cli: RunCli) -> None:
    done = run_cli("rwkv", *args)
    assert done.returncode == 2
    assert "Usage: rwkv" in done.stdout + done.stderr


def test_output_that_nobody_reads(model: Path) -> None:
    """`rwkv generate ... | head -c 5` ends without a traceback."""
    rwkv = str(Path(sys.executable).parent / "rwkv")
    command = [rwkv, "generate", str(model), "-p", PROMPT, "-n", "5000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        complaint = process.stderr.read().decode()
    assert complaint == ""
    assert process.returncode == 1
