"""`rwkv chat`, as a user meets it: in a terminal, and in a pipe."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from rwkv_py import Chat, Model
from rwkv_py.cli.sampling import SETTINGS
from terminal import Terminal

pytestmark = pytest.mark.slow

RunCli = Callable[..., CompletedProcess[str]]
RWKV = str(Path(sys.executable).parent / "rwkv")
SAMPLING = ("--seed", "3", "--max-tokens", "40", "--format", "g1")
CUT = "(Cut after 40 tokens; /continue goes on.)"


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Path:
    return converted("q4_0")


@pytest.fixture
def reference(model: Path) -> Chat:
    return Chat(model, format="g1", seed=3, max_tokens=40)


@pytest.fixture
def terminal(model: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def chat(*options: str, **env: str) -> Terminal:
        env["XDG_STATE_HOME"] = str(tmp_path / "home")
        new = Terminal(RWKV, "chat", str(model), *options, **env)
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
    assert "seed=4" in answer_of(chat)
    chat.type("/retry\r")
    assert flat(reference.retry(seed=4).read()) in answer_of(chat)
    chat.type("/undo\r")
    assert "Takenback:Whatisjson?" in answer_of(chat)
    chat.type("/undo\r")
    assert "/undo:expectedonetogobackto,gotnone" in answer_of(chat)
    chat.type("/set seed 3\r")
    chat.ready()
    chat.type("What is json?\r")
    assert first in answer_of(chat)
    chat.type("/reset\r")
    assert "Backatthebeginning" in answer_of(chat)
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
    assert flat(f"Saved to {tmp_path}/a.chat: 1 turn.") in answer_of(chat)
    chat.type("/exit\r")
    assert chat.exit_code() == 0
    first = reference.ask("What is json?")
    second = terminal(*SAMPLING)
    second.type(f"/load {tmp_path}/a.chat\r")
    shown = answer_of(second)
    assert flat(first) in shown
    assert shown.endswith("a.chat:1turn.>")
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
        "/set top_p much": "/set top_p: expected a number, got 'much'. Try 0.9",
        "/set max_tokens -1": "/set max_tokens: expected 0 or more, got -1",
        "/set banned_tokens 300": "/set banned_tokens: token: expected 0 to 255, got 300",
        "/set nonsense 1": "expected one of max_tokens, temperature",
        "/retry": "/retry: expected one to go back to, got none",
    }.items():
        chat.type(f"{line}\r")
        assert flat(complaint) in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0


def test_ctrl_c_before_the_answer_begins(terminal: Callable[..., Terminal]) -> None:
    """While a long question is read: it was not said, and the chat goes on."""
    chat = terminal("--threads", "1", RWKV_KERNELS="reference")  # so that reading takes a while
    pasted = "A long question. " * 1500
    chat.type(f"\x1b[200~{pasted}\x1b[201~\r")
    while not chat.modes() & termios.ICANON:  # the prompt's own way of reading has ended
        time.sleep(0.01)
    time.sleep(0.5)
    chat.type("\x03")
    chat.ready()
    chat.type("/retry\r")
    assert "/retry:expectedonetogobackto,gotnone" in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0


def test_an_empty_answer_is_told(terminal: Callable[..., Terminal]) -> None:
    chat = terminal("--logit-bias", "0=100")  # the end of the document
    chat.type("What is json?\r")
    assert "Themodelendeditsanswerbeforeitbegan" in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0


# ---- in a terminal of someone without a home


@pytest.mark.parametrize(
    "state",
    [
        "",
        "{tmp}/fifo",
        *(
            pytest.param(state, marks=pytest.mark.slow)
            for state in ("relative", "/dev/null", "{tmp}/full", "{tmp}/locked")
        ),
    ],
)
def test_where_no_history_can_be_kept(
    state: str, model: Path, tmp_path: Path, reference: Chat
) -> None:
    """Without a home (as containers with a user of their own have none), and with odd files."""
    for name in ("fifo", "full", "locked"):
        (tmp_path / name / "rwkv").mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo" / "rwkv" / "chat_history")
    (tmp_path / "full" / "rwkv" / "chat_history").symlink_to("/dev/full")
    (tmp_path / "locked" / "rwkv" / "chat_history").mkdir()
    code = (
        "import os, pwd, sys; os.environ.pop('HOME', None)\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"  # as for a user without an entry
        "from rwkv_py.cli import main; main()"
    )
    env = {"XDG_STATE_HOME": state.format(tmp=tmp_path)}
    chat = Terminal(sys.executable, "-c", code, "chat", str(model), *SAMPLING, **env)
    assert "Ctrl-D leaves" in chat.ready()
    chat.type("What is json?\r")
    assert flat(reference.ask("What is json?")) in answer_of(chat)
    chat.type("/save ~/x/y.chat\r")
    assert flat("~/x/y.chat: cannot be written: No such file") in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0
    chat.close()


def test_what_is_typed_need_not_be_utf8(terminal: Callable[..., Terminal]) -> None:
    chat = terminal(*SAMPLING)
    os.write(chat._terminal, b"What is \xff?\r")
    answer_of(chat)
    chat.type("/undo\r")
    assert flat("Taken back: What is \ufffd?") in answer_of(chat)
    chat.type("\x04")
    assert chat.exit_code() == 0


def test_output_elsewhere(model: Path, tmp_path: Path, reference: Chat) -> None:
    """`rwkv chat > file` in a terminal: lines are read as from a pipe, and no prompt is written."""
    line = f'"{RWKV}" chat "{model}" {" ".join(SAMPLING)} > "{tmp_path}/out"'
    chat = Terminal("/bin/bash", "-c", line)
    chat.type("What is json?\r\x04")
    assert chat.exit_code() == 0
    assert (tmp_path / "out").read_text() == reference.ask("What is json?") + "\n"
    chat.close()


# ---- in a pipe


def test_answers_come_as_soon_as_they_are_there(model: Path) -> None:
    """Also those of commands, and without PYTHONUNBUFFERED: a program may wait for them."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [RWKV, "chat", str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("/set\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 60)[0]
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_chat_in_a_pipe(model: Path, run_cli: RunCli, reference: Chat) -> None:
    lines = "What is json?\n\n/undo\nAnd os?\n"
    done = run_cli("rwkv", "chat", model, *SAMPLING, stdin=lines, check=True)
    answers = [reference.ask("What is json?"), reference.edit("And os?").read()]
    assert done.stdout == "".join(f"{answer}\n" for answer in answers)
    assert set(done.stderr.splitlines()) <= {CUT}


