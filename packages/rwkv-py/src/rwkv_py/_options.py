"""Keyword arguments that several functions share: defined once, named and checked everywhere."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .errors import UnknownOptionError

__all__ = ["takes_options_of"]

_F = TypeVar("_F", bound=Callable[..., Any])


class _Default:
    """What a signature shows in place of a default that is decided elsewhere."""

    def __init__(self, words: str):
        self._words = words

    def __repr__(self) -> str:
        return self._words


def takes_options_of(*sources: Callable[..., Any], default: str = "") -> Callable[[_F], _F]:
    """Let `**options` of the decorated function stand for the keyword arguments of `sources`.

    `help()`, completion and `inspect.signature` then show them by name, and a name that neither has
    is refused with the nearest that there is. Types are checked by `Unpack` of a `TypedDict`.

    Args:
        *sources: functions or classes; of each, its keyword-only parameters.
        default: what to show as their defaults, if these are not those of the sources.

    >>> def paint(*, colour="red", width=1): ...
    >>> @takes_options_of(paint)
    ... def draw(shape, **options): ...
    >>> str(inspect.signature(draw))
    "(shape, *, colour='red', width=1)"
    """

    def decorate(function: _F) -> _F:
        signature = inspect.signature(function)
        parameters = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        for source in sources:
            for name, parameter in inspect.signature(source).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY and name not in parameters:
                    if default:
                        parameter = parameter.replace(default=_Default(default))
                    parameters[name] = parameter
        names = [n for n, p in parameters.items() if p.kind is not p.VAR_POSITIONAL]

        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> Any:
            for name in options:
                if name not in parameters:
                    raise _unknown(function.__qualname__, name, names)
            return function(*args, **options)

        checked.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(parameters.values())
        )
        return checked  # type: ignore[return-value]

    return decorate


def _unknown(function: str, name: str, names: Iterable[str]) -> UnknownOptionError:
    function = function.removesuffix(".__init__").rpartition("<locals>.")[2]
    options = [option for option in names if option != "self"]
    nearest = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    remedy = f"Try {nearest[0]}" if nearest else f"It has {', '.join(options)}"
    return UnknownOptionError(
        f"{function}: expected an argument that it has, got {name!r}", remedy=remedy
    )
