"""What a text is written with: the options of `Session.generate`, `Engine.submit` and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict, Unpack

from numpy.typing import ArrayLike

from ._arguments import as_integers, as_stops
from ._options import takes_options_of
from .grammar import ForcedGuesser, GrammarOptions, GuidedSampler, fit_of
from .guessers import SpeculationOptions, guessers_of
from .prompt import END_OF_DOCUMENT
from .sampling import Sampler, SamplingOptions, sampler_of_text, settled
from .speculation import Guesser, Speculation, SpeculationCounts
from .text_stream import TextBuilder
from .tokenizer import Tokenizer

__all__ = ["GenerationOptions", "Plan", "TokenSource", "ending", "takes_generation_options"]


class EndOptions(TypedDict, total=False):
    """The keyword arguments that say when a text ends."""

    max_tokens: int
    stop: str | bytes | Iterable[str | bytes]
    stop_tokens: Iterable[int]


class GenerationOptions(
    EndOptions, GrammarOptions, SpeculationOptions, SamplingOptions, total=False
):
    """The keyword arguments of `Session.generate`, `Session.stream` and `Engine.submit`.

    max_tokens, stop, stop_tokens, json_schema, regex, grammar, speculate and draft as
    `Session.stream` says; all others as `Sampler`.
    """


takes_generation_options = takes_options_of(TextBuilder, fit_of, guessers_of, Sampler)
"""Lets `**options` of a function be shown by name, and refused; see `takes_options_of`."""


def ending(end_tokens: Iterable[int], tokenizer: Tokenizer) -> list[int]:
    """Return a model's end tokens, without 0 where that stands for text."""
    is_text = tokenizer.end_of_document is None
    return [token for token in end_tokens if not (is_text and token == END_OF_DOCUMENT)]


class TokenSource(Protocol):
    """What draws the tokens of one text."""

    def sample(self, logits: ArrayLike) -> int:
        """Return a token, drawn by logits: float32 (n_vocab,)."""

    def accept(self, token: int) -> None:
        """Know that `token` was taken."""


class Plan(NamedTuple):
    """How one text is to be written: everything checked, and in memory of our own.

    Attributes:
        builder: makes the text of tokens.
        make_sampler: makes what draws the tokens, which takes too much memory to have while waiting
            in line.
        make_guessers: makes what guesses them, of what guessed the last text; None if nothing does.
        speculation: what the guesses give; None likewise.
    """

    builder: TextBuilder
    make_sampler: Callable[[], TokenSource]
    make_guessers: Callable[[Sequence[Guesser]], list[Guesser]] | None
    speculation: SpeculationCounts | None

    @staticmethod
    def of(
        tokenizer: Tokenizer,
        n_vocab: int,
        end_tokens: Iterable[int],
        **options: Unpack[GenerationOptions],
    ) -> Plan:
        """Check options, and copy what a caller could change.

        `end_tokens` are the stop tokens if there is no such option, without 0 where it is text.

        Raises:
            InvalidArgumentError, TokenOutOfRangeError: as `TextBuilder`, `Sampler` and `fit_of`.
        """
        end: dict[str, Any] = {"stop_tokens": ending(end_tokens, tokenizer)}
        fitting: dict[str, Any] = {}
        guessing: dict[str, Any] = {}
        sampling: dict[str, Any] = {}
        for name, value in options.items():
            if name in EndOptions.__annotations__:
                end[name] = value
            elif name in GrammarOptions.__annotations__:
                fitting[name] = value
            elif name in SpeculationOptions.__annotations__:
                guessing[name] = value
            else:
                sampling[name] = value
        end["stop"] = as_stops(end.get("stop", ()))
        end["stop_tokens"] = as_integers("stop_tokens", end["stop_tokens"])
        kept = settled(SamplingOptions(**sampling))  # type: ignore[typeddict-item]
        fit = fit_of(tokenizer, n_vocab, end["stop"], **fitting)
        if fit is not None:  # which also ends with a token that is none, where nothing can follow
            end["stop_tokens"] += [n_vocab]
        builder = TextBuilder(tokenizer, **end)
        make_guessers = guessers_of(n_vocab, **guessing)

        def make_sampler() -> TokenSource:
            sampler = sampler_of_text(tokenizer, n_vocab, **kept)
            return sampler if fit is None else GuidedSampler(sampler, fit, builder.stop_tokens)

        make_sampler()  # raises now what it would raise later
        counts = None if make_guessers is None else SpeculationCounts()
        return Plan(builder, make_sampler, make_guessers, counts)

    def speculate(self, sampler: TokenSource, last: Sequence[Guesser] = ()) -> Speculation | None:
        """Return the guesses for a text that `sampler` draws; None if there are to be none.

        `last` are the guessers of the text before it, which may know how it begins.
        """
        if self.make_guessers is None or self.speculation is None:
            return None
        guessers = self.make_guessers(last)
        if isinstance(sampler, GuidedSampler):  # what must come is guessed best
            guessers.insert(0, ForcedGuesser(sampler))
        return Speculation(guessers, self.speculation)
