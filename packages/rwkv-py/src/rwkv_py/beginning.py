"""What sessions and engines begin with: a model, its tokenizer, an initial state, a cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from ._arguments import StrPath, TokenSequence
from .errors import InvalidArgumentError, NoTokenizerError
from .model import Model
from .prefix_cache import PrefixCache
from .prompt import Prompt
from .sequence import Place, Sequence, place_of_state
from .time_state import TimeState, heads_of
from .tokenizer import Tokenizer

__all__ = ["Beginning", "OpeningOptions", "begin"]


class OpeningOptions(TypedDict, total=False):
    """The keyword arguments of `Session`, which `Engine` takes too."""

    threads: int | None
    ln_x_eps: float | None
    tokenizer: Tokenizer | StrPath | None
    cache: PrefixCache | None
    time_state: TimeState | None


@dataclass(frozen=True)
class Beginning:
    """What sequences of a model begin with.

    Attributes:
        model: the model.
        known_tokenizer: the tokenizer, or None if text cannot be read.
        cache: where beginnings are kept, if anywhere.
        time_state: float32 (n_layer, n_head, head_size, head_size), our own; None for the model's.
        place: where a sequence is that begins so.
    """

    model: Model
    known_tokenizer: Tokenizer | None
    cache: PrefixCache | None
    time_state: NDArray[np.float32] | None
    place: Place

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            NoTokenizerError: none was given, and none is known for this number of tokens.
        """
        tokenizer = self.known_tokenizer or self.model.tokenizer
        if tokenizer is None:
            raise NoTokenizerError(
                f"{self.model.path}: the model has {self.model.n_vocab} tokens, expected 65536 "
                "(World) or 256 (bytes) to know its tokenizer",
                remedy="Try Session(..., tokenizer=) with its vocabulary file, or token lists in "
                "place of text",
            )
        return tokenizer

    def new_sequence(self) -> Sequence:
        """Return a sequence that begins so."""
        sequence = self.model._new_sequence(self.place)
        if self.time_state is not None:
            sequence.core.set_time_state(self.time_state.reshape(-1))
        return sequence

    def renew(self, sequence: Sequence) -> None:
        """Let a sequence forget all, and begin so again."""
        sequence.core.reset()
        sequence.was_reset(self.place)

    def prompt(self, prompt: str | bytes | TokenSequence) -> Prompt:
        """Check what a caller gives as a prompt, and copy it."""
        if isinstance(prompt, str | bytes):
            return Prompt.of_text(prompt, self.tokenizer, self.model.n_vocab)
        return Prompt.of_tokens(prompt, self.model.n_vocab)


def begin(
    model: Model | StrPath,
    *,
    threads: int | None = None,
    ln_x_eps: float | None = None,
    tokenizer: Tokenizer | StrPath | None = None,
    cache: PrefixCache | None = None,
    time_state: TimeState | None = None,
) -> Beginning:
    """Open what is not open yet. The arguments are those of `Session`."""
    if not isinstance(model, Model | str | bytes | os.PathLike):
        raise InvalidArgumentError(
            f"model: expected a Model or the path of a model file, got {type(model).__name__}: "
            f"{model!r}"
        )
    if not isinstance(model, Model):
        model = Model(model, threads=threads, ln_x_eps=ln_x_eps)
    elif threads is not None or ln_x_eps is not None:
        raise InvalidArgumentError(
            "threads and ln_x_eps: expected with a path only, got a Model, which has its own",
            remedy="Try giving them to Model()",
        )
    if not (tokenizer is None or isinstance(tokenizer, Tokenizer)):
        if not isinstance(tokenizer, str | os.PathLike):
            raise InvalidArgumentError(
                "tokenizer: expected a Tokenizer, 'world', 'bytes' or the path of a vocabulary "
                f"file, got {type(tokenizer).__name__}: {tokenizer!r}"
            )
        tokenizer = Tokenizer.named(tokenizer)
    if not (cache is None or isinstance(cache, PrefixCache)):
        raise InvalidArgumentError(
            f"cache: expected a PrefixCache, got {type(cache).__name__}: {cache!r}"
        )
    if cache is not None and cache.model is not model:
        raise InvalidArgumentError(
            f"cache: expected one of the same Model ({model.path}), got one of {cache.model.path}",
            remedy="Try Session(cache.model, cache=cache)",
        )
    heads = None if time_state is None else heads_of(model, time_state)
    # The text that is read must be known for a cache to be asked for it.
    rendered_by = None
    if cache is not None and cache._wants_text:
        rendered_by = tokenizer or model.tokenizer
    return Beginning(model, tokenizer, cache, heads, place_of_state(heads, rendered_by))
