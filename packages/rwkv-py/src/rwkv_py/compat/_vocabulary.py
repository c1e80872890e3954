"""A tokenizer with tables of its tokens."""

from __future__ import annotations

import functools

from ..tokenizer import Tokenizer

__all__ = ["Vocabulary"]


class Vocabulary:
    """A tokenizer, and dicts of its tokens, which are made when they are first asked for."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    @functools.cached_property
    def bytes_of(self) -> dict[int, bytes]:
        """What each token stands for that stands for text: World's token 0 does not."""
        tokenizer = self.tokenizer
        missing = frozenset(tokenizer.missing(tokenizer.n_vocab))
        tokens = (token for token in range(tokenizer.n_vocab) if token not in missing)
        texts = ((token, tokenizer.decode_bytes([token])) for token in tokens)
        return {token: text for token, text in texts if text}

    @functools.cached_property
    def token_of(self) -> dict[bytes, int]:
        """The token of each piece of text that has one; of several the last."""
        return {text: token for token, text in self.bytes_of.items()}
