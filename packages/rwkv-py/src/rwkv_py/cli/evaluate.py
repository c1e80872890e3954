"""`rwkv perplexity`, `rwkv compare` and `rwkv lambada`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import evaluate
from ..evaluate import Perplexity
from .options import ModelArgument, Reading, with_groups
from .output import progress_bar, show
from .streams import read_all, read_stdin

TextArgument = Annotated[
    Path, typer.Argument(metavar="TEXT", help="A file of text; - reads it from stdin.")
]


def _read(text: Path) -> bytes:
    if str(text) == "-":
        return read_stdin()
    with text.open("rb") as file:
        return read_all(file, str(text))


@with_groups
def perplexity(
    *,
    model: ModelArgument,
    text: TextArgument,
    ignore_first: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Do not score this many tokens at the beginning."),
    ] = 0,
    token_limit: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Read this many tokens at most.", show_default="all"),
    ] = None,
    reading: Reading,
) -> None:
    """Measure how well a model predicts a text, in bits per byte and per token."""
    content = _read(text)
    tokenizer = reading.open_tokenizer()
    opened = reading.model(model)
    with progress_bar("Reading", "tokens") as progress:
        begin = time.perf_counter()
        score = evaluate.perplexity(
            opened,
            content,
            ignore_first=ignore_first,
            token_limit=token_limit,
            tokenizer=tokenizer,
            progress=progress,
        )
        seconds = time.perf_counter() - begin
    n_read = score.n_tokens + max(ignore_first, 1) - 1
    facts = {
        "model": str(model),
        "text": str(text),
        **_facts_of(score),
        "seconds": seconds,
        "n_read": n_read,
    }
    rows = [
        ("bits per byte", f"{score.bits_per_byte:.4f}"),
        ("bits per token", f"{score.bits_per_token:.4f}"),
        ("perplexity", f"{score.perplexity:.4f}"),
        ("scored", f"{score.n_tokens:,} tokens, {score.n_bytes:,} bytes"),
        ("read", f"{n_read:,} tokens in {seconds:.1f} s, {1000 * seconds / n_read:.2f} ms each"),
    ]
    show(facts, rows, as_json=reading.as_json)


@with_groups
def compare(
    *,
    model_a: Annotated[str, typer.Argument(metavar="A", help="A model: the one to compare with.")],
    model_b: Annotated[
        str, typer.Argument(metavar="B", help="Another: often A's weights in fewer bits.")
    ],
    text: TextArgument,
    reading: Reading,
) -> None:
    """Measure how far the predictions of model B are from those of model A."""
    content = _read(text)
    tokenizer = reading.open_tokenizer()
    a, b = reading.model(model_a), reading.model(model_b)
    with progress_bar("Reading", "tokens") as progress:
        found = evaluate.compare(a, b, content, tokenizer=tokenizer, progress=progress)
    facts = {
        "model_a": str(model_a),
        "model_b": str(model_b),
        "text": str(text),
        **dataclasses.asdict(found),
        "a": _facts_of(found.a),
        "b": _facts_of(found.b),
    }
    rows = [
        ("KL divergence, mean", f"{found.kl_mean:.6f} nats"),
        ("  median", f"{found.kl_median:.6f}"),
        ("  99th percentile", f"{found.kl_p99:.6f}"),
        ("  largest", f"{found.kl_max:.6f}"),
        ("same most probable token", f"{found.top1_agreement:.2%}"),
        ("largest logit difference", f"{found.max_logit_difference:.4f}"),
        ("bits per byte, A", f"{found.a.bits_per_byte:.4f}"),
        ("bits per byte, B", f"{found.b.bits_per_byte:.4f}"),
        ("compared", f"{found.n_tokens:,} tokens"),
    ]
    show(facts, rows, as_json=reading.as_json)


@with_groups
def lambada(
    *,
    model: ModelArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help='Lines of {"text": "a passage"}.'),
    ],
    reading: Reading,
) -> None:
    """Let a model guess the last word of passages."""
    texts = evaluate.read_lambada(file)
    tokenizer = reading.open_tokenizer()
    opened = reading.model(model)
    with progress_bar("Guessing", "texts") as progress:
        found = evaluate.lambada(opened, texts, tokenizer=tokenizer, progress=progress)
    facts = {"model": str(model), "file": str(file), **dataclasses.asdict(found)}
    rows = [
        ("accuracy", f"{found.accuracy:.2%}"),
        ("perplexity of the last word", f"{found.perplexity:.4f}"),
        ("texts", f"{found.n_texts:,}"),
    ]
    show(facts, rows, as_json=reading.as_json)


def _facts_of(score: Perplexity) -> dict[str, Any]:
    return {
        "bits_per_byte": score.bits_per_byte,
        "bits_per_token": score.bits_per_token,
        "perplexity": score.perplexity,
        "n_tokens": score.n_tokens,
        "n_bytes": score.n_bytes,
    }
