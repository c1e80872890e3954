"""`rwkv chat`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import models
from ..chat import Chat
from ..chat_format import CHAT_FORMATS, ChatFormat
from ..errors import InvalidArgumentError
from .options import ModelArgument, Writing, with_groups
from .output import at_work
from .sampling import Setting, sampling_options
from .talk import MAX_TOKENS, Talk


def _default_of(setting: Setting) -> str:
    """Return what --help says of a setting that is not given: formats set some."""
    if any(setting.name in each.sampling for each in CHAT_FORMATS.values()):
        return "the format's"
    return setting.write(setting.default)


@sampling_options(_default_of)
@with_groups
def chat(
    *,
    model: ModelArgument,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help=f"How turns are written: {', '.join(CHAT_FORMATS)}; by default that of a known "
            "model, or as a GGUF file says, else world.",
            autocompletion=lambda: list(CHAT_FORMATS),
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="A system prompt.")] = None,
    load: Annotated[
        Path | None, typer.Option(help="Go on with a chat that was saved with /save.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=0, help="How long an answer is at most.")
    ] = MAX_TOKENS,
    sampling: dict[str, Any],
    writing: Writing,
) -> None:
    """Talk with a model; /help in it says how. Without a terminal, each line of stdin is a turn."""
    try:
        chat_format = None if format is None else ChatFormat.named(format)
    except InvalidArgumentError as error:
        complaint = error.message.removeprefix("format: ")
        raise typer.BadParameter(complaint, param_hint="'--format'") from None
    in_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    session = writing.session(model)
    known = models.recognise(session.model.path)
    if chat_format is None and known is not None:
        chat_format = known.chat_format
    with at_work("Beginning the chat"):
        talk = Talk(
            Chat(session, format=chat_format, system=_system(system)),
            {**sampling, "max_tokens": max_tokens, **writing.guessing()},
            in_terminal=in_terminal,
        )
        talk.check()
        if load is not None:
            talk.chat.load(load)
    # prompt_toolkit is imported only where it is used.
    from .chat_lines import plain_lines, terminal_lines

    n_refused = talk.hold(terminal_lines() if in_terminal else plain_lines())
    if n_refused and not in_terminal:
        raise typer.Exit(1)


def _system(given: str | None) -> str | None:
    """Return a system prompt as text; bytes that are not UTF-8 become U+FFFD."""
    return given and given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
