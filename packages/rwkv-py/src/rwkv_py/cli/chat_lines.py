"""What the user of `rwkv chat` says, line after line: from a pipe, or typed in a terminal."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ..errors import InvalidArgumentError

__all__ = ["plain_lines", "terminal_lines"]

# A line that never ends, as of /dev/zero, is refused by it.
_LONGEST_LINE = 1 << 24


def plain_lines() -> Iterator[str]:
    """Yield the lines of stdin."""
    while line := sys.stdin.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InvalidArgumentError(f"stdin: expected lines below {_LONGEST_LINE} characters")
        yield line.removesuffix("\n")


def terminal_lines() -> Iterator[str]:
    """Ask for what the user says, until Ctrl-D."""
    prompt: PromptSession[str] = PromptSession(
        history=_history(), key_bindings=_keys(), multiline=True, prompt_continuation="  "
    )
    print("/help says how; Ctrl-D leaves.")
    while True:
        try:
            yield _as_text(prompt.prompt("> "))
        except KeyboardInterrupt:  # forgets the line, as a shell does
            continue
        except EOFError:
            return


def _as_text(typed: str) -> str:
    """Return what was typed or pasted; bytes that are not UTF-8 become U+FFFD."""
    return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _another_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    return keys


class _FileHistory(FileHistory):
    """A history that a full disk, or text that is not UTF-8, does not hold up."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(_as_text(string))


def _history() -> History:
    """Return what was typed before: in a file if there is a place for it, else in memory."""
    path = _history_path()
    return InMemoryHistory() if path is None else _FileHistory(str(path))


def _history_path() -> Path | None:
    """Where what was typed is kept, by the convention of the XDG folders; None: nowhere."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # Without a home directory, as services have none, "~" stays as it is.
    folder = Path(state if os.path.isabs(state) else os.path.expanduser("~/.local/state"), "rwkv")
    if not folder.is_absolute():
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "chat_history"
        path.touch(mode=0o600)
        usable = stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return None
    return path if usable else None
