"""Tokens that were added to a vocabulary, as the package transformers writes them beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ._arguments import Tokens, as_tokens
from .errors import InvalidArgumentError, VocabularyError
from .vocabulary import Vocabulary

__all__ = ["added_tokens_of", "with_added_tokens"]

_MAX_TOKENS = 1 << 20


def added_tokens_of(where: str, described: object) -> dict[int, str]:
    """Return the texts of added tokens, checked.

    Args:
        where: the file's name, for messages.
        described: objects with a text `content`, by number, as in `added_tokens_decoder` of a
            tokenizer_config.json.

    Raises:
        VocabularyError: it is something else.
    """
    if not isinstance(described, dict):
        raise VocabularyError(f"{where}: added tokens, expected a JSON object, got another value")
    added = {}
    for key, value in described.items():
        text = value.get("content") if isinstance(value, dict) else None
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else _MAX_TOKENS
        if token >= _MAX_TOKENS or not isinstance(text, str) or not text:
            raise VocabularyError(
                f"{where}: added tokens, expected numbers below {_MAX_TOKENS} with a text each, "
                f"got {key[:40]!a}"
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise VocabularyError(
                f"{where}: added token {token}, expected Unicode characters, got {text[:40]!a}"
            )
        added[token] = text
    return added


def with_added_tokens(where: str, base: Vocabulary, added: Mapping[int, str]) -> Vocabulary:
    """Return a vocabulary with more tokens, where a text is cut first, the longest before others.

    A text that the vocabulary has as a token already stays that one, which the model was trained
    with: the files of some World models add an empty line once more.

    Args:
        where: the file's name, for messages.
        base: what to add them to, whose tokens do not depend on their context.
        added: their texts.

    Raises:
        VocabularyError: a token is another one in the vocabulary.
    """
    return _WithAddedTokens(where, base, added)


class _WithAddedTokens(Vocabulary):
    def __init__(self, where: str, base: Vocabulary, added: Mapping[int, str]):
        self._base = base
        self._text_of: dict[int, bytes] = {}
        for token, text in added.items():
            data = text.encode()
            own = base.decode(as_tokens([token])) if base.has(token) else b""
            if own and own != data:
                raise VocabularyError(
                    f"{where}: added token {token}, expected {own!r} as in the vocabulary, got "
                    f"{text[:40]!a}"
                )
            if not own and not self._is_token(data):
                self._text_of[token] = data
        self._token_of = {text: token for token, text in self._text_of.items()}
        longest_first = sorted(self._token_of, key=len, reverse=True)
        self._cut = re.compile(b"(" + b"|".join(map(re.escape, longest_first)) + b")")
        self._n_vocab = max([base.n_vocab - 1, *self._text_of]) + 1

    def _is_token(self, text: bytes) -> bool:
        try:
            return len(self._base.encode(text)) == 1
        except InvalidArgumentError:  # a vocabulary without some bytes
            return False

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    def has(self, token: int) -> bool:
        return token in self._text_of or self._base.has(token)

    def encode(self, text: bytes) -> list[int]:
        if not self._text_of:
            return self._base.encode(text)
        tokens = []
        for part in self._cut.split(text):
            added = self._token_of.get(part)
            tokens += self._base.encode(part) if added is None else [added]
        return tokens

    def decode(self, tokens: Tokens) -> bytes:
        parts = []
        begin = 0
        for place, token in enumerate(tokens.tolist()):
            if token in self._text_of:
                parts += [self._base.decode(tokens[begin:place]), self._text_of[token]]
                begin = place + 1
        return b"".join([*parts, self._base.decode(tokens[begin:])])
