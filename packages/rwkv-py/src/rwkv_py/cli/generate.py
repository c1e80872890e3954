"""`rwkv generate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..grammar import MAX_BYTES, GrammarOptions
from .options import AsJson, ModelArgument, Writing, with_groups
from .output import at_work, speculation_facts, to_json
from .sampling import sampling_options
from .streams import read_stdin

_FIT = "What the text must fit"


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What a text must fit; one of them at most."""

    json_schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write JSON that fits a JSON schema.",
            show_default=False,
            rich_help_panel=_FIT,
        ),
    ] = None
    regex: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Write a text that a regular expression matches.",
            show_default=False,
            rich_help_panel=_FIT,
        ),
    ] = None
    grammar: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a text that fits a grammar, in Lark or GBNF.",
            show_default=False,
            rich_help_panel=_FIT,
        ),
    ] = None

    def options(self) -> GrammarOptions:
        """Return the keyword arguments of `Session.stream`; read the files."""
        found = GrammarOptions()
        if self.json_schema is not None:
            found["json_schema"] = _read(self.json_schema, "--json-schema")
        if self.regex is not None:
            found["regex"] = self.regex
        if self.grammar is not None:
            found["grammar"] = _read(self.grammar, "--grammar")
        if len(found) > 1:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in found)
            raise typer.BadParameter(f"expected one of them, got {names}", param_hint=names)
        return found


def _read(path: Path, option: str) -> str:
    """Return the text of a file; one that is too long is read as far as that can be seen."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path}: expected UTF-8, got the byte 0x{content[error.start]:02X} at {error.start}",
            param_hint=f"'{option}'",
        ) from None


@sampling_options()
@with_groups
def generate(
    *,
    model: ModelArgument,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to continue; - reads it from stdin.", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The same, as an option.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=0, help="How many tokens to write at most.")
    ] = 256,
    sampling: dict[str, Any],
    fitting: Fitting,
    writing: Writing,
    as_json: AsJson = False,
) -> None:
    """Continue a text, and stop with Ctrl-C."""
    given = [each for each in (text, prompt) if each is not None]
    if len(given) != 1:
        count = "both" if given else "none"
        raise typer.BadParameter(f"expected PROMPT or --prompt, got {count}")
    content = _prompt(given[0])
    fit = fitting.options()
    session = writing.session(model)
    stream = session.stream(content, max_tokens=max_tokens, **sampling, **fit, **writing.guessing())
    if as_json:
        with at_work("Writing"):
            answer = "".join(stream)
        facts: dict[str, Any] = {
            "prompt": content.decode("utf-8", "replace"),
            "text": answer,
            "finish_reason": stream.finish_reason,
            "tokens": stream.tokens,
        }
        if stream.speculation is not None:
            facts["speculation"] = speculation_facts(stream.speculation)
        print(to_json(facts))
        return
    with at_work("Reading the prompt"):
        piece = next(stream, "")
    while piece:
        sys.stdout.write(piece)
        sys.stdout.flush()
        piece = next(stream, "")
    sys.stdout.write("\n")


def _prompt(given: str) -> bytes:
    """Return the prompt, which need not be UTF-8: bytes are read as they are."""
    return read_stdin() if given == "-" else given.encode("utf-8", "surrogateescape")
