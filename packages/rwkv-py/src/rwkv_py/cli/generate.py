"""`rwkv generate`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .options import AsJson, ModelArgument, Writing, with_groups
from .output import at_work, to_json
from .sampling import sampling_options
from .streams import read_stdin


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
    writing: Writing,
    as_json: AsJson = False,
) -> None:
    """Continue a text, and stop with Ctrl-C."""
    given = [each for each in (text, prompt) if each is not None]
    if len(given) != 1:
        count = "both" if given else "none"
        raise typer.BadParameter(f"expected PROMPT or --prompt, got {count}")
    content = _prompt(given[0])
    stream = writing.session(model).stream(content, max_tokens=max_tokens, **sampling)
    if as_json:
        with at_work("Writing"):
            answer = "".join(stream)
        facts = {
            "prompt": content.decode("utf-8", "replace"),
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


def _prompt(given: str) -> bytes:
    """Return the prompt, which need not be UTF-8: bytes are read as they are."""
    return read_stdin() if given == "-" else given.encode("utf-8", "surrogateescape")
