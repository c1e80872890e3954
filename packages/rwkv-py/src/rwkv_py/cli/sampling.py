"""The settings of sampling: options of `rwkv generate` and `rwkv chat`, and what /set changes."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ..sampling import Sampler

__all__ = ["SETTINGS", "Setting", "sampling_options"]

# The headings of --help.
_CHOICE = "Choice of the next token"
_REPETITION = "Against repetition"
_TOKENS = "Tokens and the end"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Something that can be set, under the name that it has in Python.

    Attributes:
        name: the keyword argument of `Session.stream`.
        panel: the heading under which --help has it.
        help: a sentence about it.
        example: a value, as it is typed.
        form: what a value looks like, in words.
        metavar: the same, as --help writes it.
        parse: makes the value of what is typed, or raises ValueError.
        collect: makes one value of several, for an option that may be given again.
    """

    name: str
    panel: str
    help: str
    example: str
    form: str = "a number"
    metavar: str = "X"
    parse: Callable[[str], Any] = float
    collect: Callable[[Iterable[Any]], Any] | None = None

    @property
    def default(self) -> Any:
        """What `Sampler` takes if it is not given; None if that is nothing in particular."""
        known = inspect.signature(Sampler).parameters.get(self.name)
        return known.default if known is not None and self.collect is None else None

    def read(self, text: str) -> Any:
        """Return the value that was typed.

        Raises:
            InvalidArgumentError: it is not understood, or outside its range.
        """
        try:
            value = self.parse(text)
        except ValueError:
            raise InvalidArgumentError(
                f"expected {self.form}, got {text!r}", remedy=f"Try {self.example}"
            ) from None
        if self.name in inspect.signature(Sampler).parameters and self.collect is None:
            try:
                Sampler(1, **{self.name: value})
            except InvalidArgumentError as error:
                complaint = error.message.removeprefix(f"{self.name}: ")
                raise InvalidArgumentError(complaint, remedy=f"Try {self.example}") from None
        return value

    def write(self, value: Any) -> str:
        """Return a value as it would be typed."""
        if value is None:
            return "random" if self.name == "seed" else ""
        if isinstance(value, Mapping):
            return ",".join(f"{token}={bias:g}" for token, bias in value.items())
        if self.collect is None:
            return f"{value:g}" if isinstance(value, float) else str(value)
        items = (
            item.decode(errors="replace") if isinstance(item, bytes) else str(item)
            for item in value
        )
        return ",".join(items).translate({ord(c): f"\\{e}" for e, c in _ESCAPES.items()})


def _parse_tokens(text: str) -> list[int]:
    return [_parse_token(token) for token in text.split(",")]


def _parse_biases(text: str) -> dict[int, float]:
    biases = {}
    for pair in text.split(","):
        token, _, bias = pair.partition("=")
        biases[_parse_token(token)] = float(bias)
    if any(math.isnan(bias) or bias == math.inf for bias in biases.values()):
        raise ValueError("expected finite numbers, or -inf to ban a token")
    return biases


def _parse_token(text: str) -> int:
    token = int(text)
    if not 0 <= token < 2**31:
        raise ValueError("expected the number of a token")
    return token


_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def _parse_stop(text: str) -> list[bytes]:
    """Return the bytes of a stop string, which on a command line need not be UTF-8."""
    if not text:
        raise ValueError("expected no empty text")
    escaped = re.sub(r"\\([\\nrt])", lambda found: _ESCAPES[found[1]], text)
    return [escaped.encode("utf-8", "surrogateescape")]


def _join_lists(lists: Iterable[list[Any]]) -> list[Any]:
    return [item for each in lists for item in each]


