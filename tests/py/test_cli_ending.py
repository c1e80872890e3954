"""How commands end: the exit codes, and stderr, whatever the streams and the environment are."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forks import Ended, Forks
from rwkv_py.cli import ending
from terminal import Terminal

pytestmark = pytest.mark.slow

RWKV = str(Path(sys.executable).parent / "rwkv")
# What no advice on a command line may hold: Python.
PYTHON = re.compile(r"\w\(|\w=\)|\bSession\b|\bModel\(")


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Path:
    return converted("q4_0")


@pytest.fixture
def rwkv(forks: Forks) -> Forks:
    return forks


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for {model}, {text}, ... in the arguments below."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "text").write_text("The documentation of the library.")
    (folder / "lines").write_text(json.dumps({"text": "Return the value"}) + "\n")
    os.mkfifo(folder / "fifo")
    (folder / "\udcff.bin").symlink_to(model)
    names = {name: str(folder / name) for name in ("text", "lines", "fifo", "missing")}
    return {**names, "folder": str(folder), "model": str(model), "odd": str(folder / "\udcff.bin")}


WRITING = {
    "generate": ["generate", "{model}", "hello", "-n", "3"],
    "generate --json": ["generate", "{model}", "hello", "-n", "3", "--json"],
    "chat": ["chat", "{model}", "-n", "3"],
    "info": ["info", "{model}"],
    "info --json": ["info", "{model}", "--json"],
    "tokenize": ["tokenize", "{model}", "hello"],
    "perplexity": ["perplexity", "{model}", "{text}"],
    "compare": ["compare", "{model}", "{model}", "{text}"],
    "lambada": ["lambada", "{model}", "{lines}"],
    "bench": ["bench", "{model}", "--seconds", "0.001", "--batch", "1"],
    "--help": ["--help"],
    "generate --help": ["generate", "--help"],
    "--version": ["--version"],
}


SLOW = pytest.mark.slow


def fill(args: list[str], files: dict[str, str]) -> list[str]:
    return [arg.format(**files) for arg in args]


def check(ended: Ended, code: int, complaint: str = "") -> None:
    """One line on stderr for an error, and none else."""
    assert ended.code == code, ended
    if ended.stderr is not None:
        assert ended.stderr.count("\n") == (1 if complaint else 0)
        assert complaint in ended.stderr


@pytest.mark.parametrize(
    "name",
    [
        name if name.startswith(("generate", "info", "--")) else pytest.param(name, marks=SLOW)
        for name in WRITING
    ],
)
def test_output_that_is_lost_is_an_error(name: str, rwkv: Forks, files: dict[str, str]) -> None:
    args = fill(WRITING[name], files)
    good = rwkv.run(*args, stdin=b"Hi\n")
    check(good, 0)
    assert good.stdout
    written = "rwkv: stdout: cannot be written: "
    check(rwkv.run(*args, stdin=b"Hi\n", stdout="closed"), 1, f"{written}it is closed")
    check(rwkv.run(*args, stdin=b"Hi\n", stdout="/dev/full"), 1, f"{written}No space left")
    check(rwkv.run(*args, stdin=b"Hi\n", stdout="nobody reads"), 1)


@pytest.mark.parametrize(
    "args",
    [["generate", "{model}", "-", "-n", "3"], ["chat", "{model}"], ["tokenize", "{model}", "-"],
     ["perplexity", "{model}", "-"]],
    ids=lambda args: args[0],
)  # fmt: skip
def test_input_that_is_closed_is_an_error(
    args: list[str], rwkv: Forks, files: dict[str, str]
) -> None:
    complaint = "rwkv: stdin: cannot be read: it is closed"
    check(rwkv.run(*fill(args, files), stdin="closed"), 1, complaint)
    for stderr in ("closed", "/dev/full", "nobody reads"):
        ended = rwkv.run(*fill(args, files), stdin="closed", stdout="closed", stderr=stderr)
        assert ended.code == 1


@pytest.mark.parametrize("stderr", ["closed", "/dev/full", "nobody reads"])
def test_where_nothing_is_said_nothing_is_lost(
    stderr: str, rwkv: Forks, files: dict[str, str]
) -> None:
    args = fill(WRITING["generate"], files)
    check(rwkv.run(*args, stdin="closed", stderr=stderr), 0)
    assert rwkv.run(*args, stdin="closed", stdout="closed", stderr=stderr).code == 1


@pytest.mark.parametrize("stderr", ["closed", "/dev/full", "nobody reads"])
def test_errors_that_cannot_be_said(stderr: str, rwkv: Forks, files: dict[str, str]) -> None:
    assert rwkv.run("info", files["missing"], stderr=stderr).code == 1
    assert rwkv.run("info", stderr=stderr).code == 2
    assert rwkv.run("generate", files["model"], "x", "--top-p", "7", stderr=stderr).code == 2
    assert rwkv.run("chat", files["model"], stdin=b"/undo\n", stderr=stderr).code == 1


def test_as_a_shell_closes_them(model: Path) -> None:
    """The same without forks: what Python itself does at its start and end is part of it."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    for redirections, code in {"<&- >&- 2>&-": 1, ">/dev/full 2>&-": 1, "2>/dev/full": 0}.items():
        line = f'"{RWKV}" generate "{model}" hello -n 2 {redirections}'
        done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, "")
    line = f'"{RWKV}" info "{model}" | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_pipe_that_is_not_ready(model: Path) -> None:
    """Some parents make pipes non-blocking: what does not fit is written later, not lost."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    command = [RWKV, "tokenize", str(model), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"a" * 20_000)
        process.stdin.close()
        time.sleep(2)  # the pipe holds less than it writes
        with open(ours, "rb") as pipe:
            assert pipe.read().count(b"\n") == 20_000
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_ask_for_the_end(number: signal.Signals, model: Path) -> None:
    command = [RWKV, "generate", str(model), "x", "-n", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.send_signal(number)
        process.stdout.read()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 128 + number


# Ctrl-C at the n-th call of a function since the command began.
EARLY = """
import os, signal, sys
import rwkv_command
for at in map(int, sys.argv[1:]):
    child = os.fork()
    if child == 0:
        calls = 0
        def count(frame, event, argument):
            global calls
            calls += event == "call"
            if event == "call" and calls == at:
                signal.raise_signal(signal.SIGINT)
        sys.argv = ["rwkv", "--version"]
        sys.setprofile(count)
        rwkv_command.main()
    print(at, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_ctrl_c_while_python_imports() -> None:
    """Nobody sees a traceback who thinks better of it at once."""
    moments, never = ["30", "200", "3000", "20000", "60000"], "1000000000"
    command = [sys.executable, "-c", EARLY, *moments, never]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    *early, version, whole = done.stdout.splitlines()
    assert early == [f"{moment} 130" for moment in moments]
    assert (version.split()[0], whole) == ("rwkv", f"{never} 0")


def test_a_terminal_is_left_as_it_was(model: Path, tmp_path: Path) -> None:
    """SIGTERM at the prompt of a chat, where the terminal is raw."""
    chat = Terminal(RWKV, "chat", str(model), XDG_STATE_HOME=str(tmp_path))
    chat.ready()
    assert not chat.modes() & termios.ECHO
    chat.signal(signal.SIGTERM)
    assert chat.exit_code() == 143
    assert chat.modes() & termios.ECHO
    assert chat.modes() & termios.ICANON
    assert "Traceback" not in chat.screen
    chat.close()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["generate", "{model}", "x", "--tokenizer", "20B"],
         "or a folder with one of them. Try --tokenizer world or --tokenizer bytes"),
        (["generate", "{model}", "x", "--tokenizer", ""], "'': cannot be opened"),
        (["tokenize", "x", "--tokenizer", "{folder}"], "expected a folder with a tokenizer.json"),
        (["tokenize", "x", "--tokenizer", "{fifo}"], "got a named pipe. Try --tokenizer"),
        (["tokenize", "x", "--tokenizer", "{missing}.json"], "missing.json: cannot be opened"),
        (["chat", "{model}", "--load", "{fifo}"], "expected a file, got a named pipe"),
        (["chat", "{model}", "--load", ""], "expected a file, got a folder"),
        (["chat", "{model}", "--load", "/dev/zero"], "expected a file, got a device"),
        (["info", ""], "expected a file, got a folder"),
        (["info", "{fifo}"], "expected a regular file, got"),
        (["perplexity", "{model}", "{folder}"], "cannot be opened: Is a directory"),
        (["info", "a\nb\x1b[31m"], r"a\nb\x1b[31m: cannot be opened"),
        (["info", "\udcff"], "cannot be opened"),
    ],
)  # fmt: skip
def test_odd_files(args: list[str], complaint: str, rwkv: Forks, files: dict[str, str]) -> None:
    ended = rwkv.run(*fill(args, files), seconds=20)
    check(ended, 1, complaint)
    assert ended.stderr is not None
    assert ended.stderr.startswith("rwkv: ")
    assert not PYTHON.search(ended.stderr)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["generate", "{model}"], "expected PROMPT or --prompt, got none"),
        (["generate", "{model}", "a", "-p", "b"], "expected PROMPT or --prompt, got both"),
        (["generate", "{model}", "a", "--temprature", "1"], "--temperature"),
        (["generat", "{model}", "a"], "generate"),
        (["generate", "{model}", "a", "--threads", "1000000000"], "--threads"),
        (["generate", "{model}", "a", "--threads", "0"], "--threads"),
        (["generate", "{model}", "a", "-n", "nan"], "--max-tokens"),
        (["generate", "{model}", "a", "-n", "-1"], "--max-tokens"),
        (["bench", "{model}", "--batch", "1000000000"], "--batch"),
        (["bench", "{model}", "--seconds", "nan"], "--seconds"),
    ],
)  # fmt: skip
def test_wrong_usage_names_the_option(
    args: list[str], complaint: str, rwkv: Forks, files: dict[str, str]
) -> None:
    ended = rwkv.run(*fill(args, files), seconds=20)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr is not None
    assert ended.stderr.startswith("Usage: rwkv")
    assert complaint in ended.stderr.splitlines()[-1]


