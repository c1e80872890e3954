"""A chat led by lines: commands begin with /, all else is said."""

from __future__ import annotations

import difflib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..chat import Chat, Reply
from ..errors import InvalidArgumentError, RwkvError, TokenOutOfRangeError
from .remedies import describe
from .sampling import SETTINGS, Setting
from .streams import complain, stdout

__all__ = ["MAX_TOKENS", "Talk"]

MAX_TOKENS = 1024

_SETTINGS: Mapping[str, Setting] = {
    "max_tokens": Setting(
        name="max_tokens",
        panel="",
        help="How long an answer is at most.",
        example="500",
        form="a whole number",
        metavar="N",
        parse=int,
    ),
    **SETTINGS,
}

_HELP = """\
/help              this list
/reset             begin anew, after the system prompt
/undo              take back the last question and its answer
/retry             another answer to the last question (with a seed set, the same)
/continue          go on with the last answer, where it was cut
/continue TEXT     let the last answer begin with this, and go on from there
/edit TEXT         ask this in place of the last question
/edit #N TEXT      the same of question N; what came after it is forgotten
/messages          what was said, with the numbers of the questions
/save FILE         write the chat to a file
/load FILE         go on with a chat that was saved
/set               the settings
/set NAME VALUE    change one, such as: /set temperature 0.8
/set NAME          back to what it is by default
/exit              leave; so does Ctrl-D

Enter sends; Alt-Enter, or a \\ at the end, begins another line; arrow up recalls what was typed.
Ctrl-C stops an answer and keeps the chat."""