def test_chat_errors(model: Path, run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli("rwkv", "chat", model, "--format", "nonsense")
    assert done.returncode == 2
    assert "expected one of world" in done.stderr
    done = run_cli("rwkv", "chat", model, "--load", tmp_path / "a.chat")
    assert done.returncode == 1
    assert done.stderr.startswith("rwkv: ")
    assert "No such file" in done.stderr
    done = run_cli("rwkv", "chat", model, stdin="/nonsense\n")
    assert done.returncode == 1
    assert done.stderr == "/nonsense: there is no such command. Try /help\n"
    # What is wrong with a line is no reason not to answer the others.
    lines = "/undo\n/loda x\n/set temprature 1\n/set x 1\nHi\n"
    done = run_cli("rwkv", "chat", model, "-n", "0", stdin=lines)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    undone, loaded, near, far, cut = done.stderr.splitlines()
    assert undone == "/undo: expected one to go back to, got none so far"
    assert loaded == "/loda: there is no such command. Try /load"
    assert near.startswith("/set: expected one of max_tokens, temperature, ")
    assert near.endswith(", got temprature. Try /set temperature")
    assert far.endswith(", got x. Try /set")
    assert cut == "(Cut after 0 tokens; /continue goes on.)"


def test_remedies_are_for_who_types(model: Path, run_cli: RunCli, tmp_path: Path) -> None:
    lines = [*["Hi"] * 2, *["/undo"] * 3, f"/save {tmp_path}/no/a.chat"]
    done = run_cli("rwkv", "chat", model, "-n", "0", stdin="\n".join(lines))
    none_left, unsaved = (line for line in done.stderr.splitlines() if not line.startswith("("))
    assert none_left == "/undo: expected one to go back to, got none so far"
    assert unsaved == (
        f"{tmp_path}/no/a.chat: cannot be written: No such file or directory. Try another folder"
    )
    assert done.returncode == 1


def test_continue_edit_and_messages(model: Path, run_cli: RunCli) -> None:
    """Case: an answer that is cut is gone on with; and what is said can be changed, any of it."""
    # Penalties begin anew where an answer is gone on with.
    penalties = ("--presence-penalty=0", "--frequency-penalty=0")
    options = ("--temperature=0", "--format=instruct", *penalties)
    whole = run_cli("rwkv", "chat", model, *options, "-n", "30", stdin="Explain json.\n")
    lines = "Explain json.\n/continue\n/continue\n/messages\n"
    done = run_cli("rwkv", "chat", model, *options, "-n", "10", stdin=lines, check=True)
    assert done.stderr == "(Cut after 10 tokens; /continue goes on.)\n" * 3
    assert f"#1 user: Explain json.\nassistant: {whole.stdout}" in done.stdout

    lines = "One?\nTwo?\n/edit #1 Three?\n/edit Four?\n/continue Five\n/edit #2 x\n/messages\n"
    done = run_cli("rwkv", "chat", model, *options, "-n", "5", stdin=lines)
    assert done.returncode == 1
    assert "/edit: expected #1 to #1, got #2. Try /messages\n" in done.stderr
    told = done.stdout.splitlines()[-2:]
    assert told[0] == "#1 user: Four?"
    assert told[1].startswith("assistant: Five")
    done = run_cli("rwkv", "chat", model, stdin="/continue\n/edit a\n/edit\n")
    assert done.stderr.splitlines()[0] == "/continue: expected one to go back to, got none so far"


def test_every_setting_by_option_and_by_set(model: Path, run_cli: RunCli) -> None:
    """What an option does, /set does; and /set without a value takes it back."""
    typed = {
        "temperature": "0.7",
        "top_p": "0.6",
        "top_k": "20",
        "min_p": "0.01",
        "typical_p": "0.9",
        "mirostat_tau": "3",
        "mirostat_eta": "0.2",
        "seed": "9",
        "presence_penalty": "0.3",
        "frequency_penalty": "0.2",
        "penalty_decay": "0.9",
        "repetition_penalty": "1.2",
        "logit_bias": "97=1.5,98=-inf",
        "banned_tokens": "0,10",
        "stop": r"\n.",
    }
    assert set(typed) == set(SETTINGS)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in typed.items()]
    lines = [f"/set {name} {value}" for name, value in typed.items()]
    talk = "What is json?\n/set\n"
    by_option = run_cli("rwkv", "chat", model, "-n", "40", *options, stdin=talk, check=True)
    by_set = run_cli("rwkv", "chat", model, "-n", "40", stdin="\n".join([*lines, talk]), check=True)
    assert by_option.stdout == by_set.stdout
    assert set(by_set.stderr.splitlines()) <= {CUT}
    shown = by_set.stdout.splitlines()[-len(typed) - 1 :]
    assert shown == ["max_tokens = 40", *(f"{name} = {value}" for name, value in typed.items())]
    back = "\n".join([*lines, *(f"/set {name}" for name in typed), "/set\n"])
    plain = run_cli("rwkv", "chat", model, stdin="/set\n", check=True)
    assert run_cli("rwkv", "chat", model, stdin=back, check=True).stdout == plain.stdout
    assert "top_p = 0.3\n" in plain.stdout
    assert "seed = random\n" in plain.stdout


