"""Arguments and options that several commands have, each in one place."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..guessers import SpeculationOptions
from ..model import Model
from ..session import Session
from ..tokenizer import Tokenizer
from .getting import get_model
from .output import at_work

__all__ = [
    "AsJson",
    "Getting",
    "ModelArgument",
    "Opening",
    "Reading",
    "TokenizerOption",
    "Writing",
    "open_tokenizer",
    "with_groups",
]


def above_zero(value: float | None) -> float | None:
    """Refuse a number that is not above 0, as an option's callback."""
    if value is None or (math.isfinite(value) and value > 0):
        return value
    raise typer.BadParameter(f"expected a number above 0, got {value:g}")


MODEL_HELP = (
    "A model file; or a checkpoint, hf://OWNER/NAME or a name of `rwkv models --known`, which "
    "becomes one the first time."
)
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.", metavar="")]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="world|bytes|PATH",
        help="What tokens stand for, where the model's size does not tell: PATH is a vocabulary's "
        "file or folder.",
    ),
]


_GETTING = "Where the model is not there yet"
_GUESSING = "Guessing ahead"


@dataclass(frozen=True, kw_only=True)
class Getting:
    """How a model comes to be there, where it is not a file yet."""

    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Type of the weights, such as q8_0.",
            show_default="q4_0, or what there is",
            rich_help_panel=_GETTING,
        ),
    ] = None
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Fetch nothing.", metavar="", rich_help_panel=_GETTING),
    ] = False
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Ask the hub whether there is a newer one.",
            metavar="",
            rich_help_panel=_GETTING,
        ),
    ] = False

    def model_file(self, name: str) -> Path:
        """Return the file of a model, which is fetched or converted first if need be."""
        return get_model(name, dtype=self.dtype, offline=self.offline, update=self.update)


@dataclass(frozen=True, kw_only=True)
class Opening(Getting):
    """How a model is opened."""

    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Threads that compute.", show_default="the physical cores"
        ),
    ] = None
    ln_x_eps: Annotated[
        float | None,
        typer.Option(
            help="eps of the norm after WKV; rwkv.cpp uses 1e-5 for RWKV-5.",
            show_default="64e-5",
            callback=above_zero,
        ),
    ] = None

    def model(self, name: str) -> Model:
        """Open a model."""
        path = self.model_file(name)
        with at_work("Opening the model"):
            return Model(path, threads=self.threads, ln_x_eps=self.ln_x_eps)


@dataclass(frozen=True, kw_only=True)
class Reading(Opening):
    """How a model reads a text, to be measured by it."""

    tokenizer: TokenizerOption = None
    as_json: AsJson = False

    def open_tokenizer(self) -> Tokenizer | None:
        """Return what --tokenizer asks for; None is whatever goes with the model."""
        return open_tokenizer(self.tokenizer)


@dataclass(frozen=True, kw_only=True)
class Writing(Opening):
    """How a model writes a text."""

    tokenizer: TokenizerOption = None
    time_state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An initial state from state tuning, .pth or .safetensors.",
            show_default="the model's",
        ),
    ] = None

    lookup: Annotated[
        bool,
        typer.Option(
            "--lookup",
            help="Guess what followed the same words before: faster where a text repeats what was "
            "read, and the same text.",
            metavar="",
            rich_help_panel=_GUESSING,
        ),
    ] = False
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A smaller model with the same tokens, which guesses: the same text, faster.",
            show_default=False,
            rich_help_panel=_GUESSING,
        ),
    ] = None

    def session(self, name: str) -> Session:
        """Open a model, and begin a session."""
        tokenizer = open_tokenizer(self.tokenizer)  # first: it is quicker to complain about
        return Session(self.model(name), tokenizer=tokenizer, time_state=self.time_state)

    def guessing(self) -> SpeculationOptions:
        """Return what guesses how a text goes on, as keyword arguments; open the draft."""
        names = ["lookup"] * self.lookup + ["draft"] * (self.draft is not None)
        if not names:
            return {}
        options = SpeculationOptions(speculate="+".join(names))
        if self.draft is not None:
            options["draft"] = self.model(self.draft)
        return options


def open_tokenizer(choice: str | None) -> Tokenizer | None:
    """Return what `--tokenizer` asks for; None is whatever goes with the model."""
    return None if choice is None else Tokenizer.named(choice)


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of each parameter whose type is one of the classes above."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        parameter.name: parameter.annotation
        for parameter in signature.parameters.values()
        if is_dataclass(parameter.annotation)
    }

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, group in groups.items():
            given = {field.name: arguments.pop(field.name) for field in fields(group)}
            arguments[name] = group(**given)
        command(**arguments)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    # Typer reads the options of a command from its signature.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    ]