class Talk:
    """A chat and its settings, led by lines."""

    def __init__(self, chat: Chat, settings: dict[str, Any], *, in_terminal: bool):
        """`in_terminal`: Ctrl-C ends an answer; without a terminal, the command."""
        self.chat = chat
        self._settings = settings
        self._in_terminal = in_terminal
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "reset": self._reset,
            "undo": self._undo,
            "retry": self._retry,
            "continue": self._continue,
            "edit": self._edit,
            "messages": self._messages,
            "save": self._save,
            "load": self._load,
            "set": self._set,
        }

    def check(self) -> None:
        """Refuse settings outside their range before anything is said."""
        self.chat.check(**self._settings)

    def hold(self, lines: Iterable[str]) -> int:
        """Answer line after line; return how many were refused.

        What is wrong with one is said on stderr, and the next is asked for.
        """
        n_refused = 0
        for line in lines:
            text = line.strip()
            if text in ("/exit", "/quit"):
                break
            if not text:
                continue
            name = text.partition(" ")[0]
            try:
                if text.startswith("/"):
                    self._command(text[1:])
                else:
                    self._show(self.chat.stream(text, **self._settings))
            except RwkvError as error:
                n_refused += 1
                complaint = describe(error)
                if name in ("/undo", "/retry", "/continue", "/edit"):
                    complaint = f"{name}: {complaint.removeprefix('turns: ')}"
                complain(complaint)
            except KeyboardInterrupt:  # while the question was read: it was not said
                if not self._in_terminal:
                    raise
                print()
            sys.stdout.flush()  # a program may wait for the answer before it says more
        return n_refused

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise InvalidArgumentError(
                f"/{name}: there is no such command",
                remedy=f"Try /{_nearest(name, self._commands) or 'help'}",
            )
        command(argument.strip())

    def _show(self, reply: Reply) -> None:
        """Write an answer as it comes, reasoning dimmed; Ctrl-C ends it there."""
        thinking = False
        try:
            for kind, text in reply.parts():
                if thinking and kind == "answer":
                    stdout.print("\n")
                thinking = kind == "thinking"
                stdout.print(text, end="", style="dim" if thinking else None)
                sys.stdout.flush()
        except KeyboardInterrupt:
            if not self._in_terminal:
                raise
            reply.close()
        print(flush=True)
        if not (reply.text or reply.thinking) and reply.finish_reason in ("stop", "end"):
            self._note("(The model ended its answer before it began.)")
        if reply.is_cut:
            n = len(reply.tokens)
            self._say(f"(Cut after {n} token{'' if n == 1 else 's'}; /continue goes on.)")

    def _say(self, text: str) -> None:
        """Say something that is no answer, wherever one can see it."""
        if self._in_terminal:
            self._note(text)
        else:
            complain(text)

    def _note(self, text: str) -> None:
        """Say what was done, where someone may be watching: a script asked for answers only."""
        if self._in_terminal:
            stdout.print(text, style="dim")

    def _help(self, _: str) -> None:
        print(_HELP)

    def _reset(self, _: str) -> None:
        self.chat.reset()
        begun = "system prompt" if self.chat.messages else "beginning"
        self._note(f"Back at the {begun}; nothing was said yet.")

    def _undo(self, _: str) -> None:
        said = self.chat.messages
        self.chat.undo()
        question = said[-2].content.replace("\n", " ")
        self._note(f"Taken back: {textwrap.shorten(question, 60, placeholder=' ...')}")

    def _retry(self, _: str) -> None:
        self._show(self.chat.retry(**self._settings))

    def _continue(self, argument: str) -> None:
        self._show(self.chat.continue_(argument or None, **self._settings))

    def _edit(self, argument: str) -> None:
        number = re.match(r"#(\d+)\s*", argument)
        turn = int(number[1]) - 1 if number else -1
        text = argument[number.end() :] if number else argument
        n_turns = self._n_turns()
        if number and not 0 <= turn < n_turns:
            raise InvalidArgumentError(
                f"/edit: expected #1 to #{n_turns}, got #{turn + 1}", remedy="Try /messages"
            )
        self._show(self.chat.edit(text, turn=turn, **self._settings))

    def _messages(self, _: str) -> None:
        number = 0
        for message in self.chat.messages:
            if message.role == "user":
                number += 1
            mark = f"#{number} " if message.role == "user" else ""
            print(f"{mark}{message.role}: {message.content}")

    def _save(self, argument: str) -> None:
        file = self._file(argument, "save")
        self.chat.save(file)
        self._note(f"Saved to {file}: {self._length()}.")

    def _load(self, argument: str) -> None:
        file = self._file(argument, "load")
        self.chat.load(file)
        for message in self.chat.messages:
            print(f"{'> ' if message.role == 'user' else ''}{message.content}")
        self._note(f"Loaded from {file}: {self._length()}.")

    def _length(self) -> str:
        turns = self._n_turns()
        return f"{turns} turn{'' if turns == 1 else 's'}"

    def _n_turns(self) -> int:
        return sum(message.role == "user" for message in self.chat.messages)

    def _set(self, argument: str) -> None:
        name, _, text = argument.partition(" ")
        if not name:
            self._show_settings()
        elif name not in _SETTINGS:
            raise InvalidArgumentError(
                f"/set: expected one of {', '.join(_SETTINGS)}, got {name}",
                remedy=f"Try /set {_nearest(name, _SETTINGS)}".rstrip(),
            )
        elif not text:
            self._settings.pop(name, None)
            self._note(self._setting(name))
        else:
            try:
                value = _SETTINGS[name].read(text)
                self.chat.check(**{**self._settings, name: value})
            except (InvalidArgumentError, TokenOutOfRangeError) as error:
                complaint = error.message.removeprefix(f"{name}: ")
                raise InvalidArgumentError(
                    f"/set {name}: {complaint}", remedy=error.remedy
                ) from None
            self._settings[name] = value
            self._note(self._setting(name))

    def _show_settings(self) -> None:
        for name in _SETTINGS:
            print(self._setting(name))

    def _setting(self, name: str) -> str:
        defaults: dict[str, Any] = {"max_tokens": MAX_TOKENS, **self.chat.format.sampling}
        value = self._settings.get(name, defaults.get(name, _SETTINGS[name].default))
        return f"{name} = {_SETTINGS[name].write(value)}"

    @staticmethod
    def _file(argument: str, command: str) -> str:
        if not argument:
            raise InvalidArgumentError(
                f"/{command}: expected a file, got none", remedy=f"Try /{command} my.chat"
            )
        return os.path.expanduser(argument)


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return what was meant, as far as one can tell; else ""."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), "")
