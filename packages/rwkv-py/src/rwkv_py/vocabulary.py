"""What a vocabulary can do, whatever its file was: tokens of bytes, bytes of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from . import _core
from ._arguments import Tokens

__all__ = ["Pieces", "Vocabulary", "native_vocabulary"]


class Pieces(ABC):
    """The bytes of tokens that come one by one: all pieces together are those of all tokens."""

    @abstractmethod
    def push(self, tokens: Tokens) -> bytes:
        """Return the bytes that have become certain with these tokens, all or none of them taken.

        Raises:
            TokenOutOfRangeError: one is not of the vocabulary.
        """

    @abstractmethod
    def finish(self) -> bytes:
        """Return the bytes that are left, and begin anew."""


class Vocabulary(ABC):
    """Text <-> tokens.

    Attributes:
        is_context_free: whether each token stands for the same bytes wherever it is.
        end_of_document: the token that ends a document; None if there is none.
    """

    is_context_free = True
    end_of_document: int | None = 0

    @property
    @abstractmethod
    def n_vocab(self) -> int:
        """The largest token plus one."""

    @abstractmethod
    def has(self, token: int) -> bool:
        """Return whether a token is of this vocabulary."""

    @abstractmethod
    def encode(self, text: bytes) -> list[int]:
        """Return the tokens of a text.

        Raises:
            InvalidArgumentError: there are none for a part of it.
        """

    @abstractmethod
    def decode(self, tokens: Tokens) -> bytes:
        """Return the bytes that tokens stand for.

        Raises:
            TokenOutOfRangeError: one is not of the vocabulary.
        """

    def pieces(self, *, continuing: bool) -> Pieces:
        """Return what gives the bytes of tokens that come one by one.

        Args:
            continuing: they go on after others, which matters where the first differs.
        """
        return _EachAlone(self)

    def missing(self, n_vocab: int) -> Sequence[int]:
        """Return the tokens below `n_vocab` that are not of this vocabulary."""
        return [token for token in range(n_vocab) if not self.has(token)]


class _EachAlone(Pieces):
    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary

    def push(self, tokens: Tokens) -> bytes:
        return self._vocabulary.decode(tokens)

    def finish(self) -> bytes:
        return b""


def native_vocabulary(core: _core.Tokenizer) -> Vocabulary:
    """Return a vocabulary of the library: encoding is greedy."""
    return _NativeVocabulary(core)


class _NativeVocabulary(Vocabulary):
    def __init__(self, core: _core.Tokenizer):
        self._core = core

    @property
    def n_vocab(self) -> int:
        return self._core.n_vocab

    def has(self, token: int) -> bool:
        return self._core.has(token)

    def encode(self, text: bytes) -> list[int]:
        tokens = np.empty(len(text), np.int32)
        n_tokens = self._core.encode(text, tokens)
        found: list[int] = tokens[:n_tokens].tolist()
        return found

    def decode(self, tokens: Tokens) -> bytes:
        return self._core.decode(tokens)