def _join_dicts(dicts: Iterable[dict[int, float]]) -> dict[int, float]:
    return {token: bias for each in dicts for token, bias in each.items()}


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            name="temperature",
            panel=_CHOICE,
            help="How daring the choice is; 0 takes the most probable token.",
            example="0.8",
        ),
        Setting(
            name="top_p",
            panel=_CHOICE,
            help="Choose of the most probable, until they add up to it; 1 is off.",
            example="0.9",
        ),
        Setting(
            name="top_k",
            panel=_CHOICE,
            help="Choose of so many at most; 0 is off.",
            example="40",
            form="a whole number",
            metavar="N",
            parse=int,
        ),
        Setting(
            name="min_p",
            panel=_CHOICE,
            help="Choose of those with this share of the most probable; 0 is off.",
            example="0.05",
        ),
        Setting(
            name="typical_p",
            panel=_CHOICE,
            help="Choose of the most typical, until they add up to it; 1 is off.",
            example="0.95",
        ),
        Setting(
            name="mirostat_tau",
            panel=_CHOICE,
            help="Bits of surprise that mirostat 2 keeps, in place of the four above; 0 is off.",
            example="4",
        ),
        Setting(
            name="mirostat_eta",
            panel=_CHOICE,
            help="How fast mirostat follows.",
            example="0.1",
        ),
        Setting(
            name="seed",
            panel=_CHOICE,
            help="The same seed gives the same text.",
            example="1",
            form="a whole number",
            metavar="N",
            parse=int,
        ),
        Setting(
            name="presence_penalty",
            panel=_REPETITION,
            help="Taken from the logits of tokens that came before; 0 is off.",
            example="0.3",
        ),
        Setting(
            name="frequency_penalty",
            panel=_REPETITION,
            help="The same, times how often they came; 0 is off.",
            example="0.3",
        ),
        Setting(
            name="penalty_decay",
            panel=_REPETITION,
            help="What is left of each count after another token; 1 never forgets.",
            example="0.996",
        ),
        Setting(
            name="repetition_penalty",
            panel=_REPETITION,
            help="Divides the logits of tokens that came before; 1 is off.",
            example="1.1",
        ),
        Setting(
            name="logit_bias",
            panel=_TOKENS,
            help="What to add to the logits of tokens, by their numbers (see rwkv tokenize).",
            example="11=-2.5",
            form="tokens and what to add, such as 11=-2.5,261=1",
            metavar="TOKEN=X,...",
            parse=_parse_biases,
            collect=_join_dicts,
        ),
        Setting(
            name="banned_tokens",
            panel=_TOKENS,
            help="Tokens that never come, by their numbers; 0 is the end of the document.",
            example="0",
            form="tokens, such as 0,11",
            metavar="TOKEN,...",
            parse=_parse_tokens,
            collect=_join_lists,
        ),
        Setting(
            name="stop",
            panel=_TOKENS,
            help="A text before which to end, \\n in it a new line; may be given again.",
            example="'\\nUser:'",
            form="a text",
            metavar="TEXT",
            parse=_parse_stop,
            collect=_join_lists,
        ),
    )
}
"""All settings, by name, in the order of --help."""


def sampling_options(
    default_of: Callable[[Setting], str] = lambda setting: setting.write(setting.default),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting, in the place of its parameter `sampling`.

    That is a dict of those that were given: keyword arguments for `Session.stream`.

    Args:
        default_of: returns what --help says of a setting that is not given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            sampling: dict[str, Any] = {}
            for name, setting in SETTINGS.items():
                value = arguments.pop(name)
                if value is not None:
                    sampling[name] = setting.collect(value) if setting.collect else value
            command(sampling=sampling, **arguments)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name == "sampling":
                parameters += [_parameter(s, default_of(s)) for s in SETTINGS.values()]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        # Typer reads the options of a command from its signature.
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(setting: Setting, default: str) -> inspect.Parameter:
    """Return a setting as a parameter that Typer makes an option of."""

    def parse(text: str) -> Any:
        try:
            return setting.read(text)
        except InvalidArgumentError as error:
            raise typer.BadParameter(str(error)) from None

    option = typer.Option(
        parser=parse,
        metavar=setting.metavar,
        help=setting.help,
        show_default=default or False,
        rich_help_panel=setting.panel,
    )
    kind = list[str] | None if setting.collect else str | None
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )
