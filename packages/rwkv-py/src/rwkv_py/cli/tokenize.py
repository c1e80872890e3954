"""`rwkv tokenize`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..session import Session
from ..tokenizer import Tokenizer
from .options import AsJson, Getting, TokenizerOption, open_tokenizer, with_groups
from .output import at_work, to_json
from .streams import read_stdin


@with_groups
def tokenize(
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] TEXT",
            help="A model, unless --tokenizer is given, and a text; - reads it from stdin.",
        ),
    ],
    tokenizer: TokenizerOption = None,
    getting: Getting,
    as_json: AsJson = False,
) -> None:
    """Show the tokens of a text, one a line: its number, and what it stands for."""
    *model, text = words
    if len(model) != (1 if tokenizer is None else 0):
        raise typer.BadParameter("expected MODEL and TEXT, or --tokenizer and TEXT")
    chosen = open_tokenizer(tokenizer) or _tokenizer_of(getting.model_file(model[0]))
    content = read_stdin() if text == "-" else text.encode("utf-8", "surrogateescape")
    tokens = chosen.encode(content)
    pieces = [chosen.decode([token], errors="backslashreplace") for token in tokens]
    if as_json:
        print(to_json({"n_tokens": len(tokens), "tokens": tokens, "pieces": pieces}))
        return
    sys.stdout.writelines(
        f"{token:>6} {json.dumps(piece, ensure_ascii=False)}\n"
        for token, piece in zip(tokens, pieces, strict=True)
    )


def _tokenizer_of(path: Path) -> Tokenizer:
    """Return the tokenizer that goes with a model."""
    with at_work("Opening the model"):
        return Session(path).tokenizer
