"""What a sequence is to read: text or tokens in one form, and where they are cut."""

from __future__ import annotations

from typing import NamedTuple

from . import _core
from ._arguments import Tokens, TokenSequence, as_bytes, as_tokens
from .errors import InvalidArgumentError, TokenOutOfRangeError
from .tokenizer import Tokenizer

__all__ = ["BEGIN_OF_DOCUMENT", "END_OF_DOCUMENT", "PIECE_TOKENS", "Prompt", "pieces"]

# Ends a document and, where there is none before it, begins one.
END_OF_DOCUMENT = 0

# The library computes a prompt in pieces of this many tokens. Feeding it so changes no result, and
# between two pieces there is time for others, for Ctrl-C, and for keeping a state.
PIECE_TOKENS = _core.session_piece_size()


def pieces(tokens: Tokens) -> list[Tokens]:
    """Cut tokens where the library does: each piece but the last has `PIECE_TOKENS`."""
    return [tokens[i : i + PIECE_TOKENS] for i in range(0, tokens.size, PIECE_TOKENS)]


class Prompt(NamedTuple):
    """A prompt, checked, and in memory that no caller can write.

    Attributes:
        tokens: int32 (n_tokens,), read-only; each is one of the model's.
        text: the text that they were made of, or None for a prompt that was given as tokens.
        tokenizer: what made them of it.
    """

    tokens: Tokens
    text: bytes | None = None
    tokenizer: Tokenizer | None = None

    @staticmethod
    def of_text(text: str | bytes, tokenizer: Tokenizer, n_vocab: int) -> Prompt:
        """Tokenize text for a model with `n_vocab` tokens.

        Raises:
            TokenOutOfRangeError: the tokenizer is not the model's.
        """
        tokens = as_tokens(tokenizer.encode(text))
        if tokens.size and (largest := tokens.max()) >= n_vocab:
            raise TokenOutOfRangeError(
                f"tokenizer: expected tokens 0 to {n_vocab - 1} for this model, got {largest}: it "
                f"has {tokenizer.n_vocab}",
                remedy="Try the one that the model was trained with",
            )
        return Prompt(tokens, as_bytes("prompt", text), tokenizer)

    @staticmethod
    def of_tokens(tokens: TokenSequence, n_vocab: int) -> Prompt:
        """Take tokens for a model with `n_vocab` of them.

        Raises:
            InvalidArgumentError: they are no flat sequence of integers.
            TokenOutOfRangeError: one is not the model's.
        """
        if tokens is None or isinstance(tokens, bool | int | float):
            raise InvalidArgumentError(
                "prompt: expected text (str or bytes) or tokens (a flat sequence of integers), got "
                f"{tokens!r}"
            )
        return Prompt(as_tokens(tokens, n_vocab))

    def n_tokens_of(self, n_bytes: int) -> int | None:
        """Return how many tokens stand for the first `n_bytes` of the text.

        None if it is not cut there: a token spans the place, or they stand for something else.
        """
        assert self.text is not None
        assert self.tokenizer is not None
        low, high = 0, self.tokens.size
        while low < high:
            middle = (low + high) // 2
            if len(self.tokenizer.decode_bytes(self.tokens[:middle])) < n_bytes:
                low = middle + 1
            else:
                high = middle
        same = self.tokenizer.decode_bytes(self.tokens[:low]) == self.text[:n_bytes]
        return low if same else None


BEGIN_OF_DOCUMENT = Prompt(as_tokens([END_OF_DOCUMENT]))
