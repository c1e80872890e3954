"""What a text is written with: the options of `Session.generate`, `Engine.submit` and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypedDict, Unpack

from ._options import takes_options_of
from .prompt import END_OF_DOCUMENT
from .sampling import Sampler, SamplingOptions, sampler_of_text, settled
from .text_stream import TextBuilder
from .tokenizer import Tokenizer

__all__ = ["GenerationOptions", "Plan", "ending", "takes_generation_options"]


class EndOptions(TypedDict, total=False):
    """The keyword arguments that say when a text ends."""

    max_tokens: int
    stop: str | bytes | Iterable[str | bytes]
    stop_tokens: Iterable[int]


class GenerationOptions(EndOptions, SamplingOptions, total=False):
    """The keyword arguments of `Session.generate`, `Session.stream` and `Engine.submit`.

    max_tokens, stop and stop_tokens as `Session.stream` says; all others as `Sampler`.
    """


takes_generation_options = takes_options_of(TextBuilder, Sampler)
"""Lets `**options` of a function be shown by name, and refused; see `takes_options_of`."""


def ending(end_tokens: Iterable[int], tokenizer: Tokenizer) -> list[int]:
    """Return a model's end tokens, without 0 where that stands for text."""
    is_text = tokenizer.end_of_document is None
    return [token for token in end_tokens if not (is_text and token == END_OF_DOCUMENT)]


class Plan(NamedTuple):
    """How one text is to be written: everything checked, and in memory of our own.

    Attributes:
        builder: makes the text of tokens.
        make_sampler: makes a sampler, which takes too much memory to have while waiting in line.
    """

    builder: TextBuilder
    make_sampler: Callable[[], Sampler]

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
            InvalidArgumentError, TokenOutOfRangeError: as `TextBuilder` and `Sampler`.
        """
        end: dict[str, Any] = {"stop_tokens": ending(end_tokens, tokenizer)}
        sampling: dict[str, Any] = {}
        for name, value in options.items():
            (end if name in EndOptions.__annotations__ else sampling)[name] = value
        kept = settled(SamplingOptions(**sampling))  # type: ignore[typeddict-item]

        def make_sampler() -> Sampler:
            return sampler_of_text(tokenizer, n_vocab, **kept)

        make_sampler()  # raises now what it would raise later
        return Plan(TextBuilder(tokenizer, **end), make_sampler)
