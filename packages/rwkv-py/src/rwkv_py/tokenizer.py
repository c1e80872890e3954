"""Text <-> tokens."""

from __future__ import annotations

import codecs
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

from . import _core
from ._arguments import StrPath, Tokens, TokenSequence, as_bytes, as_path, as_tokens
from .errors import InvalidArgumentError
from .vocabulary import Pieces, Vocabulary, native_vocabulary
from .vocabulary_file import ACCEPTED, open_vocabulary

__all__ = ["StreamingDecoder", "Tokenizer"]


class Tokenizer(ABC):
    """A vocabulary: what a model's tokens stand for.

    `Tokenizer.world()` and `Tokenizer.bytewise()` are built in, `Tokenizer.open()` reads a file or
    a folder. For another kind derive from this class: `n_vocab`, `encode` and `decode_bytes` are
    all it takes. Tokenizers are immutable and may be shared by threads.

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

    @property
    def end_of_document(self) -> int | None:
        """The token that ends a document; None where 0 is a token like the others."""
        return 0

    @property
    def is_context_free(self) -> bool:
        """Whether a token stands for the same bytes whatever comes before and after it."""
        return True

    def _pieces(self, *, continuing: bool) -> Pieces:
        """Return what gives the bytes of tokens that come one by one; see `Vocabulary.pieces`."""
        return _DecodedAlone(self)

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
        """Read a vocabulary file. Its content decides what it is, and not its name.

        Args:
            path: a vocabulary in the World format, a line `ID LITERAL LENGTH` for each token; a
                `tokenizer.json` of the package `tokenizers`, as the 20B models have it (needs the
                extra `rwkv-py[tokenizers]`); a `vocab.json` of RWKV-LM's character mode,
                characters by number in UTF-8 or UTF-16; or a folder with one of them. To a World
                vocabulary in a folder the tokens are added that an `added_tokens.json` or
                `tokenizer_config.json` beside it names.

        Raises:
            VocabularyError: it cannot be read or understood; where, its text says.
            ImportError: the package `tokenizers` is not installed.
        """
        vocabulary = open_vocabulary(path)
        return _OfVocabulary(vocabulary, repr(os.fsdecode(as_path(path))))

    @staticmethod
    def named(choice: StrPath) -> Tokenizer:
        """Return the built-in tokenizer "world" or "bytes", or else `open` a vocabulary file.

        Raises:
            InvalidArgumentError: it is neither text nor a path; and what `open` raises.
        """
        if not isinstance(choice, str | os.PathLike):
            raise InvalidArgumentError(
                f"tokenizer: expected 'world', 'bytes' or the path of {ACCEPTED}, got {choice!r}"
            )
        built_in = {"world": Tokenizer.world, "bytes": Tokenizer.bytewise}.get(os.fspath(choice))
        return built_in() if built_in else Tokenizer.open(choice)

    @staticmethod
    def in_file_of(model: _core.Model, path: str) -> Tokenizer:
        """Return the tokenizer of the vocabulary that a model file holds; see `Model.tokenizer`."""
        vocabulary = native_vocabulary(_core.Tokenizer.create_for(model))
        return _OfVocabulary(vocabulary, repr(path))

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
        self._pieces = tokenizer._pieces(continuing=False)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, *tokens: int) -> str:
        """Return the text that `tokens` complete; bytes that are not UTF-8 become U+FFFD."""
        return self._utf8.decode(self._pieces.push(as_tokens(tokens)))

    def finish(self) -> str:
        """Return what is left, an unfinished character as U+FFFD, and begin anew."""
        text = self._utf8.decode(self._pieces.finish(), final=True)
        self._utf8.reset()
        return text


class _OfVocabulary(Tokenizer):
    """The tokenizer of a vocabulary that this package knows to read."""

    def __init__(self, vocabulary: Vocabulary, name: str):
        self._vocabulary = vocabulary
        self._name = name

    def __repr__(self) -> str:
        return f"<Tokenizer {self._name}: tokens 0 to {self.n_vocab - 1}>"

    @property
    def n_vocab(self) -> int:
        return self._vocabulary.n_vocab

    @property
    def end_of_document(self) -> int | None:
        return self._vocabulary.end_of_document

    @property
    def is_context_free(self) -> bool:
        return self._vocabulary.is_context_free

    def encode(self, text: str | bytes) -> list[int]:
        return self._vocabulary.encode(as_bytes("text", text))

    def decode_bytes(self, tokens: TokenSequence) -> bytes:
        return self._vocabulary.decode(as_tokens(tokens))

    def missing(self, n_vocab: int) -> Sequence[int]:
        return self._vocabulary.missing(n_vocab)

    def _pieces(self, *, continuing: bool) -> Pieces:
        return self._vocabulary.pieces(continuing=continuing)


class _DecodedAlone(Pieces):
    """The pieces of a tokenizer of which nothing more is known than what it decodes."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def push(self, tokens: Tokens) -> bytes:
        return self._tokenizer.decode_bytes(tokens.tolist())  # as simple a sequence as there is

    def finish(self) -> bytes:
        return b""


@functools.cache
def _world() -> Tokenizer:
    return _OfVocabulary(native_vocabulary(_core.Tokenizer.create_world()), "world")


@functools.cache
def _bytewise() -> Tokenizer:
    return _OfVocabulary(native_vocabulary(_core.Tokenizer.create_bytes()), "bytes")