def test_an_endless_text_is_refused(rwkv: Forks, files: dict[str, str]) -> None:
    ended = rwkv.run("chat", files["model"], stdin="/dev/zero")
    check(ended, 1, "rwkv: stdin: expected lines below 16777216 characters")


def test_python_m(model: Path) -> None:
    def run(*command: str) -> tuple[int, str]:
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout

    for args in (["generate", str(model), "x", "-n", "5", "--seed", "1"], ["nonsense"]):
        assert run(sys.executable, "-m", "rwkv_py", *args) == run(RWKV, *args)


# ---- whatever is given

NUMBERS = ["0", "-1", "1", "1000000000", "99999999999999999999", "1e400", "nan", "inf", "-inf", "",
           " ", "0.5", "x", "\udcff", "1e-300", "-0.0", "0x10", "1_0", "\u0663"]  # fmt: skip
TOKENIZERS = ["world", "bytes", "20B", "", "{folder}", "{fifo}", "{missing}", "{missing}.json",
              "{text}", "\udcff", "{lines}", "{model}", "/dev/null"]  # fmt: skip
PATHS = ["{model}", "{odd}", "", ".", "{folder}", "{fifo}", "{missing}", "{text}", "\udcff", "-",
         "/dev/null", "a" * 300, "/" * 5000]  # fmt: skip
