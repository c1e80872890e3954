"""How the command ends, whatever happens: its exit codes, its last words, its streams and signals.

The rule, which the command `rwkv` follows too:

    0    all that was asked for was delivered
    1    it was not, and one line on stderr says why; nothing is said if the reader of a pipe went
    2    wrong usage
    130  Ctrl-C; 143 SIGTERM; 129 SIGHUP: no unfinished file remains

What is asked for is the file to write, and the answer to --info, --json, --help and --version. The
summary of a conversion is told besides: the file is a success even if nobody reads about it. So are
warnings, and all that goes to stderr.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TextIO

from .errors import ConvertError, reason

NAME = "rwkv-convert"
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_Action = Callable[[int, FrameType | None], None] | signal.Handlers


class UsageError(Exception):
    """The command was given arguments that make no sense.

    Attributes:
        usage: how it should be called.
    """

    def __init__(self, usage: str, problem: str) -> None:
        super().__init__(problem)
        self.usage = usage


class _SignalError(BaseException):
    """A signal asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _UndeliveredError(Exception):
    """An answer could not be written."""


def end(work: Callable[[], None]) -> NoReturn:
    """Runs a command's work, and ends the process."""
    # Those that the caller had ignored stay so: nohup does that, and a shell for `command &`.
    numbers = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]

    def on_signals(action: _Action) -> None:
        for number in numbers:
            signal.signal(number, action)

    def stop(number: int, frame: FrameType | None) -> None:
        on_signals(signal.SIG_IGN)  # what cleans up now is not to be disturbed
        raise _SignalError(number)

    try:
        on_signals(stop)
        code = run(work)
        on_signals(signal.SIG_DFL)
    except _SignalError as error:
        # Nothing is left to be done, so another signal may end the process at once: what follows
        # waits for as long as nobody reads stderr.
        on_signals(signal.SIG_DFL)
        code = 128 + error.number
        _discard(sys.stdout)
        if code == INTERRUPTED:
            say("interrupted, no unfinished file remains")
    sys.exit(code)


def run(work: Callable[[], None]) -> int:
    """Runs a command's work, says what went wrong, and returns the exit code."""
    _fill_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold what stdout cannot
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
        return OK
    except UsageError as error:
        say_lines(error.usage.rstrip().splitlines())
        say(f"error: {error}")
        return USAGE
    except ConvertError as error:
        remedy = f". {in_options(error.remedy)}" if error.remedy else ""
        say(f"error: {error.message}{remedy}")
    except MemoryError:
        say("error: memory: expected enough to go on, got too little")
    except _UndeliveredError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            say(f"error: standard output: {error}")
    return FAILED


def answer(lines: list[str]) -> None:
    """Writes what was asked for to stdout."""
    try:
        _write(sys.stdout, lines)
    except (OSError, ValueError) as error:
        raise _UndeliveredError(f"cannot be written: {reason(error)}") from error


def mention(lines: list[str]) -> None:
    """Writes to stdout what is good to know; without it, the command has succeeded too."""
    try:
        _write(sys.stdout, lines)
    except BrokenPipeError:
        pass
    except (OSError, ValueError) as error:
        if sys.stdout is not None:
            say(f"warning: standard output: cannot be written: {reason(error)}")


def say(text: str) -> None:
    """Writes a line to stderr, if that is possible."""
    say_lines([f"{NAME}: {text}"])


def say_lines(lines: list[str]) -> None:
    """Writes lines to stderr, if that is possible."""
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, lines)


def in_options(text: str) -> str:
    """Python's arguments as the command's options: `force=True` is `--force`."""
    return re.sub(r"\b([a-z_]+)=(True\b)?", lambda match: "--" + match[1].replace("_", "-"), text)


def _write(stream: TextIO | None, lines: list[str]) -> None:
    """Writes lines at once, so that a failure is noticed here; nothing in them can end a line."""
    if stream is None:
        raise ValueError("it is closed")
    try:
        stream.write("".join(f"{_printable(line)}\n" for line in lines))
        stream.flush()
    except (OSError, ValueError):
        _discard(stream)
        raise


def _printable(text: str) -> str:
    """With escapes in place of what a path may hold: the ends of lines, colours, wrong UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _discard(stream: TextIO | None) -> None:
    """Sends what is left in a stream's buffer nowhere: Python would try again as it ends."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed, or has no descriptor
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        stream.flush()


def _fill_descriptors() -> None:
    """Opens descriptors 0 to 2 if they are closed, or else the model would become one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
