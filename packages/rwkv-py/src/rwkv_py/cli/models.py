"""`rwkv models`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from .. import models
from ..models import CachedModel, UnfinishedModel
from .getting import in_words
from .options import AsJson
from .output import to_json
from .streams import stdout

app = typer.Typer(help="List the models that were fetched, or remove some.")


@app.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    known: Annotated[
        bool, typer.Option("--known", help="List the names of known models.", metavar="")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models that were fetched or converted, and what of others is there."""
    if context.invoked_subcommand is not None:
        return
    if known:
        _show_known(as_json=as_json)
    else:
        _show_kept(as_json=as_json)


@app.command()
def remove(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="As `rwkv models` lists them.")
    ],
) -> None:
    """Remove models from the folder that they are kept in."""
    found = {each.path: each for name in names for each in models.find_kept(name)}
    for each in found.values():
        models.remove(each)
        n_bytes = each.file_bytes if isinstance(each, CachedModel) else each.done_bytes
        print(f"{each.name}: removed, {in_words(n_bytes)}")


def _show_kept(*, as_json: bool) -> None:
    kept, begun = models.cached_models(), models.unfinished()
    folder = models.cache_folder()
    if as_json:
        facts = {
            "folder": str(folder),
            "models": [_facts(each) for each in kept],
            "unfinished": [_facts(each) for each in begun],
        }
        print(to_json(facts, indent=2))
        return
    if not kept and not begun:
        stdout.print(f"No models in {folder}. rwkv run NAME fetches one of rwkv models --known.")
        return
    rows = [("name", "size", "type", "file")]
    for model in kept:
        recognised = models.recognise(model.path)
        name = recognised.name if recognised is not None else ""
        rows.append((name, in_words(model.file_bytes), model.dtype or "", model.name))
    for each in begun:
        of = f" of {in_words(each.total_bytes)}" if each.total_bytes else ""
        rows.append(("", f"{in_words(each.done_bytes)}{of}", "unfinished", each.name))
    # Not a table of rich's: it would shorten names, which are to be copied.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, size, dtype, file in rows:
        stdout.print(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {dtype:<{widths[2]}}  {file}")
    total = sum(m.file_bytes for m in kept) + sum(u.done_bytes for u in begun)
    stdout.print(f"{in_words(total)} in {folder}")


def _facts(model: CachedModel | UnfinishedModel) -> dict[str, Any]:
    facts = {**dataclasses.asdict(model), "path": str(model.path)}
    if isinstance(model, CachedModel):
        recognised = models.recognise(model.path)
        facts["known"] = recognised.name if recognised is not None else None
    return facts


def _show_known(*, as_json: bool) -> None:
    known = models.known_models()
    if as_json:
        print(to_json([dataclasses.asdict(model) for model in known.values()], indent=2))
        return
    series: dict[str, list[str]] = {}
    for model in known.values():
        series.setdefault(model.series, []).append(model.name)
    for names in series.values():
        model = known[names[0]]
        stdout.print("  ".join(names))
        stdout.print(f"    {model.about}".rstrip(), style="dim")
        stdout.print(f"    format {model.format}, from {model.page}", style="dim")
    stdout.print("A ? stands for a letter: g1d-0.4b is one of g1?-0.4b.")
