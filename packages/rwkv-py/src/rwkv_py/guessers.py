"""What guesses how a text goes on, by name: the options `speculate` and `draft`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

from .draft import DraftGuesser
from .errors import InvalidArgumentError
from .lookup import LookupGuesser
from .model import Model
from .speculation import Guesser

__all__ = ["GUESSERS", "SpeculationOptions", "guessers_of"]

# A guesser is made of the draft model, if there is one, and of the last text's guessers: it may be
# one of these. Of several that are asked for, the first in this order that has something guesses.
MakeGuesser: TypeAlias = Callable[[Model | None, Sequence[Guesser]], Guesser]
GUESSERS: dict[str, MakeGuesser] = {
    "lookup": lambda draft, last: _lookup(last),
    "draft": lambda draft, last: _draft(draft, last),
}


class SpeculationOptions(TypedDict, total=False):
    """The keyword arguments that say what guesses how a text goes on."""

    speculate: str | None
    draft: Model | None


def guessers_of(
    n_vocab: int, *, speculate: str | None = None, draft: Model | None = None
) -> Callable[[Sequence[Guesser]], list[Guesser]] | None:
    """Check the options; return what makes a text's guessers, of the last's, or None.

    Raises:
        InvalidArgumentError: a name is not one of `GUESSERS`, or there is a draft for "draft" alone
            or the other way round, or the draft has another vocabulary.
    """
    if draft is not None:
        if not isinstance(draft, Model):
            raise InvalidArgumentError(
                f"draft: expected a Model, got {type(draft).__name__}: {draft!r}",
                remedy="Try Model(path)",
            )
        if draft.n_vocab != n_vocab:
            raise InvalidArgumentError(
                f"draft: expected a model with the same {n_vocab} tokens, got one with "
                f"{draft.n_vocab}: {draft.path}"
            )
    if speculate is None:
        speculate = "" if draft is None else "draft"
    elif not isinstance(speculate, str):
        raise InvalidArgumentError(f"speculate: expected a name or None, got {speculate!r}")
    names = speculate.split("+") if speculate else []
    for name in names:
        if name not in GUESSERS:
            raise InvalidArgumentError(
                f"speculate: expected {', '.join(GUESSERS)}, or several joined by +, got "
                f"{speculate!r}"
            )
    if "draft" in names and draft is None:
        raise InvalidArgumentError(
            "speculate: expected a draft model for 'draft', got none",
            remedy="Try draft=Model(path)",
        )
    if draft is not None and "draft" not in names:
        raise InvalidArgumentError(
            f"draft: expected with 'draft' in speculate, got speculate={speculate!r}"
        )
    if not names:
        return None
    return lambda last: [make(draft, last) for name, make in GUESSERS.items() if name in names]


def _lookup(last: Sequence[Guesser]) -> Guesser:
    return next((each for each in last if isinstance(each, LookupGuesser)), None) or LookupGuesser()


def _draft(draft: Model | None, last: Sequence[Guesser]) -> Guesser:
    assert draft is not None
    for each in last:
        if isinstance(each, DraftGuesser) and each.model is draft:
            return each
    return DraftGuesser(draft)
