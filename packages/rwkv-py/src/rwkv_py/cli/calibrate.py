"""`rwkv calibrate`."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from .. import calibrate as calibration
from .options import AsJson, TokenizerOption, above_zero, open_tokenizer
from .output import progress_bar, show
from .streams import read_all, read_stdin


def calibrate(
    *,
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pth or whatever rwkv-convert reads.")
    ],
    texts: Annotated[
        list[Path],
        typer.Argument(metavar="TEXT...", help="Files of text, of several kinds; - reads stdin."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="The model file to write."),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="In place of a model file, write an importance matrix (GGUF) for llama.cpp's "
            "quantiser and for rwkv-convert --imatrix.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="Type of the layers' matrices.", show_default="q4_0"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="In place of a type: choose each tensor's, so that the file has at most this "
            "size (such as 900M, 1.2GB) and harms least.",
        ),
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            callback=above_zero,
            help="The same, in bits of the file for each of the model's parameters.",
        ),
    ] = None,
    head_dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="Of head.weight.", show_default="as rwkv-convert"),
    ] = None,
    emb_dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="Of emb.weight.", show_default="as rwkv-convert"),
    ] = None,
    lowrank_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="Of the low-rank matrices of RWKV-6 and 7.",
            show_default="as rwkv-convert",
        ),
    ] = None,
    token_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Read this many tokens at most.",
            show_default="32768, more for small models",
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that compute.", show_default="all")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it exists.", metavar="")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Quantise a checkpoint so that it changes least on texts like those given.

    The file is as large and as fast as one of rwkv-convert. Interrupted, and called again, it goes
    on where it was.
    """
    file_bytes = _bytes_of(size)
    named = [
        name
        for name, value in (("--dtype", dtype), ("--size", size), ("--bits", bits))
        if value is not None
    ]
    if len(named) > 1:
        names = " and ".join(named)
        raise typer.BadParameter(f"expected one of them, got {names}", param_hint=names)
    types = [name for name in named if imatrix is not None]
    if (out is None) == (imatrix is None) or types:
        got = (
            "neither"
            if out is None and imatrix is None
            else " and ".join(
                ["--output", "--imatrix"] if out is not None else ["--imatrix", *types]
            )
        )
        raise typer.BadParameter(
            f"expected a model file to write, or --imatrix alone, got {got}",
            param_hint="--output",
        )
    contents = []
    for text in texts:
        if str(text) == "-":
            contents.append(read_stdin())
            continue
        with text.open("rb") as file:
            contents.append(read_all(file, str(text)))
    if imatrix is not None:
        _write_importance(
            imatrix,
            checkpoint,
            texts,
            contents,
            token_limit,
            tokenizer,
            threads,
            force=force,
            as_json=as_json,
        )
        return
    assert out is not None
    with progress_bar("Calibrating", "layers") as progress:
        begin = time.perf_counter()
        found = calibration.calibrate(
            checkpoint,
            contents,
            out,
            dtype=dtype,
            file_bytes=file_bytes,
            bits=bits,
            head_dtype=head_dtype,
            emb_dtype=emb_dtype,
            lowrank_dtype=lowrank_dtype,
            token_limit=token_limit,
            tokenizer=open_tokenizer(tokenizer),
            threads=threads,
            force=force,
            progress=progress,
        )
        seconds = time.perf_counter() - begin
    facts = {
        "path": found.path,
        "file_bytes": found.file_bytes,
        "n_tokens": found.n_tokens,
        "errors": found.errors,
        "types": found.types,
        "seconds": seconds,
    }
    errors = list(found.errors.values())
    used = Counter(found.types.values())
    rows = [
        ("written", f"{found.path}, {found.file_bytes / 1e6:.1f} MB"),
        ("read", f"{found.n_tokens:,} tokens in {seconds:.1f} s"),
        ("types", ", ".join(f"{n} {type}" for type, n in used.most_common())),
        ("compensated", f"{len(errors)} matrices"),
    ]
    if errors:
        rows.append(
            (
                "error, of plain rounding's",
                f"{median(errors):.2f} (median), {max(errors):.2f} (most)",
            )
        )
    show(facts, rows, as_json=as_json)


def _bytes_of(size: str | None) -> int | None:
    """How large the file may be, if that is said."""
    if size is None:
        return None
    found = re.fullmatch(r"(\d+|\d*\.\d+) ?([kMG]?)B?", size.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(
            f"expected bytes, or a number with kB, MB or GB, got {size!r}", param_hint="--size"
        )
    return round(float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]])


def _write_importance(
    out: Path,
    checkpoint: Path,
    texts: list[Path],
    contents: list[bytes],
    token_limit: int | None,
    tokenizer: str | None,
    threads: int | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    with progress_bar("Reading", "layers") as progress:
        n_tokens = calibration.importance_matrix(
            checkpoint,
            contents,
            out,
            names=[text.name for text in texts],
            token_limit=token_limit,
            tokenizer=open_tokenizer(tokenizer),
            threads=threads,
            force=force,
            progress=progress,
        )
    rows = [("written", str(out)), ("read", f"{n_tokens:,} tokens")]
    show({"path": str(out), "n_tokens": n_tokens}, rows, as_json=as_json)
