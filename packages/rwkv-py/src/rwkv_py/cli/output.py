"""What commands show: that something goes on, and what was found."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..speculation import SpeculationCounts
from .streams import stderr, stdout


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


def to_json(facts: Any, *, indent: int | None = None) -> str:
    """Write JSON, which has no infinity and no NaN: null stands for them."""
    return json.dumps(_finite(facts), indent=indent, allow_nan=False)


def _finite(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _finite(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def speculation_facts(counts: SpeculationCounts) -> dict[str, Any]:
    """Return what guesses gave, for JSON."""
    return {**dataclasses.asdict(counts), "tokens_per_pass": counts.tokens_per_pass}


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
    stdout.print(table)
