"""Texts as sequences of tokens to calibrate by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._arguments import StrPath, Tokens, as_tokens
from .errors import InvalidArgumentError, NoTokenizerError
from .prompt import END_OF_DOCUMENT
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from rwkv_convert import ModelWeights

__all__ = ["calibration_tokens", "default_token_limit", "random_tokens"]

# Tokens that follow each other with the state carried through, at most.
_SEQUENCE = 4096

# Random tokens, as a part of those of texts.
_RANDOM = 8


def default_token_limit(weights: ModelWeights) -> int:
    """Return how many tokens a checkpoint is calibrated by, where nobody says.

    More for a small model, which takes less time for each, and whose tokens may be bytes: about
    as long as a 0.3B takes for 32768, but no more than 131072.
    """
    n_parameters = sum(math.prod(weights.shape(name)) for name in weights.types("fp16"))
    return min(1 << 17, max(1 << 15, 10**13 // n_parameters))


def calibration_tokens(
    texts: Sequence[str | bytes],
    n_vocab: int,
    tokenizer: Tokenizer | StrPath | None,
    token_limit: int,
) -> list[Tokens]:
    """Sequences that are read on their own, each text after the end of a document.

    Args:
        texts: of each as many tokens are taken as of the others.
        n_vocab: the model's.
        tokenizer: by default bytes for 256 tokens, World for 65536.
        token_limit: how many tokens, at most.

    Raises:
        InvalidArgumentError: there is no text.
        NoTokenizerError: no tokenizer is known for so many tokens.
    """
    return _tokens_of(texts, _tokenizer_for(n_vocab, tokenizer), token_limit)


def _tokenizer_for(n_vocab: int, tokenizer: Tokenizer | StrPath | None) -> Tokenizer:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if tokenizer is not None:
        return Tokenizer.open(tokenizer)
    if n_vocab == 256:
        return Tokenizer.bytewise()
    if n_vocab == 65536:
        return Tokenizer.world()
    raise NoTokenizerError(
        f"tokenizer: expected one for a vocabulary of {n_vocab}, which is neither World nor bytes, "
        "got none",
        remedy="Try tokenizer= with its vocabulary file",
    )


def _tokens_of(
    texts: Sequence[str | bytes], tokenizer: Tokenizer, token_limit: int
) -> list[Tokens]:
    if isinstance(texts, str | bytes):
        raise InvalidArgumentError("texts: expected a list of texts, got one text")
    all_tokens = [as_tokens([END_OF_DOCUMENT, *tokenizer.encode(text)]) for text in texts if text]
    if not all_tokens:
        raise InvalidArgumentError("texts: expected at least one that is not empty, got none")
    sequences = []
    left = token_limit
    by_length = sorted(range(len(all_tokens)), key=lambda i: len(all_tokens[i]))
    taken = {}
    for n_done, i in enumerate(by_length):  # short ones leave more for the others
        taken[i] = min(len(all_tokens[i]), left // (len(by_length) - n_done))
        left -= taken[i]
    for i, tokens in enumerate(all_tokens):
        for begin in range(0, taken[i], _SEQUENCE):
            sequences.append(tokens[begin : min(begin + _SEQUENCE, taken[i])])
    return sequences


def random_tokens(n_vocab: int, texts: Sequence[Tokens]) -> list[Tokens]:
    """Sequences of random tokens, an eighth of those of texts, always the same.

    A text says nothing about inputs that it never leads to, and errors would be moved there: into
    what other languages and other kinds of text need. A few tokens of all kinds keep them out.
    """
    n = -(-sum(map(len, texts)) // _RANDOM)
    drawn = np.random.Generator(np.random.PCG64(0)).integers(1, n_vocab, n)
    return [
        as_tokens([END_OF_DOCUMENT, *drawn[begin : begin + _SEQUENCE].tolist()])
        for begin in range(0, n, _SEQUENCE)
    ]
