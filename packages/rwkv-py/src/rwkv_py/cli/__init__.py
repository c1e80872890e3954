"""The `rwkv` command: a module for each subcommand, and what they share in `common`."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .chat import chat
from .common import exit_codes
from .evaluate import compare, lambada, perplexity
from .generate import generate
from .info import info
from .tokenize import tokenize

__all__ = ["app", "main"]

app = typer.Typer(
    name="rwkv",
    help="Run RWKV language models on this computer's processor.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rwkv {__version__}")
        raise typer.Exit


@app.callback()
def _rwkv(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version.", metavar=""
        ),
    ] = False,
) -> None:
    pass


for command in (generate, chat, info, tokenize, perplexity, compare, lambada, bench):
    app.command()(exit_codes(command))


def main() -> None:
    """Run the command line: exit code 1 for an error, 2 for wrong usage, 130 after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack a character of a text
        sys.stdout.reconfigure(errors="replace")
    app()
