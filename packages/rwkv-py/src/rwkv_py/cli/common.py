"""What the commands share: arguments, progress, exit codes."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..errors import RwkvError
from ..tokenizer import Tokenizer

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def above_zero(value: float | None) -> float | None:
    """Refuse a number that is not above 0, as an option's callback."""
    if value is None or (math.isfinite(value) and value > 0):
        return value
    raise typer.BadParameter(f"expected a number above 0, got {value:g}")


ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model file made by rwkv-convert or rwkv.cpp.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads that compute.", show_default="the physical cores"),
]
LnXEps = Annotated[
    float | None,
    typer.Option(
        help="eps of the norm after WKV; rwkv.cpp uses 1e-5 for RWKV-5.",
        show_default="64e-5",
        callback=above_zero,
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="world|bytes|PATH",
        help="What tokens stand for, where the model's size does not tell: PATH is a vocabulary.",
    ),
]
TimeStateOption = Annotated[
    Path | None,
    typer.Option(
        "--time-state",
        metavar="FILE",
        help="An initial state from state tuning, .pth or .safetensors.",
        show_default="the model's",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.", metavar="")]

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
            complaint = str(error)
            if isinstance(error, OSError) and error.filename is not None and error.strerror:
                complaint = f"{error.filename}: cannot be opened: {error.strerror}"
            stderr.print(f"rwkv: {complaint}", markup=False, style="red")
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


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with how much is done, and of how much; show it where one may watch."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def read_file(path: Path) -> bytes:
    """Return the content of a file, or of stdin for `-`."""
    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()


def open_tokenizer(choice: str | None) -> Tokenizer | None:
    """Return what `--tokenizer` asks for; None is whatever goes with the model."""
    return None if choice is None else Tokenizer.named(choice)


def to_json(facts: Any, *, indent: int | None = None) -> str:
    """Write JSON, which has no infinity and no NaN: null stands for them."""
    return json.dumps(_finite(facts), indent=indent, allow_nan=False)


def _finite(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _finite(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def show(
    facts: dict[str, Any],
    rows: Iterable[tuple[str, str]],
    *,
    as_json: bool,
    title: str | None = None,
) -> None:
    """Print the facts as JSON, or the rows as a table."""
    if as_json:
        print(to_json(facts, indent=2))
        return
    table = Table(box=None, show_header=False, title=title, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False).print(table)
