"""`rwkv bench`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .. import speed
from .options import AsJson, ModelArgument, Opening, above_zero, with_groups
from .output import progress_bar, show


@with_groups
def bench(
    *,
    model: ModelArgument,
    seconds: Annotated[
        float, typer.Option(help="For each of three measurements.", callback=above_zero)
    ] = 2.0,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Texts that are written at once.")
    ] = 8,
    as_json: AsJson = False,
    opening: Opening,
) -> None:
    """Measure how fast a model reads and writes on this machine."""
    opened = opening.model(model)
    with progress_bar("Measuring", "measurements") as progress:
        found = speed.measure(opened, seconds=seconds, n_batch=batch, progress=progress)
    info = opened.info
    facts = {
        "model": str(model),
        "version": info.version,
        "data_type": info.data_type,
        "n_parameters": info.n_parameters,
        "weight_bytes": info.weight_bytes,
        "kernels": info.kernels,
        "n_threads": info.n_threads,
        **{
            f"{name}_tokens_per_s" if name in ("decode", "prefill", "batch") else name: value
            for name, value in dataclasses.asdict(found).items()
        },
    }
    rows = [
        ("writing one text", f"{found.decode:,.1f} tokens/s"),
        ("reading a prompt", f"{found.prefill:,.1f} tokens/s, {found.n_prefill} at a time"),
        (f"writing {found.n_batch} texts", f"{found.batch:,.1f} tokens/s together"),
        ("weights in memory", f"{info.weight_bytes / 1e6:.1f} MB"),
        ("kernels", info.kernels),
        ("threads", str(info.n_threads)),
    ]
    title = f"{model}: RWKV-{info.version}, {info.data_type}"
    show(facts, rows, as_json=as_json, title=title)
