"""The `rwkv` command: a module for each subcommand, and a few for what they share.

`streams` and `ending` know stdin, stdout, stderr and the exit codes; `options` and `sampling` what
can be given; `getting` how a model comes to be there; `output` what is shown; `remedies` what to do
about an error; `talk` and `chat_lines` are what `rwkv chat` does, and `rwkv run` too.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from .. import __version__
from . import ending
from .batch import batch
from .bench import bench
from .calibrate import calibrate
from .chat import chat
from .evaluate import compare, lambada, perplexity
from .generate import generate
from .info import info
from .models import app as models_app
from .serve import serve
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


app.command("run", help="Talk with a model; the first time it is fetched and converted.")(chat)
app.add_typer(models_app, name="models")
for command in (
    generate,
    chat,
    serve,
    batch,
    info,
    tokenize,
    perplexity,
    compare,
    lambada,
    calibrate,
    bench,
):
    app.command()(command)


def main() -> NoReturn:
    """Run the command line, and end with the exit code that `ending` says."""
    sys.exit(ending.run(app))
