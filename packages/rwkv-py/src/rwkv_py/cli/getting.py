"""A model that is not there yet: what will be done is shown, then done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .. import models
from ..errors import InvalidArgumentError
from .streams import stderr


def get_model(name: str, *, dtype: str | None, offline: bool, update: bool) -> Path:
    """Return the model file that MODEL stands for; what must be fetched or converted first, is."""
    try:
        found = models.find(name, dtype=dtype, offline=offline, update=update)
    except InvalidArgumentError as error:
        complaint = error.message.removeprefix("dtype: ")
        raise typer.BadParameter(complaint, param_hint="'--dtype'") from None
    if isinstance(found, Path):
        return found
    with contextlib.suppress(OSError):  # of stderr: what is said there is not what was asked for
        for line in _described(found):
            stderr.print(line)
    with _progress() as report:
        return found.carry_out(report)


def _described(found: models.Preparation) -> Iterator[str]:
    """Yield what will be done, and what it takes."""
    if isinstance(found.source, Path):
        yield f"{found.name}: a checkpoint, to be converted once"
    else:
        source = found.source
        yield f"{found.name}: {source.file} of {source.repository}"
        fetched = source.total_bytes - found.fetch_bytes
        there = f", {in_words(fetched)} of it is there" if fetched else ""
        yield f"  to fetch   {in_words(source.total_bytes)}{there}"
    kept_as = f"in {found.dtype}, " if found.dtype else ""
    yield f"  to keep    about {in_words(found.weight_bytes)}, {kept_as}in {found.target.parent}"
    here = models.memory_here()
    enough = "" if found.fits else ", which is not enough"
    yield f"  memory     about {in_words(found.memory_bytes)} of {in_words(here)}{enough}"


_STAGES = {
    "waiting": "Waiting for another process that fetches it",
    "fetching": "Fetching",
    "converting": "Converting",
}


@contextmanager
def _progress() -> Iterator[models.Progress]:
    """Yield what to call with the progress; show it where one may watch."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None, visible=False)
        shown = ""

        def report(stage: str, done: int, total: int) -> None:
            nonlocal shown
            if stage != shown:  # the time that is left is that of this stage
                bar.reset(task, description=_STAGES[stage], visible=True)
                shown = stage
            bar.update(task, completed=done, total=total or None)

        yield report


def in_words(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
