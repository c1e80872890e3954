"""A pseudo-terminal for tests: programs as their users meet them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import termios
import time


class Terminal:
    """A program in a pseudo-terminal; `screen` is what it wrote and nobody took off yet."""

    def __init__(self, *command: str, **env: str) -> None:
        self.screen = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            termios.tcsetwinsize(0, (50, 200))
            os.environ.update(PROMPT_TOOLKIT_NO_CPR="1", TERM="xterm", **env)
            os.execv(command[0], command)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
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
                self.screen += _plain(read)
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

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._pid, number)

    def modes(self) -> int:
        """Return how the terminal treats what is typed (termios' local modes): ECHO, ICANON, ..."""
        modes: int = termios.tcgetattr(self._terminal)[3]
        return modes

    def exit_code(self) -> int:
        """Wait for the program to end, reading what it still writes; return its exit code."""
        with contextlib.suppress(OSError):  # Linux's way of saying that the other end is closed
            while read := os.read(self._terminal, 4096):
                self.screen += _plain(read)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._terminal)


def _plain(read: bytes) -> str:
    """Return what was read without control sequences."""
    text = read.decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\b]", "", text)
