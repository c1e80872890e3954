"""`rwkv.rwkv_tokenizer` of the PyPI package `rwkv`."""

from __future__ import annotations

from collections.abc import Sequence

from ..._arguments import StrPath
from ...errors import RwkvError
from ...tokenizer import Tokenizer
from .._vocabulary import Vocabulary

__all__ = ["TRIE_TOKENIZER"]


class TRIE_TOKENIZER:
    """The tokenizer of the World models.

    Args:
        file_name: a vocabulary in the World format, or a `Tokenizer`.

    Raises:
        VocabularyError: the file cannot be read or understood.
    """

    def __init__(self, file_name: StrPath | Tokenizer):
        tokenizer = file_name if isinstance(file_name, Tokenizer) else Tokenizer.open(file_name)
        self._vocabulary = Vocabulary(tokenizer)

    @property
    def idx2token(self) -> dict[int, bytes]:
        """What each token stands for."""
        return self._vocabulary.bytes_of

    @property
    def token2idx(self) -> dict[bytes, int]:
        """The token of each piece of text that has one."""
        return self._vocabulary.token_of

    def encodeBytes(self, src: bytes) -> list[int]:
        """Return the tokens of bytes."""
        return self._vocabulary.tokenizer.encode(src)

    def decodeBytes(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes that tokens stand for.

        Raises:
            TokenOutOfRangeError: a token is not of the vocabulary.
        """
        return self._vocabulary.tokenizer.decode_bytes(tokens)

    def encode(self, src: str) -> list[int]:
        """Return the tokens of text."""
        return self.encodeBytes(src.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens stand for.

        One U+FFFD stands for all of it where it is not UTF-8, or a token has no text, as 0.
        """
        try:
            parts = [self.decodeBytes([token]) for token in tokens]
            return b"".join(parts).decode() if all(parts) else "\ufffd"
        except (UnicodeDecodeError, RwkvError):
            return "\ufffd"

    def printTokens(self, tokens: Sequence[int]) -> None:
        """Print each token's text and number."""
        for token in tokens:
            data = self.decodeBytes([token])
            try:
                print(repr(data.decode()), end="")
            except UnicodeDecodeError:
                print(repr(data), end="")
            print(token, end=" ")
        print()
