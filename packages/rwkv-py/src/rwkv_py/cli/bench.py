"""`rwkv bench`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .. import speed
from .options import AsJson, ModelArgument, Writing, above_zero, with_groups
from .output import progress_bar, show, speculation_facts


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
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --lookup or --draft: a text to go on with, to see what guesses give.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    writing: Writing,
) -> None:
    """Measure how fast a model reads and writes on this machine."""
    if (text is not None) != (writing.lookup or writing.draft is not None):
        raise typer.BadParameter(
            "expected together with --lookup or --draft, got one without the other",
            param_hint="'--text'",
        )
    prompt = None if text is None else text.read_bytes()
    session = writing.session(model)
    opened = session.model
    with progress_bar("Measuring", "measurements") as progress:
        found = speed.measure(opened, seconds=seconds, n_batch=batch, progress=progress)
    guessed = None
    if prompt is not None:
        guessing = writing.guessing()
        with progress_bar("Guessing", "measurements") as progress:
            guessed = speed.measure_speculation(session, prompt, progress=progress, **guessing)
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
    if guessed is not None:
        facts["speculation"] = {
            "plain_tokens_per_s": guessed.plain,
            "guessed_tokens_per_s": guessed.guessed,
            **speculation_facts(guessed.counts),
        }
    rows = [
        ("writing one text", f"{found.decode:,.1f} tokens/s"),
        ("reading a prompt", f"{found.prefill:,.1f} tokens/s, {found.n_prefill} at a time"),
        (f"writing {found.n_batch} texts", f"{found.batch:,.1f} tokens/s together"),
        ("weights in memory", f"{info.weight_bytes / 1e6:.1f} MB"),
        ("kernels", info.kernels),
        ("threads", str(info.n_threads)),
    ]
    if guessed is not None:
        ratio, per_pass = guessed.guessed / guessed.plain, guessed.counts.tokens_per_pass
        rows.append(
            (
                f"going on with {text}",
                f"{guessed.plain:,.1f} tokens/s, with guesses {guessed.guessed:,.1f} "
                f"({ratio:.2f} x, {per_pass:.2f} tokens a pass)",
            )
        )
    title = f"{model}: RWKV-{info.version}, {info.data_type}"
    show(facts, rows, as_json=as_json, title=title)
