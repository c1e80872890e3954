"""`tokenizer.json`, read by the package `tokenizers`: text as the file's own decoder has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ._arguments import Tokens
from .errors import InvalidArgumentError, TokenOutOfRangeError, VocabularyError
from .vocabulary import Pieces, Vocabulary

__all__ = ["json_vocabulary"]

# What a step of a decoder does to a token may depend on the one before it and on whether it is the
# first or the last: these do no more. ByteFallback besides joins tokens of bytes that follow each
# other. ByteLevel alone is another class here, because half a character may be in a token. CTC is
# for speech: it leaves repetitions out.
_LOCAL = {"Replace", "Metaspace", "WordPiece", "ByteFallback", "Strip", "BPEDecoder"}

_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")


def json_vocabulary(where: str, text: str, table: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary of a tokenizer.json.

    Args:
        where: the file's name, for messages.
        text: the file's.
        table: the same, parsed.

    Raises:
        ImportError: the package `tokenizers` is not installed.
        VocabularyError: it does not understand the file, or the file has no tokens, or a decoder
            whose text cannot be told token by token.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            f"{where}: expected the package tokenizers to read it, found none. Try "
            "`pip install rwkv-py[tokenizers]`"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    # The package raises a plain Exception for a file that it cannot understand.
    except Exception as error:
        said = str(error) if str(error).isprintable() else ascii(str(error))
        raise VocabularyError(f"{where}: expected a tokenizer.json, got: {said[:500]}") from error
    tokens = tokenizer.get_vocab(with_added_tokens=True)
    if not tokens:
        raise VocabularyError(f"{where}: expected a tokenizer.json with tokens, got none")
    steps = list(_steps(table.get("decoder")))
    if [step.get("type") for step in steps] == ["ByteLevel"]:
        return _ByteLevelVocabulary(tokenizer, tokens)
    if (wrong := _not_token_by_token(steps)) is not None:
        raise VocabularyError(
            f"{where}: decoder, expected one whose text can be told token by token, got {wrong}"
        )
    return _DecodedVocabulary(tokenizer, tokens, steps)


def _steps(decoder: object) -> Iterable[Mapping[str, Any]]:
    """Return the steps of a decoder, in order."""
    if isinstance(decoder, dict):
        if decoder.get("type") == "Sequence":
            for step in decoder.get("decoders", ()):
                yield from _steps(step)
        else:
            yield decoder


def _not_token_by_token(steps: list[Mapping[str, Any]]) -> str | None:
    """Return the name of a step that needs to see more than two tokens, or None."""
    fused = False  # from where on all tokens are one text
    for step in steps:
        kind = step.get("type")
        allowed = kind in _LOCAL
        if kind == "Fuse":
            allowed = fused = True
        elif fused:
            pattern = step.get("pattern")
            single = isinstance(pattern, dict) and len(pattern.get("String", "  ")) == 1
            allowed = (kind == "Replace" and single) or (kind == "Strip" and step.get("stop") == 0)
        if not allowed:
            return f"{kind} after Fuse" if fused else str(kind)
    return None


class _JsonVocabulary(Vocabulary):
    def __init__(self, tokenizer: Any, tokens: Mapping[str, int]):
        self._tokenizer = tokenizer
        self._tokens = frozenset(tokens.values())
        self._n_vocab = max(self._tokens) + 1

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    def has(self, token: int) -> bool:
        return token in self._tokens

    def encode(self, text: bytes) -> list[int]:
        string = text.decode("utf-8", "replace")
        try:
            return list(self._tokenizer.encode(string, add_special_tokens=False).ids)
        # The package raises a plain Exception where a vocabulary has no token for the unknown.
        except Exception as error:
            raise InvalidArgumentError(
                f"text: expected one that the vocabulary has tokens for, got: {error}",
                remedy="Try the vocabulary that the model was trained with",
            ) from error

    def known(self, tokens: Tokens) -> list[int]:
        """Return the tokens as a list.

        Raises:
            TokenOutOfRangeError: one is not of the vocabulary.
        """
        several: list[int] = tokens.tolist()
        for token in several:
            if token not in self._tokens:
                raise TokenOutOfRangeError(
                    f"token: expected one of the vocabulary, 0 to {self._n_vocab - 1} with gaps, "
                    f"got {token}"
                )
        return several

    def text_of(self, tokens: list[int]) -> str:
        """Return what the file's decoder makes of tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text


