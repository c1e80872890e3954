"""What the commands share: arguments, progress, exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

from ..errors import RwkvError

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended

stderr = Console(stderr=True, highlight=False, soft_wrap=True)

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model file made by rwkv-convert or rwkv.cpp.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that compute.  [default: the physical cores]")
]
LnXEps = Annotated[
    float | None,
    typer.Option(
        help="eps of the norm after WKV; rwkv.cpp uses 1e-5 for RWKV-5.  [default: 64e-5]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]

P = ParamSpec("P")


def exit_codes(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command that fails say why in one line, and end with the code for it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # nobody reads on, as in `rwkv generate ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (RwkvError, OSError, ImportError, UnicodeDecodeError) as error:
            stderr.print(f"rwkv: {error}", markup=False, style="red")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


@contextmanager
def at_work(what: str) -> Iterator[None]:
    """Show that something goes on, where someone may be watching."""
    if stderr.is_terminal:
        with stderr.status(what):
            yield
    else:
        yield
