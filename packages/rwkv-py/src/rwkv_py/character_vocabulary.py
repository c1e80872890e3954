r"""`vocab.json` of RWKV-LM's character mode: `{"0": "\n", "1": " ", ...}`, a token a character."""

from __future__ import annotations

from collections.abc import Mapping

from ._arguments import Tokens
from .errors import InvalidArgumentError, TokenOutOfRangeError, VocabularyError
from .vocabulary import Vocabulary

__all__ = ["character_vocabulary", "is_character_table"]

# In RWKV-LM's vocabularies that have it, it stands for every character that they lack.
_UNKNOWN = "\ue083"

_MAX_TOKENS = 1 << 20


def is_character_table(value: Mapping[str, object]) -> bool:
    """Return whether a JSON object is from numbers to texts, as such a file is."""
    return bool(value) and all(
        key.isascii() and key.isdigit() and len(key) < 10 and isinstance(text, str)
        for key, text in value.items()
    )


def character_vocabulary(where: str, table: Mapping[str, object]) -> Vocabulary:
    """Return the vocabulary of a table that `is_character_table`.

    Raises:
        VocabularyError: a token is no character, or a character is two tokens.
    """
    return _CharacterVocabulary(where, table)


class _CharacterVocabulary(Vocabulary):
    """A token is a character, and every character of the training text is a token.

    Token 0 is one like the others, mostly the line feed: there is no end of a document.
    """

    end_of_document = None

    def __init__(self, where: str, table: Mapping[str, object]):
        self._character_of: dict[int, str] = {}
        self._token_of: dict[str, int] = {}
        for key, text in table.items():
            assert isinstance(text, str)
            token = int(key)
            if token >= _MAX_TOKENS:
                raise VocabularyError(
                    f"{where}: token, expected at most {_MAX_TOKENS - 1}, got {token}"
                )
            if len(text) != 1 or "\ud800" <= text <= "\udfff":
                raise VocabularyError(
                    f"{where}: token {token}, expected one character, got {ascii(text)[:60]}"
                )
            if text in self._token_of or token in self._character_of:
                raise VocabularyError(
                    f"{where}: token {token}, expected each token and each character once, got "
                    f"{text!a} twice"
                )
            self._character_of[token] = text
            self._token_of[text] = token
        self._n_vocab = max(self._character_of) + 1

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    def has(self, token: int) -> bool:
        return token in self._character_of

    def encode(self, text: bytes) -> list[int]:
        characters = text.decode("utf-8", "replace")
        unknown = self._token_of.get(_UNKNOWN)
        tokens = []
        for place, character in enumerate(characters):
            token = self._token_of.get(character, unknown)
            if token is None:
                raise InvalidArgumentError(
                    f"text: character {place}, expected one of the vocabulary's "
                    f"{len(self._token_of)}, got {character!a}",
                    remedy="Try the vocabulary that the model was trained with",
                )
            tokens.append(token)
        return tokens

    def decode(self, tokens: Tokens) -> bytes:
        try:
            return "".join(self._character_of[token] for token in tokens.tolist()).encode()
        except KeyError as error:
            raise TokenOutOfRangeError(
                f"token: expected one of the vocabulary, 0 to {self._n_vocab - 1} with gaps, got "
                f"{error.args[0]}"
            ) from None