class _ByteLevelVocabulary(_JsonVocabulary):
    """A byte-level BPE, such as 20B's."""

    def __init__(self, tokenizer: Any, tokens: Mapping[str, int]):
        super().__init__(tokenizer, tokens)
        self._bytes_of = _bytes_of_tokens(tokens)

    def decode(self, tokens: Tokens) -> bytes:
        return b"".join(self._bytes_of[token] for token in self.known(tokens))


def _bytes_of_tokens(vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    """Map each token to its bytes: byte-level BPE writes a byte as one printable character.

    Printable Latin-1 bytes stand for themselves; the others, in order, for U+0100 and what follows.
    A token with another character is plain text, as are mostly those that were added.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of |= {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return {
        token: bytes(byte_of[c] for c in text) if all(c in byte_of for c in text) else text.encode()
        for text, token in vocabulary.items()
    }


class _DecodedVocabulary(_JsonVocabulary):
    """Tokens whose text depends on those beside them, as the decoder of the file says."""

    is_context_free = False

    def __init__(self, tokenizer: Any, tokens: Mapping[str, int], steps: list[Mapping[str, Any]]):
        super().__init__(tokenizer, tokens)
        falls_back = any(step.get("type") == "ByteFallback" for step in steps)
        self.bytes_tokens = frozenset(
            token
            for text, token in tokens.items()
            if falls_back and _BYTE_TOKEN.fullmatch(text) is not None
        )
        # What stands before a text that goes on: a token with text, and if words have an end, one
        # that ends a word.
        end = next((step["suffix"] for step in steps if step.get("type") == "BPEDecoder"), "")
        self.neutral = next(
            (
                [token]
                for text, token in sorted(tokens.items(), key=lambda item: item[1])
                if token not in self.bytes_tokens
                and text.endswith(end)
                and self.text_of([token])[:1].strip()
            ),
            [],
        )

    def decode(self, tokens: Tokens) -> bytes:
        return self.text_of(self.known(tokens)).encode()

    def pieces(self, *, continuing: bool) -> Pieces:
        return _DecodedPieces(self, continuing)


class _DecodedPieces(Pieces):
    """Decodes a few tokens at a time, behind the token before them.

    Tokens of bytes that follow each other are one run, whose text is known when another token or
    the end comes: if the run is not UTF-8, the decoder lets each of its bytes be U+FFFD.
    """

    def __init__(self, vocabulary: _DecodedVocabulary, continuing: bool):
        self._vocabulary = vocabulary
        self._continuing = continuing
        self._before = vocabulary.neutral if continuing else []
        self._run: list[int] = []

    def push(self, tokens: Tokens) -> bytes:
        text = ""
        for token in self._vocabulary.known(tokens):
            self._run.append(token)
            if token not in self._vocabulary.bytes_tokens:
                text += self._settle()
        return text.encode()

    def finish(self) -> bytes:
        text = self._settle()
        self._before = self._vocabulary.neutral if self._continuing else []
        return text.encode()

    def _settle(self) -> str:
        """Return the text of the run, which ends here."""
        if not self._run:
            return ""
        text_of = self._vocabulary.text_of
        text = text_of(self._before + self._run)[len(text_of(self._before)) :]
        # The neutral token is the first from now on, so that no other is taken for it.
        self._before = [*self._vocabulary.neutral, self._run[-1]]
        self._run = []
        return text