# Not a pipe, which may be read and waited for, nor a model, which takes long as a text.
TEXTS = [path for path in PATHS if path not in ("{fifo}", "{model}", "{odd}")]
PROMPTS = ["", "-", "hi", "\udcff", "a\nb", "[/red]", "{{}}", "x" * 300, "--"]
OPTIONS = {
    "--temperature": NUMBERS, "--top-p": NUMBERS, "--top-k": NUMBERS, "--min-p": NUMBERS,
    "--typical-p": NUMBERS, "--mirostat-tau": NUMBERS, "--mirostat-eta": NUMBERS,
    "--seed": NUMBERS, "--presence-penalty": NUMBERS, "--frequency-penalty": NUMBERS,
    "--penalty-decay": NUMBERS, "--repetition-penalty": NUMBERS,
    "--logit-bias": ["1=1e39", "1=-inf", "999999=1", "=", "1", "1=nan", "-1=2", "0=1,1=2", ""],
    "--banned-tokens": ["0", "256", "-1", "99999999999", "", ",".join(map(str, range(256)))],
    "--stop": ["", "a", "\udcff", "\\", "x" * 300],
    "--tokenizer": TOKENIZERS, "--time-state": PATHS, "--threads": NUMBERS,
    "--ln-x-eps": NUMBERS,
}  # fmt: skip
COMMANDS = {
    "generate": st.tuples(st.sampled_from(PATHS), st.sampled_from(PROMPTS), st.just("-n2")),
    "chat": st.tuples(st.sampled_from(PATHS), st.just("-n2")),
    "tokenize": st.tuples(st.sampled_from(PATHS), st.sampled_from(PROMPTS)),
    "info": st.tuples(st.sampled_from(PATHS)),
    "perplexity": st.tuples(st.sampled_from(PATHS), st.sampled_from(TEXTS)),
    "lambada": st.tuples(st.sampled_from(PATHS), st.sampled_from(TEXTS)),
}  # fmt: skip
LINES = ["hi", "/undo", "/retry", "/reset", "/save", "/save {folder}", "/save {missing}/x",
         "/load {fifo}", "/load {text}", "/load \0", "/set", "/set temprature 1",
         "/set top_p nan", "/set seed 99999999999999999999", "/set max_tokens 3", "/help", "/x",
         "/set stop [/b]", "\udcff", "/", "\x1b[31m", "/save ~nobody/x", "/load ~/x"]  # fmt: skip
