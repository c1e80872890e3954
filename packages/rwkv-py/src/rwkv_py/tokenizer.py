"""Text <-> tokens."""

from __future__ import annotations

import codecs
import functools
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from . import _core
from ._arguments import StrPath, TokenSequence, as_bytes, as_path, as_tokens
from ._files import kind_of
from .errors import (
    InvalidArgumentError,
    ModelFileError,
    TokenOutOfRangeError,
    VocabularyError,
)

__all__ = ["StreamingDecoder", "Tokenizer"]


class Tokenizer(ABC):
    """A vocabulary: what a model's tokens stand for.

    `Tokenizer.world()` and `Tokenizer.bytewise()` are built in, `Tokenizer.open()` reads a file.
    For another kind derive from this class: `n_vocab`, `encode` and `decode_bytes` are all it
    takes. Tokenizers are immutable and may be shared by threads.

    >>> world = Tokenizer.world()
    >>> world.encode("Hello, world!")
    [33155, 45, 40213, 34]
    >>> world.decode([33155, 45, 40213, 34])
    'Hello, world!'
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: tokens 0 to {self.n_vocab - 1}>"

    @property
    @abstractmethod
    def n_vocab(self) -> int:
        """The largest token plus one."""

    @abstractmethod
    def encode(self, text: str | bytes) -> list[int]:
        """Return the tokens of `text`; a string is read as its UTF-8."""

    @abstractmethod
    def decode_bytes(self, tokens: TokenSequence) -> bytes:
        """Return the bytes that `tokens` stand for.

        Raises:
            TokenOutOfRangeError: a token is not of this vocabulary.
        """

    def decode(self, tokens: TokenSequence, errors: str = "replace") -> str:
        """Return the text that `tokens` stand for.

        Args:
            tokens: any integers of the vocabulary.
            errors: what to do with bytes that are not UTF-8, as in `bytes.decode`.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors)

    def decoder(self) -> StreamingDecoder:
        """Return a decoder for tokens that come one by one."""
        return StreamingDecoder(self)

    def missing(self, n_vocab: int) -> Sequence[int]:
        """Return the tokens below `n_vocab` that are not of this vocabulary."""
        return range(self.n_vocab, n_vocab)

    @staticmethod
    def world() -> Tokenizer:
        """Return the tokenizer of the World models, whose vocabulary size is 65536."""
        return _world()

    @staticmethod
    def bytewise() -> Tokenizer:
        """Return the tokenizer in which a token is a byte, 0 to 255."""
        return _bytewise()

    @staticmethod
    def open(path: StrPath) -> Tokenizer:
        """Read a vocabulary file.

        Args:
            path: a `.json` file is one of the package `tokenizers` (`tokenizer.json`, as the 20B
                models have it; needs the extra `rwkv-py[tokenizers]`), any other a vocabulary in
                the World format: a line `ID LITERAL LENGTH` for each token.

        Raises:
            VocabularyError: the file cannot be read or understood; where, its text says.
            ImportError: the package `tokenizers` is not installed.
        """
        encoded = as_path(path)
        name = os.fsdecode(encoded)
        try:
            mode = os.stat(encoded).st_mode
        except OSError as error:
            raise VocabularyError(
                f"{name or repr(name)}: cannot be opened: {error.strerror}, expected a vocabulary "
                "file or a tokenizer.json",
                remedy="Try 'world' or 'bytes' for the tokenizers that are built in",
            ) from None
        if not stat.S_ISREG(mode):  # opening a named pipe would wait for its writer
            raise VocabularyError(f"{name}: expected a vocabulary file, got {kind_of(mode)}")
        if Path(name).suffix.lower() == ".json":
            return _JsonTokenizer(name)
        try:
            return _NativeTokenizer(_core.Tokenizer.open(encoded), repr(name))
        except ModelFileError as error:
            raise VocabularyError(error.message, remedy=error.remedy) from None

    @staticmethod
    def named(choice: StrPath) -> Tokenizer:
        """Return the built-in tokenizer "world" or "bytes", or else `open` a vocabulary file.

        Raises:
            InvalidArgumentError: it is neither text nor a path; and what `open` raises.
        """
        if not isinstance(choice, str | os.PathLike):
            raise InvalidArgumentError(
                "tokenizer: expected 'world', 'bytes' or the path of a vocabulary file or a "
                f"tokenizer.json, got {choice!r}"
            )
        built_in = {"world": Tokenizer.world, "bytes": Tokenizer.bytewise}.get(os.fspath(choice))
        return built_in() if built_in else Tokenizer.open(choice)

    @staticmethod
    def in_file_of(model: _core.Model, path: str) -> Tokenizer:
        """Return the tokenizer of the vocabulary that a model file holds; see `Model.tokenizer`."""
        return _NativeTokenizer(_core.Tokenizer.create_for(model), repr(path))

    @staticmethod
    def of_model(n_vocab: int) -> Tokenizer | None:
        """Return the tokenizer that models with `n_vocab` logits use, or None if it is not known.

        >>> Tokenizer.of_model(256) is Tokenizer.bytewise()
        True
        """
        choice = {65536: Tokenizer.world, 256: Tokenizer.bytewise}.get(n_vocab)
        return choice() if choice else None


