"""`rwkv.utils` of the PyPI package `rwkv`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..._arguments import StrPath
from ...errors import InvalidArgumentError
from ...tokenizer import Tokenizer
from .._arrays import ArrayOrTensor, values_of
from .._json_tokenizer import open_json
from .._probabilities import cut_below, draw, softmax
from .rwkv_tokenizer import TRIE_TOKENIZER

__all__ = ["PIPELINE", "PIPELINE_ARGS"]

# What a token's text is part of if it does not count for `alpha_frequency`.
_UNCOUNTED = " \t0123456789"


class PIPELINE_ARGS:
    """How `PIPELINE.generate` writes.

    Args:
        temperature: 0 takes the most probable token.
        top_p: of the probabilities keep those at least as large as the one where the sum, from the
            largest down, reaches it.
        top_k: of these keep the largest; 0 keeps all.
        alpha_frequency: what a token's logit loses for each time it was written.
        alpha_presence: what it loses once it was written.
        alpha_decay: what the counts are multiplied by with each token.
        token_ban: tokens that are never drawn.
        token_stop: tokens that end the text.
        chunk_len: how many tokens of the prompt are read at a time.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_p: float = 0.85,
        top_k: int = 0,
        alpha_frequency: float = 0.2,
        alpha_presence: float = 0.2,
        alpha_decay: float = 0.996,
        token_ban: Sequence[int] = (),
        token_stop: Sequence[int] = (),
        chunk_len: int = 256,
    ):
        self.temperature = temperature
        self.top_p = top_p
        self.top_k = top_k
        self.alpha_frequency = alpha_frequency
        self.alpha_presence = alpha_presence
        self.alpha_decay = alpha_decay
        self.token_ban = token_ban
        self.token_stop = token_stop
        self.chunk_len = chunk_len


class _Reads(Protocol):
    """What `PIPELINE` asks of a model: `RWKV`, or anything like it."""

    def forward(
        self, tokens: list[int], state: list[ArrayOrTensor] | None
    ) -> tuple[ArrayOrTensor, list[ArrayOrTensor]]: ...


class PIPELINE:
    r"""A model and its tokenizer.

    Args:
        model: an `RWKV`.
        WORD_NAME: "rwkv_vocab_v20230424" or "world"; "bytes"; "cl100k_base" (needs the package
            tiktoken); the path of a `tokenizer.json`, such as 20B's (needs the package tokenizers);
            or that of another vocabulary, see `Tokenizer.open`.

    Attributes:
        model: the same.
        tokenizer: a `TRIE_TOKENIZER`, or what tiktoken and tokenizers have.

    Raises:
        VocabularyError: the file cannot be read or understood.
        ImportError: a package is missing.

    >>> from rwkv_py.compat.rwkv import PIPELINE, PIPELINE_ARGS, RWKV
    >>> pipeline = PIPELINE(RWKV("model", "cpu fp32"), "bytes")
    >>> args = PIPELINE_ARGS(temperature=0, alpha_frequency=0, alpha_presence=0)
    >>> pipeline.generate("The ", token_count=8, args=args)
    'standard'
    """

    def __init__(self, model: _Reads, WORD_NAME: StrPath):
        self.model = model
        self.tokenizer: Any = _tokenizer(os.fspath(WORD_NAME))

    def refine_context(self, context: str) -> str:
        """Return a text without empty lines, spaces at the ends of lines, behind a line break."""
        lines = (line.strip().strip("\u3000").strip("\r") for line in context.strip().split("\n"))
        return "\n" + "\n".join(line for line in lines if line).strip()

    def encode(self, x: str) -> list[int]:
        """Return the tokens of text."""
        encoded = self.tokenizer.encode(x)
        return list(getattr(encoded, "ids", encoded))

    def decode(self, x: Sequence[int]) -> str:
        """Return the text that tokens stand for."""
        text: str = self.tokenizer.decode(x)
        return text

    def sample_logits(
        self, logits: ArrayOrTensor, temperature: float = 1.0, top_p: float = 0.85, top_k: int = 0
    ) -> int:
        """Draw a token from logits (n_vocab,), with the random numbers of `np.random`.

        First `top_p`, then `top_k`, then the temperature; see `PIPELINE_ARGS`.
        """
        if temperature == 0:
            temperature, top_p = 1.0, 0.0
        probabilities = softmax(values_of(logits))
        order = np.argsort(probabilities)
        falling = probabilities[order][::-1]
        cut_below(probabilities, falling, np.cumsum(falling) >= top_p)
        top_k = int(top_k)
        if 0 < top_k < len(probabilities):
            probabilities[order[:-top_k]] = 0
        return draw(probabilities, temperature)

    def generate(
        self,
        ctx: str,
        token_count: int = 100,
        args: PIPELINE_ARGS | None = None,
        callback: Callable[[str], object] | None = None,
        state: list[ArrayOrTensor] | None = None,
    ) -> str:
        """Read a text and write on: return what was written.

        Args:
            ctx: the text, of at least one token.
            token_count: how many tokens to draw at most.
            args: how; None: with the defaults of `PIPELINE_ARGS`.
            callback: called with each piece of text that is complete.
            state: what to read it after; None begins anew. See `RWKV.forward` for what becomes of
                it. A token is read before the next is drawn, so the last one drawn is not read.

        Raises:
            InvalidArgumentError: the text has no token; and what `RWKV.forward` raises.
        """
        args = args or PIPELINE_ARGS()
        tokens = self.encode(ctx)
        if not tokens and token_count > 0:
            raise InvalidArgumentError("ctx: expected a text of at least one token, got none")
        counts: dict[int, float] = {}
        pending: list[int] = []  # tokens whose text is not complete
        text = ""
        for _ in range(token_count):
            for begin in range(0, len(tokens), args.chunk_len):
                logits, state = self.model.forward(tokens[begin : begin + args.chunk_len], state)
            for token in args.token_ban:
                logits[token] = -float("inf")
            for token, count in counts.items():
                logits[token] -= args.alpha_presence + count * args.alpha_frequency
            token = self.sample_logits(logits, args.temperature, args.top_p, args.top_k)
            if token in args.token_stop:
                break
            counts = {each: count * args.alpha_decay for each, count in counts.items()}
            weight = 0 if self.decode([token]) in _UNCOUNTED else 1
            counts[token] = counts.get(token, 0) + weight
            tokens = [token]
            pending.append(token)
            piece = self.decode(pending)
            if "\ufffd" not in piece:
                if callback is not None:
                    callback(piece)
                text += piece
                pending = []
        return text


def _tokenizer(name: str) -> Any:
    if name == "rwkv_vocab_v20230424":
        return TRIE_TOKENIZER(Tokenizer.world())
    if name == "cl100k_base":
        try:
            import tiktoken
        except ImportError as error:
            raise ImportError(
                "WORD_NAME: expected the package tiktoken for cl100k_base, found none. Try `pip "
                "install tiktoken`"
            ) from error
        return tiktoken.get_encoding(name)
    if name.lower().endswith(".json"):
        return open_json(name)
    return TRIE_TOKENIZER(Tokenizer.named(name))
