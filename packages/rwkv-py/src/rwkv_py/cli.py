"""The `rwkv` command."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .errors import RwkvError
from .model import Model
from .session import Session

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended

app = typer.Typer(
    name="rwkv",
    help="Run RWKV language models on this computer's processor.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model file made by rwkv-convert or rwkv.cpp.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that compute.  [default: the physical cores]")
]
LnXEps = Annotated[
    float | None,
    typer.Option(
        help="eps of the norm after WKV; rwkv.cpp uses 1e-5 for RWKV-5.  [default: 64e-5]"
    ),
]


P = ParamSpec("P")


def _exit_codes(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command that fails say why in one line, and end with the code for it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # nobody reads on, as in `rwkv generate ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (RwkvError, OSError, ImportError, UnicodeDecodeError) as error:
            stderr.print(f"rwkv: {error}", markup=False, style="red")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rwkv {__version__}")
        raise typer.Exit


@app.callback()
def _rwkv(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
@_exit_codes
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
    tokenizer: Annotated[
        Path | None, typer.Option(help="A vocabulary, where the model's size does not tell it.")
    ] = None,
    threads: Threads = None,
    ln_x_eps: LnXEps = None,
) -> None:
    """Continue a text, and stop with Ctrl-C."""
    text = sys.stdin.read() if prompt == "-" else prompt
    with _at_work("Opening the model"):
        session = Session(model, threads=threads, ln_x_eps=ln_x_eps, tokenizer=tokenizer)
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
    with _at_work("Reading the prompt"):
        piece = next(stream, "")
    while piece:
        sys.stdout.write(piece)
        sys.stdout.flush()
        piece = next(stream, "")
    sys.stdout.write("\n")


@app.command()
@_exit_codes
def info(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Say what a model file is, and how it would run here."""
    with _at_work("Opening the model"):
        opened = Model(model)
    facts = dataclasses.asdict(opened.info)
    if as_json:
        print(json.dumps({"path": opened.path, **facts}, indent=2))
        return
    table = Table(box=None, show_header=False, title=opened.path, title_justify="left")
    for name, value in _readable(facts):
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)


def _readable(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of `rwkv info`."""
    yield "architecture", f"RWKV-{facts['version']}"
    yield "type", facts["data_type"]
    yield "parameters", f"{facts['n_parameters']:,}"
    yield "layers", str(facts["n_layer"])
    yield "width", f"{facts['n_embd']} (channel mix {facts['n_ffn']})"
    if facts["n_head"]:
        yield "heads", f"{facts['n_head']} of {facts['head_size']}"
        yield "ln_x_eps", f"{facts['ln_x_eps']:.3g}"
    yield "vocabulary", f"{facts['n_vocab']} tokens"
    yield "state", f"{facts['state_size'] * 4 / 1e6:.2f} MB"
    yield "file", f"{facts['file_bytes'] / 1e6:.1f} MB"
    yield "weights in memory", f"{facts['weight_bytes'] / 1e6:.1f} MB"
    yield "kernels", facts["kernels"]
    yield "threads", str(facts["n_threads"])


@contextmanager
def _at_work(what: str) -> Iterator[None]:
    """Show that something goes on, where someone may be watching."""
    if stderr.is_terminal:
        with stderr.status(what):
            yield
    else:
        yield


def main() -> None:
    """Run the command line: exit code 1 for an error, 2 for wrong usage, 130 after Ctrl-C."""
    app()