def test_lines_that_are_not_utf8(model: Path) -> None:
    command = [RWKV, "chat", str(model), *SAMPLING]
    done = subprocess.run(command, input=b"What is \xff?\n", capture_output=True, check=True)
    again = subprocess.run(command, input="What is \ufffd?\n".encode(), capture_output=True)
    assert done.stdout == again.stdout != b""


def test_ctrl_c_in_a_pipe_ends_the_command(model: Path) -> None:
    command = [RWKV, "chat", str(model), "-n", "1000000", "-f", "g1", "--banned-tokens", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Write for ever.\nAnd again.\n")
        process.stdin.flush()
        assert process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def resident_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_200_turns_keep_their_memory(model: Path) -> None:
    """The process is as large after turn 200 as after turn 50, to five states in 150 turns."""
    command = [RWKV, "chat", str(model), "-n", "12", "--seed", "1"]
    resident = {}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for turn in range(1, 201):
            process.stdin.write(f"Question {turn:03d}?\n/set\n")
            process.stdin.flush()
            while not process.stdout.readline().startswith("stop = "):  # the last setting
                assert process.poll() is None
            resident[turn] = resident_bytes(process.pid)
        process.stdin.close()
        assert process.wait(timeout=30) == 0
    state_bytes = 4 * Model(model).state_size
    assert state_bytes > 400_000
    assert resident[200] - resident[50] < 5 * state_bytes
