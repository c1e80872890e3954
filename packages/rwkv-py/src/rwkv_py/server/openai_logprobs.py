"""How probable tokens were, in the two forms that OpenAI has for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from ..errors import TokenOutOfRangeError
from ..probabilities import TokenProbability
from ..tokenizer import Tokenizer
from .wire import finite

__all__ = ["ChatLogprobs", "CompletionLogprobs", "CompletionTokens", "chat_logprobs", "token_text"]


class TopLogprob(BaseModel):
    """A token that was probable."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that was drawn."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """The tokens of an answer."""

    content: list[TokenLogprob]


class CompletionLogprobs(BaseModel):
    """The tokens of a text, in lists of one length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """Return the bytes of a token; of one that the vocabulary lacks none."""
    try:
        return tokenizer.decode_bytes([token])
    except TokenOutOfRangeError:
        return b""


def token_text(data: bytes) -> str:
    r"""Return bytes as a token's text: those that are no whole characters as `bytes:\xe2\x80`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(
    tokenizer: Tokenizer, probabilities: Iterable[TokenProbability]
) -> dict[str, Any]:
    """Return the form of chats."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = token_bytes(tokenizer, token)
        return {"token": token_text(data), "logprob": finite(logprob), "bytes": list(data)}

    return {
        "content": [
            {
                **entry(each.token, each.logprob),
                "top_logprobs": [entry(*top) for top in each.top],
            }
            for each in probabilities
        ]
    }


class CompletionTokens:
    """The form of completions, for tokens that come one after the other.

    Args:
        tokenizer: what they stand for.
        n_top: how many probable tokens to tell with each.
    """

    def __init__(self, tokenizer: Tokenizer, n_top: int):
        self._tokenizer = tokenizer
        self._n_top = n_top
        self._decoder = tokenizer.decoder()
        self._offset = 0

    def next(
        self, tokens: Iterable[tuple[int, TokenProbability | None]]
    ) -> dict[str, list[Any] | None]:
        """Return lists about the next tokens; None of a probability is unknown."""
        texts: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token, probability in tokens:
            texts.append(self._text(token))
            offsets.append(self._offset)
            self._offset += len(self._decoder.push(token)) if texts[-1] else 0
            if probability is None:
                logprobs.append(None)
                tops.append(None)
                continue
            logprobs.append(finite(probability.logprob))
            top: dict[str, float] = {}
            for each, logprob in probability.top:
                top.setdefault(self._text(each), finite(logprob))
            tops.append(top)
        return {
            "tokens": texts,
            "token_logprobs": logprobs,
            "top_logprobs": tops if self._n_top else None,
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        return token_text(token_bytes(self._tokenizer, token))
