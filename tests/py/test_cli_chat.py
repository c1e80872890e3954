"""`rwkv chat`, as a user meets it: in a terminal, and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from rwkv_py import Chat

RunCli = Callable[..., CompletedProcess[str]]
RWKV = str(Path(sys.executable).parent / "rwkv")
SAMPLING = ("--seed", "3", "--max-tokens", "40", "--format", "g1")


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Path:
    return converted("q4_0")


@pytest.fixture
def reference(model: Path) -> Chat:
    return Chat(model, format="g1", seed=3, max_tokens=40)


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, *command: str, **env: str) -> None:
        self.screen = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            termios.tcsetwinsize(0, (50, 200))
            os.environ.update(PROMPT_TOOLKIT_NO_CPR="1", TERM="xterm", **env)
            os.execv(command[0], command)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, pattern: str, seconds: float = 6) -> str:
        """Read until the screen, without its control sequences, has `pattern`; and take it off."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen, re.DOTALL)):
            ready, _, _ = select.select([self._terminal], [], [], 0.1)
            if ready:
                try:
                    read = os.read(self._terminal, 4096)
                except OSError:
                    read = b""
                assert read, f"ended before {pattern!r}: {self.screen!r}"
                text = read.decode(errors="replace")
                self.screen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\b]", "", text)
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.screen!r}"
        self.screen = self.screen[found.end() :]
        return found[0]

    def ready(self) -> str:
        """Read until the prompt stands at the end and nothing follows; return what came before."""
        came = ""
        while True:
            came += self.wait_for(r".*\n>\s*\Z")
            if not select.select([self._terminal], [], [], 0.3)[0]:
                return came

    def exit_code(self) -> int:
        try:
            while os.read(self._terminal, 4096):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture
def terminal(model: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def chat(*options: str) -> Terminal:
        new = Terminal(RWKV, "chat", str(model), *options, XDG_STATE_HOME=str(tmp_path / "home"))
        opened.append(new)
        assert "Ctrl-D leaves" in new.ready()
        return new

    yield chat
    for each in opened:
        each.close()


def flat(text: str) -> str:
    """Without white space: where lines break is the terminal's business."""
    return re.sub(r"\s+", "", text)


def answer_of(terminal: Terminal) -> str:
    """What stands between the line just sent and the next prompt."""
    return flat(terminal.ready())


# ---- in a terminal


def test_chat_in_a_terminal(terminal: Callable[..., Terminal], reference: Chat) -> None:
    chat = terminal(*SAMPLING)
    chat.type("What is json?\r")
    assert flat(reference.ask("What is json?")) in answer_of(chat)
    chat.type("And os?\r")
    assert flat(reference.ask("And os?")) in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0


def test_undo_retry_reset_set(terminal: Callable[..., Terminal], reference: Chat) -> None:
    chat = terminal(*SAMPLING)
    chat.type("What is json?\r")
    first = flat(reference.ask("What is json?"))
    assert first in answer_of(chat)
    chat.type("/set seed 4\r")
    chat.ready()
    chat.type("/retry\r")
    assert flat(reference.retry(seed=4).read()) in answer_of(chat)
    chat.type("/undo\r")
    chat.ready()
    chat.type("/undo\r")
    assert "expected1totakeback,got0" in answer_of(chat)
    chat.type("/set seed 3\r")
    chat.ready()
    chat.type("What is json?\r")
    assert first in answer_of(chat)
    chat.type("/reset\r")
    chat.ready()
    chat.type("What is json?\r")
    assert first in answer_of(chat)
    chat.type("/set\r")
    shown = answer_of(chat)
    for setting in ("max_tokens=40", "top_p=0.5", "seed=3"):
        assert setting in shown
    chat.type("/exit\r")
    assert chat.exit_code() == 0


def test_save_and_load(terminal: Callable[..., Terminal], tmp_path: Path, reference: Chat) -> None:
    chat = terminal(*SAMPLING)
    chat.type("What is json?\r")
    answer_of(chat)
    chat.type(f"/save {tmp_path}/a.chat\r")
    chat.ready()
    chat.type("/exit\r")
    assert chat.exit_code() == 0
    first = reference.ask("What is json?")
    second = terminal(*SAMPLING)
    second.type(f"/load {tmp_path}/a.chat\r")
    assert flat(first) in answer_of(second)
    second.type("And os?\r")
    assert flat(reference.ask("And os?")) in answer_of(second)


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(
    terminal: Callable[..., Terminal],
) -> None:
    chat = terminal("--format", "g1", "--max-tokens", "1000000", "--seed", "1")
    chat.type("/set temperature 1\r")
    chat.ready()
    chat.type("Write for ever.\r")
    chat.wait_for(r"Write for ever\..*?\n.{20}")
    chat.type("\x03")
    chat.ready()
    chat.type("/set max_tokens 5\r")
    chat.ready()
    chat.type("/retry\r")
    chat.ready()
    chat.type("half a line\x03")  # at the prompt it forgets the line
    chat.ready()
    chat.type("\x04")
    assert chat.exit_code() == 0


def test_lines_and_history(terminal: Callable[..., Terminal], reference: Chat) -> None:
    chat = terminal(*SAMPLING)
    chat.type("One\\\rtwo\x1b\rthree\r")
    expected = flat(reference.ask("One\ntwo\nthree"))
    assert expected in answer_of(chat)
    chat.type("/exit\r")
    assert chat.exit_code() == 0
    again = terminal(*SAMPLING)  # the history is kept between chats
    again.type("\x1b[A\x1b[A\r")
    assert expected in answer_of(again)


def test_help_and_mistakes(terminal: Callable[..., Terminal]) -> None:
    chat = terminal()
    chat.type("/help\r")
    shown = answer_of(chat)
    for command in ("/reset", "/undo", "/retry", "/save", "/load", "/set"):
        assert command in shown
    for line, complaint in {
        "/nonsense": "/nonsense: there is no such command",
        "/save": "expected a file",
        "/load /nowhere.chat": "No such file",
        "/set top_p 7": "top_p: expected",
        "/set top_p much": "expected a number, got 'much'",
        "/set nonsense 1": "expected one of temperature",
        "/retry": "expected 1 to take back, got 0",
    }.items():
        chat.type(f"{line}\r")
        assert flat(complaint) in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0


# ---- in a pipe


def test_chat_in_a_pipe(model: Path, run_cli: RunCli, reference: Chat) -> None:
    lines = "What is json?\n\n/undo\nAnd os?\n"
    done = run_cli("rwkv", "chat", model, *SAMPLING, stdin=lines, check=True)
    answers = [reference.ask("What is json?"), reference.edit("And os?").read()]
    assert done.stdout == "".join(f"{answer}\n" for answer in answers)
    assert done.stderr == ""


def test_chat_errors(model: Path, run_cli: RunCli, tmp_path: Path) -> None:
    for options, complaint in (
        (["--format", "nonsense"], "expected one of world"),
        (["--temperature", "-1"], "temperature"),
        (["--load", tmp_path / "a.chat"], "No such file"),
    ):
        done = run_cli("rwkv", "chat", model, *options)
        assert done.returncode == 1
        assert done.stderr.startswith("rwkv: ")
        assert complaint in done.stderr
    done = run_cli("rwkv", "chat", model, stdin="/nonsense\n")
    assert done.returncode == 0
    assert done.stderr.startswith("/nonsense: there is no such command")