ENVIRONMENT = {
    "HOME": [None, "", "/nonexistent", "relative", "\udcff"],
    "XDG_STATE_HOME": [None, "", "relative", "/dev/null"],
    "RWKV_THREADS": [None, "", "0", "-1", "x", "1000000000", "2"],
    "RWKV_KERNELS": [None, "", "x", "reference", "\udcff"],
    "COLUMNS": [None, "", "0", "-5", "x", "1"],
    "TERM": [None, "", "dumb", "nonsense"],
    "TMPDIR": [None, "/nonexistent"],
    "NO_COLOR": [None, "1"],
}
OUTPUTS = ["captured", "captured", "captured", "closed", "/dev/full", "nobody reads"]


@pytest.mark.slow
@settings(
    max_examples=40,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_whatever_is_given(rwkv: Forks, files: dict[str, str], data: st.DataObject) -> None:
    """Arguments, streams and environment: the command ends as it says it does."""
    command = data.draw(st.sampled_from(sorted(COMMANDS)))
    args = [command, *data.draw(COMMANDS[command])]
    for name in data.draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=2)):
        args.append(f"{name}={data.draw(st.sampled_from(OPTIONS[name]))}")
    if data.draw(st.booleans()):
        args[1] = "{model}"
    names = data.draw(st.lists(st.sampled_from(sorted(ENVIRONMENT)), max_size=2))
    env = {name: data.draw(st.sampled_from(ENVIRONMENT[name])) for name in names}
    stdout, stderr = (data.draw(st.sampled_from(OUTPUTS)) for _ in range(2))
    said = "\n".join(fill(data.draw(st.lists(st.sampled_from(LINES), max_size=4)), files))
    stdin = data.draw(st.sampled_from([said.encode("utf-8", "surrogateescape"), "closed"]))
    args = fill(args, files)
    ended = rwkv.run(*args, stdin=stdin, stdout=stdout, stderr=stderr, env=env, seconds=30)
    assert ended.code in (0, 1, 2), ended
    if command != "chat" and stdout != "captured":
        assert ended.code != 0
    if ended.stderr is not None:
        assert "Traceback" not in ended.stderr
        assert not PYTHON.search(ended.stderr)
        lines = ended.stderr.count("\n")
        assert lines > 0 or ended.code == 0 or stdout == "nobody reads"
        assert lines <= 1 or ended.code == 2 or command == "chat"


def test_a_signal_in_a_task_cancels_the_work(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def somebody() -> None:
        signal.raise_signal(signal.SIGTERM)

    async def work() -> None:
        task = asyncio.create_task(somebody())
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("in order")
            del task

    before = signal.signal(signal.SIGTERM, ending._end)
    try:
        with pytest.raises(SystemExit) as raised:
            ending.run_async(work())
    finally:
        signal.signal(signal.SIGTERM, before)
    gc.collect()  # who is told of a failure that nobody asked for
    assert raised.value.code == 143
    assert ended == ["in order"]
    assert caplog.text == ""
