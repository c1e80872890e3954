"""`rwkv generate`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..session import Session
from .common import (
    AsJson,
    LnXEps,
    ModelArgument,
    Threads,
    TimeStateOption,
    TokenizerOption,
    at_work,
    open_tokenizer,
    to_json,
)
from .sampling import sampling_options


@sampling_options()
def generate(
    *,
    model: ModelArgument,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What to continue; - reads it from stdin.")
    ],
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=0, help="How many tokens to write at most.")
    ] = 256,
    sampling: dict[str, Any],
    tokenizer: TokenizerOption = None,
    time_state: TimeStateOption = None,
    as_json: AsJson = False,
    threads: Threads = None,
    ln_x_eps: LnXEps = None,
) -> None:
    """Continue a text, and stop with Ctrl-C."""
    # What is given need not be UTF-8: bytes are read as they are.
    text = sys.stdin.buffer.read() if prompt == "-" else prompt.encode("utf-8", "surrogateescape")
    with at_work("Opening the model"):
        session = Session(
            model,
            threads=threads,
            ln_x_eps=ln_x_eps,
            tokenizer=open_tokenizer(tokenizer),
            time_state=time_state,
        )
        stream = session.stream(text, max_tokens=max_tokens, **sampling)
    if as_json:
        with at_work("Writing"):
            answer = "".join(stream)
        facts = {
            "prompt": text.decode("utf-8", "replace"),
            "text": answer,
            "finish_reason": stream.finish_reason,
            "tokens": stream.tokens,
        }
        print(to_json(facts))
        return
    with at_work("Reading the prompt"):
        piece = next(stream, "")
    while piece:
        sys.stdout.write(piece)
        sys.stdout.flush()
        piece = next(stream, "")
    sys.stdout.write("\n")
