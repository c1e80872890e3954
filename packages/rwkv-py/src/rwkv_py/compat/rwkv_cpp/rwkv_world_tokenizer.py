"""`rwkv_world_tokenizer` of rwkv.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..._arguments import StrPath
from ...tokenizer import Tokenizer
from .._vocabulary import Vocabulary

__all__ = ["WorldTokenizer", "get_world_tokenizer_v20230424"]

Decode = Callable[[Sequence[int]], str]
Encode = Callable[[str], list[int]]


class WorldTokenizer:
    """The tokenizer of the World models.

    Args:
        file_path: a vocabulary in the World format, or a `Tokenizer`.

    Raises:
        VocabularyError: the file cannot be read or understood.
    """

    def __init__(self, file_path: StrPath | Tokenizer):
        tokenizer = file_path if isinstance(file_path, Tokenizer) else Tokenizer.open(file_path)
        self._vocabulary = Vocabulary(tokenizer)

    @property
    def index_to_token(self) -> dict[int, bytes]:
        """What each token stands for."""
        return self._vocabulary.bytes_of

    @property
    def token_to_index(self) -> dict[bytes, int]:
        """The token of each piece of text that has one."""
        return self._vocabulary.token_of

    def encode_bytes(self, src: bytes) -> list[int]:
        """Return the tokens of bytes."""
        return self._vocabulary.tokenizer.encode(src)

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes that tokens stand for.

        Raises:
            TokenOutOfRangeError: a token is not of the vocabulary.
        """
        return self._vocabulary.tokenizer.decode_bytes(tokens)

    def encode(self, src: str) -> list[int]:
        """Return the tokens of text."""
        return self.encode_bytes(src.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", "replace")


def get_world_tokenizer_v20230424() -> tuple[Decode, Encode]:
    """Return two functions, to decode and to encode.

    >>> from rwkv_py.compat.rwkv_cpp.rwkv_world_tokenizer import get_world_tokenizer_v20230424
    >>> decode, encode = get_world_tokenizer_v20230424()
    >>> encode("Hello, world!")
    [33155, 45, 40213, 34]
    """
    tokenizer = WorldTokenizer(Tokenizer.world())
    return tokenizer.decode, tokenizer.encode