class StreamingDecoder:
    """Decodes tokens that come one by one, never giving out half a character.

    >>> decoder = Tokenizer.bytewise().decoder()
    >>> [decoder.push(token) for token in "né".encode()]
    ['n', '', 'é']
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, *tokens: int) -> str:
        """Return the text that `tokens` complete; bytes that are not UTF-8 become U+FFFD."""
        return self._utf8.decode(self._tokenizer.decode_bytes(tokens))

    def finish(self) -> str:
        """Return what is left, an unfinished character as U+FFFD, and begin anew."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text


class _NativeTokenizer(Tokenizer):
    def __init__(self, core: _core.Tokenizer, name: str):
        self._core = core
        self._name = name

    def __repr__(self) -> str:
        return f"<Tokenizer {self._name}: tokens 0 to {self.n_vocab - 1}>"

    @property
    def n_vocab(self) -> int:
        return self._core.n_vocab

    def encode(self, text: str | bytes) -> list[int]:
        encoded = as_bytes("text", text)
        tokens = np.empty(len(encoded), np.int32)
        n_tokens = self._core.encode(encoded, tokens)
        found: list[int] = tokens[:n_tokens].tolist()
        return found

    def decode_bytes(self, tokens: TokenSequence) -> bytes:
        return self._core.decode(as_tokens(tokens))

    def missing(self, n_vocab: int) -> Sequence[int]:
        return [token for token in range(n_vocab) if not self._core.has(token)]


class _JsonTokenizer(Tokenizer):
    """A byte-level BPE of the package `tokenizers`, such as 20B."""

    def __init__(self, path: str):
        self._path = path
        try:
            import tokenizers
        except ImportError as error:
            raise ImportError(
                f"{path}: expected the package tokenizers to read it, found none. Try "
                "`pip install rwkv-py[tokenizers]`"
            ) from error
        try:
            text = Path(path).read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        # The package raises a plain Exception for a file that it cannot understand.
        except Exception as error:
            raise VocabularyError(f"{path}: expected a tokenizer.json, got: {error}") from error
        self._bytes_of = _bytes_of_tokens(self._tokenizer.get_vocab(), self._added())
        if not self._bytes_of:
            raise VocabularyError(f"{path}: expected a tokenizer.json with tokens, got none")

    def __repr__(self) -> str:
        return f"<Tokenizer {self._path!r}: tokens 0 to {self.n_vocab - 1}>"

    def _added(self) -> set[int]:
        return set(self._tokenizer.get_added_tokens_decoder())

    @property
    def n_vocab(self) -> int:
        return max(self._bytes_of) + 1

    def encode(self, text: str | bytes) -> list[int]:
        string = as_bytes("text", text).decode("utf-8", "replace")
        return list(self._tokenizer.encode(string, add_special_tokens=False).ids)

    def decode_bytes(self, tokens: TokenSequence) -> bytes:
        try:
            return b"".join(self._bytes_of[token] for token in as_tokens(tokens).tolist())
        except KeyError as error:
            raise TokenOutOfRangeError(
                f"token: expected one of the vocabulary, 0 to {self.n_vocab - 1} with gaps, got "
                f"{error.args[0]}"
            ) from None

    def missing(self, n_vocab: int) -> Sequence[int]:
        return [token for token in range(n_vocab) if token not in self._bytes_of]


def _bytes_of_tokens(vocabulary: dict[str, int], added: Iterable[int]) -> dict[int, bytes]:
    """Map each token to its bytes: byte-level BPE writes a byte as one printable character.

    Printable Latin-1 bytes stand for themselves; the others, in order, for U+0100 and what follows.
    Added tokens are plain text.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of |= {chr(0x100 + i): byte for i, byte in enumerate(others)}
    plain = set(added)
    return {
        token: text.encode()
        if token in plain or not all(c in byte_of for c in text)
        else bytes(byte_of[c] for c in text)
        for text, token in vocabulary.items()
    }


@functools.cache
def _world() -> Tokenizer:
    return _NativeTokenizer(_core.Tokenizer.create_world(), "world")


@functools.cache
def _bytewise() -> Tokenizer:
    return _NativeTokenizer(_core.Tokenizer.create_bytes(), "bytes")
