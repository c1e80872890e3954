"""`rwkv generate`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

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
)


def generate(
    model: ModelArgument,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What to continue; - reads it from stdin.")
    ],
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=0, help="How many tokens to write at most.")
    ] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Draw from the most probable only.")] = 0.85,
    top_k: Annotated[int, typer.Option(help="Draw from so many at most; 0 is all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Least share of the most probable.")] = 0.0,
    typical_p: Annotated[float, typer.Option(help="Locally typical sampling; 1 is off.")] = 1.0,
    mirostat_tau: Annotated[float, typer.Option(help="Mirostat 2, in bits; 0 is off.")] = 0.0,
    mirostat_eta: Annotated[float, typer.Option(help="How fast mirostat follows.")] = 0.1,
    repetition_penalty: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="0 is off.")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option(help="0 is off.")] = 0.0,
    penalty_decay: Annotated[float, typer.Option(help="By how much penalties fade.")] = 0.996,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends the answer; may be given again.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed writes the same text.  [default: random]")
    ] = None,
    tokenizer: TokenizerOption = None,
    time_state: TimeStateOption = None,
    as_json: AsJson = False,
    threads: Threads = None,
    ln_x_eps: LnXEps = None,
) -> None:
    """Continue a text, and stop with Ctrl-C."""
    text = sys.stdin.read() if prompt == "-" else prompt
    with at_work("Opening the model"):
        session = Session(
            model,
            threads=threads,
            ln_x_eps=ln_x_eps,
            tokenizer=open_tokenizer(tokenizer),
            time_state=time_state,
        )
        stream = session.stream(
            text,
            max_tokens=max_tokens,
            stop=stop or (),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            typical_p=typical_p,
            mirostat_tau=mirostat_tau,
            mirostat_eta=mirostat_eta,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_decay=penalty_decay,
            seed=seed,
        )
    if as_json:
        with at_work("Writing"):
            answer = "".join(stream)
        facts = {"prompt": text, "text": answer, "finish_reason": stream.finish_reason}
        print(json.dumps({**facts, "tokens": stream.tokens}))
        return
    with at_work("Reading the prompt"):
        piece = next(stream, "")
    while piece:
        sys.stdout.write(piece)
        sys.stdout.flush()
        piece = next(stream, "")
    sys.stdout.write("\n")
