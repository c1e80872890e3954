"""`rwkv chat`."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..chat import Chat, Reply
from ..chat_format import CHAT_FORMATS, ChatFormat
from ..errors import InvalidArgumentError, RwkvError, TokenOutOfRangeError
from ..session import Session
from .common import (
    LnXEps,
    ModelArgument,
    Threads,
    TimeStateOption,
    TokenizerOption,
    at_work,
    open_tokenizer,
    stderr,
)
from .sampling import SETTINGS, Setting, sampling_options

_MAX_TOKENS = 1024

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
/save FILE         write the chat to a file
/load FILE         go on with a chat that was saved
/set               the settings
/set NAME VALUE    change one, such as: /set temperature 0.8
/set NAME          back to what it is by default
/exit              leave; so does Ctrl-D

Enter sends; Alt-Enter, or a \\ at the end, begins another line; arrow up recalls what was typed.
Ctrl-C stops an answer and keeps the chat."""


def _default_of(setting: Setting) -> str:
    """Return what --help says of a setting that is not given: formats set some."""
    if any(setting.name in each.sampling for each in CHAT_FORMATS.values()):
        return "the format's"
    return setting.write(setting.default)


@sampling_options(_default_of)
def chat(
    *,
    model: ModelArgument,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help=f"How turns are written: {', '.join(CHAT_FORMATS)}.",
            autocompletion=lambda: list(CHAT_FORMATS),
        ),
    ] = "world",
    system: Annotated[str | None, typer.Option("--system", "-s", help="A system prompt.")] = None,
    load: Annotated[
        Path | None, typer.Option(help="Go on with a chat that was saved with /save.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=0, help="How long an answer is at most.")
    ] = _MAX_TOKENS,
    sampling: dict[str, Any],
    tokenizer: TokenizerOption = None,
    time_state: TimeStateOption = None,
    threads: Threads = None,
    ln_x_eps: LnXEps = None,
) -> None:
    """Talk with a model; /help in it says how. Without a terminal, each line of stdin is a turn."""
    try:
        chat_format = ChatFormat.named(format)
    except InvalidArgumentError as error:
        complaint = str(error).removeprefix("format: ")
        raise typer.BadParameter(complaint, param_hint="'--format'") from None
    in_terminal = sys.stdin.isatty()
    with at_work("Opening the model"):
        session = Session(
            model,
            threads=threads,
            ln_x_eps=ln_x_eps,
            tokenizer=open_tokenizer(tokenizer),
            time_state=time_state,
        )
        talk = _Talk(
            Chat(session, format=chat_format, system=system),
            {**sampling, "max_tokens": max_tokens},
            in_terminal=in_terminal,
        )
        talk.check()
        if load is not None:
            talk.chat.load(load)
    talk.hold(_terminal_lines() if in_terminal else _plain_lines())


def _plain_lines() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin:
        yield line.removesuffix("\n")


def _terminal_lines() -> Iterator[str]:
    """Ask for what the user says, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

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

    path = _history_path()
    prompt: PromptSession[str] = PromptSession(
        history=FileHistory(str(path)) if path else InMemoryHistory(),
        key_bindings=keys,
        multiline=True,
        prompt_continuation="  ",
    )
    print("/help says how; Ctrl-D leaves.")
    while True:
        try:
            yield prompt.prompt("> ")
        except KeyboardInterrupt:  # forgets the line, as a shell does
            continue
        except EOFError:
            return


def _history_path() -> Path | None:
    """Where what was typed is kept, by the convention of the XDG folders; None: nowhere."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(state, "rwkv")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "chat_history"
        path.touch(mode=0o600)
    except OSError:
        return None
    return path


class _Talk:
    """A chat and its settings, led by lines: commands begin with /, all else is said."""

    def __init__(self, chat: Chat, settings: dict[str, Any], *, in_terminal: bool):
        """`in_terminal`: Ctrl-C ends an answer; without a terminal, the command."""
        self.chat = chat
        self._settings = settings
        self._in_terminal = in_terminal
        self._out = Console(highlight=False, soft_wrap=True)
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "reset": self._reset,
            "undo": self._undo,
            "retry": self._retry,
            "save": self._save,
            "load": self._load,
            "set": self._set,
        }

    def check(self) -> None:
        """Refuse settings outside their range before anything is said."""
        self.chat.check(**self._settings)

    def hold(self, lines: Iterator[str]) -> None:
        """Answer line after line. What is wrong with one is said, and the next is asked for."""
        for line in lines:
            text = line.strip()
            if text in ("/exit", "/quit"):
                return
            if not text:
                continue
            name = text.partition(" ")[0]
            try:
                if text.startswith("/"):
                    self._command(text[1:])
                else:
                    self._show(self.chat.stream(text, **self._settings))
            except RwkvError as error:
                complaint = str(error)
                if name in ("/undo", "/retry"):
                    complaint = f"{name}: {complaint.removeprefix('turns: ')}"
                stderr.print(complaint, markup=False, style="red")
            except KeyboardInterrupt:  # while the question was read: it was not said
                if not self._in_terminal:
                    raise
                print()

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise InvalidArgumentError(f"/{name}: there is no such command. Try /help")
        command(argument.strip())

    def _show(self, reply: Reply) -> None:
        """Write an answer as it comes, reasoning dimmed; Ctrl-C ends it there."""
        thinking = False
        try:
            for kind, text in reply.parts():
                if thinking and kind == "answer":
                    self._out.print("\n")
                thinking = kind == "thinking"
                self._out.print(
                    text, end="", markup=False, emoji=False, style="dim" if thinking else None
                )
                sys.stdout.flush()
        except KeyboardInterrupt:
            if not self._in_terminal:
                raise
            reply.close()
        print(flush=True)
        if not (reply.text or reply.thinking) and reply.finish_reason in ("stop", "end"):
            self._note("(The model ended its answer before it began.)")

    def _note(self, text: str) -> None:
        """Say what was done, where someone may be watching: a script asked for answers only."""
        if self._in_terminal:
            self._out.print(text, markup=False, emoji=False, style="dim")

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
        turns = sum(message.role == "user" for message in self.chat.messages)
        return f"{turns} turn{'' if turns == 1 else 's'}"

    def _set(self, argument: str) -> None:
        name, _, text = argument.partition(" ")
        if not name:
            self._show_settings()
        elif name not in _SETTINGS:
            raise InvalidArgumentError(f"/set: expected one of {', '.join(_SETTINGS)}, got {name}")
        elif not text:
            self._settings.pop(name, None)
            self._note(self._setting(name))
        else:
            try:
                value = _SETTINGS[name].read(text)
                self.chat.check(**{**self._settings, name: value})
            except (InvalidArgumentError, TokenOutOfRangeError) as error:
                complaint = str(error).removeprefix(f"{name}: ")
                raise InvalidArgumentError(f"/set {name}: {complaint}") from None
            self._settings[name] = value
            self._note(self._setting(name))

    def _show_settings(self) -> None:
        for name in _SETTINGS:
            print(self._setting(name))

    def _setting(self, name: str) -> str:
        defaults: dict[str, Any] = {"max_tokens": _MAX_TOKENS, **self.chat.format.sampling}
        value = self._settings.get(name, defaults.get(name, _SETTINGS[name].default))
        return f"{name} = {_SETTINGS[name].write(value)}"

    @staticmethod
    def _file(argument: str, command: str) -> Path:
        if not argument:
            raise InvalidArgumentError(f"/{command}: expected a file. Try /{command} my.chat")
        return Path(argument).expanduser()
