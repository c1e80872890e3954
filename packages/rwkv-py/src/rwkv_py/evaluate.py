"""How good a model is: perplexity, agreement with another model, LAMBADA."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from ._arguments import StrPath, Tokens, as_count, as_path, as_tokens
from ._options import takes_options_of
from .errors import InvalidArgumentError
from .model import Model
from .probabilities import log_softmax
from .prompt import END_OF_DOCUMENT, Prompt, pieces
from .session import Session
from .tokenizer import Tokenizer

__all__ = [
    "Comparison",
    "Lambada",
    "Perplexity",
    "Progress",
    "compare",
    "lambada",
    "perplexity",
    "read_lambada",
]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

# Probabilities are computed in float64 for this many logits at a time: 16 MB.
_LOGITS_AT_ONCE = 1 << 21

# A file of LAMBADA's texts, far larger than any there is.
_MAX_LAMBADA_BYTES = 1 << 26

# Texts of LAMBADA that are read together: enough to fill passes, few enough for their states.
_TEXTS_AT_ONCE = 16


class ReadingOptions(TypedDict, total=False):
    """What `perplexity`, `compare` and `lambada` take besides models and texts.

    Attributes:
        tokenizer: as for `Session`.
        progress: called with how many tokens (of `lambada` texts) were read, and of how many.
    """

    tokenizer: Tokenizer | StrPath | None
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """`ReadingOptions` and their defaults."""

    tokenizer: Tokenizer | StrPath | None = None
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes:
        n_tokens: tokens predicted: all but the first, and others that were to be ignored.
        n_bytes: the bytes that they stand for.
        nats: the sum of -ln p(token | all tokens before it).
    """

    n_tokens: int
    n_bytes: int
    nats: float

    @property
    def bits_per_token(self) -> float:
        """Mean surprise of a token in bits."""
        return self.nats / self.n_tokens / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits that each byte would be compressed to: comparable between vocabularies."""
        return self.nats / self.n_bytes / math.log(2)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean surprise of a token: exp(nats / n_tokens)."""
        return _exp(self.nats / self.n_tokens)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far model B is from model A, over all tokens of a text but the last.

    Attributes:
        n_tokens: after how many tokens the predictions were compared.
        kl_mean: mean of KL(A || B) = sum_i p_A(i) ln(p_A(i) / p_B(i)), in nats.
        kl_median: median of the same.
        kl_p99: its 99th percentile.
        kl_max: its largest value.
        top1_agreement: share of places (0 to 1) where both find the same token most probable.
        max_logit_difference: largest |logit_A - logit_B|.
        a: how well A predicts the text.
        b: how well B predicts the text.
    """

    n_tokens: int
    kl_mean: float
    kl_median: float
    kl_p99: float
    kl_max: float
    top1_agreement: float
    max_logit_difference: float
    a: Perplexity
    b: Perplexity


@dataclass(frozen=True, kw_only=True)
class Lambada:
    """How well a model predicts the last word of passages.

    Attributes:
        n_texts: passages.
        accuracy: share (0 to 1) of passages in which each token of the last word is the most
            probable one after the tokens before it.
        perplexity: exp(-mean ln p(last word)), where p is the product over the word's tokens: the
            mean is over passages, not over tokens.
    """

    n_texts: int
    accuracy: float
    perplexity: float


@takes_options_of(_Reading)
def perplexity(
    model: Model | StrPath,
    text: str | bytes,
    *,
    ignore_first: int = 0,
    token_limit: int | None = None,
    **options: Unpack[ReadingOptions],
) -> Perplexity:
    """Read a text of any length once, the state carried through; the first token is not scored.

    Args:
        model: a `Model`, or the path of a model file.
        text: at least two tokens.
        ignore_first: how many tokens at the beginning are read and not scored.
        token_limit: how many tokens of the text are taken, at most; None: all.
        **options: tokenizer, progress: see `ReadingOptions`.

    Raises:
        InvalidArgumentError: the text is too short, or nothing of it would be scored; and what else
            `Session` raises.

    >>> from rwkv_py.evaluate import perplexity
    >>> score = perplexity(model, "Return a list of the names of all signals.")
    >>> round(score.bits_per_byte) in (1, 2, 3)
    True
    """
    reading = _Reading(**options)
    n_ignored = max(1, as_count("ignore_first", ignore_first))
    if token_limit is not None:
        token_limit = as_count("token_limit", token_limit, at_least=2)
    session = Session(model, tokenizer=reading.tokenizer)
    tokens = _tokens_to_score(session, text)[:token_limit]
    if tokens.size <= n_ignored:
        raise InvalidArgumentError(
            f"ignore_first: expected fewer than the {tokens.size} tokens of the text, got "
            f"{n_ignored}"
        )
    nats = 0.0
    n_left = n_ignored - 1  # of the tokens to predict, those that are not scored
    for targets, logits in _predictions(tokens, reading.progress, session):
        skipped = min(n_left, targets.size)
        n_left -= skipped
        scored, of_model = targets[skipped:], logits[0][skipped:]
        for rows in _row_blocks(of_model):
            nats -= _log_probabilities(of_model[rows], scored[rows]).sum()
    return _perplexity(session, tokens[n_ignored - 1 :], float(nats))


@takes_options_of(_Reading)
def compare(
    model_a: Model | StrPath,
    model_b: Model | StrPath,
    text: str | bytes,
    **options: Unpack[ReadingOptions],
) -> Comparison:
    """Let two models read the same text, and compare what they expect after each token.

    Usually A is the original and B a quantised file of it.

    Args:
        model_a: a `Model`, or the path of a model file.
        model_b: another with as many tokens.
        text: at least two tokens.
        **options: tokenizer, progress: see `ReadingOptions`.

    Raises:
        InvalidArgumentError: the models have different numbers of tokens, or the text is too short;
            and what else `Session` raises.

    >>> from rwkv_py.evaluate import compare
    >>> compare(model, model, "It is the same model.").kl_max
    0.0
    """
    reading = _Reading(**options)
    a = Session(model_a, tokenizer=reading.tokenizer)
    b = Session(model_b, tokenizer=reading.tokenizer)
    if a.model.n_vocab != b.model.n_vocab:
        raise InvalidArgumentError(
            f"compare: expected models with the same tokens, got {a.model.n_vocab} in "
            f"{a.model.path} and {b.model.n_vocab} in {b.model.path}"
        )
    tokens = _tokens_to_score(a, text)
    divergences, n_agree, largest = [], 0, 0.0
    nats_a = nats_b = 0.0
    for targets, (of_a, of_b) in _predictions(tokens, reading.progress, a, b):
        n_agree += int((of_a.argmax(axis=1) == of_b.argmax(axis=1)).sum())
        largest = max(largest, float(np.abs(of_a - of_b).max()))
        for rows in _row_blocks(of_a):
            log_a, log_b = log_softmax(of_a[rows]), log_softmax(of_b[rows])
            places = np.arange(len(log_a))
            nats_a -= float(log_a[places, targets[rows]].sum())
            nats_b -= float(log_b[places, targets[rows]].sum())
            divergences.append((np.exp(log_a) * (log_a - log_b)).sum(axis=1))
    kl = np.concatenate(divergences)
    return Comparison(
        n_tokens=len(kl),
        kl_mean=float(kl.mean()),
        kl_median=float(np.median(kl)),
        kl_p99=float(np.percentile(kl, 99)),
        kl_max=float(kl.max()),
        top1_agreement=n_agree / len(kl),
        max_logit_difference=largest,
        a=_perplexity(a, tokens, nats_a),
        b=_perplexity(b, tokens, nats_b),
    )


@takes_options_of(_Reading)
def lambada(
    model: Model | StrPath,
    texts: Sequence[str],
    **options: Unpack[ReadingOptions],
) -> Lambada:
    """Let a model guess the last word of each text (Paperno et al., 2016).

    The definition is that of RWKV-LM's demos of RWKV-6 and 7: what stands before the last space is
    read after token 0, and the space belongs to the word; each is tokenized by itself. White space
    at the end of a text is left out. Texts are read many at once, which changes no result.

    Args:
        model: a `Model`, or the path of a model file.
        texts: passages of at least two words, parted by spaces.
        **options: tokenizer, progress: see `ReadingOptions`.

    Raises:
        InvalidArgumentError: there is no text, or one of a single word; and what else `Session`
            raises.

    >>> from rwkv_py.evaluate import lambada
    >>> lambada(model, ["Return True if the object is a class, otherwise return False"]).n_texts
    1
    """
    if isinstance(texts, str | bytes) or not all(isinstance(text, str) for text in texts):
        raise InvalidArgumentError(f"texts: expected a list of str, got {reprlib.repr(texts)}")
    if not texts:
        raise InvalidArgumentError("texts: expected at least one, got none")
    reading = _Reading(**options)
    fresh = Session(model, tokenizer=reading.tokenizer)
    passages = []
    for i, text in enumerate(texts):
        context, word = _context_and_word(text)
        if not context:
            raise InvalidArgumentError(f"texts[{i}]: expected two words or more, got {text!r}")
        read = [END_OF_DOCUMENT, *fresh.tokenizer.encode(context)]
        passages.append((as_tokens(read), as_tokens(fresh.tokenizer.encode(" " + word))))
    n_right, log_p = 0, 0.0
    for begin in range(0, len(passages), _TEXTS_AT_ONCE):
        batch = passages[begin : begin + _TEXTS_AT_ONCE]
        for right, word_log_p in _last_words(fresh, batch):
            n_right += right
            log_p += word_log_p
        if reading.progress is not None:
            reading.progress(begin + len(batch), len(passages))
    n = len(passages)
    return Lambada(n_texts=n, accuracy=n_right / n, perplexity=_exp(-log_p / n))


def read_lambada(path: StrPath) -> list[str]:
    """Read the texts of a LAMBADA file: JSON lines, each an object whose "text" is a passage.

    Raises:
        InvalidArgumentError: a line is something else; which, the message says. The file is larger
            than 64 MB: OpenAI's has 1.8.
        OSError: the file cannot be read.
    """
    with open(os.fsdecode(as_path(path)), "rb") as file:
        content = file.read(_MAX_LAMBADA_BYTES + 1)
    if len(content) > _MAX_LAMBADA_BYTES:
        raise InvalidArgumentError(f"{path}: expected at most {_MAX_LAMBADA_BYTES} bytes, got more")
    texts = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str) or not _context_and_word(text)[0]:
            raise InvalidArgumentError(
                f'{path}:{number}: expected {{"text": "two words or more"}}, got '
                f"{line[:60].decode('utf-8', 'replace')!r}"
            )
        texts.append(text)
    if not texts:
        raise InvalidArgumentError(f"{path}: expected JSON lines, got an empty file")
    return texts


def _context_and_word(text: str) -> tuple[str, str]:
    """Return what stands before the last word, and the word; nothing before it: ("", text)."""
    context, _, word = text.rstrip().rpartition(" ")
    return (context, word) if context.strip() else ("", text)


def _tokens_to_score(session: Session, text: str | bytes) -> Tokens:
    tokens = Prompt.of_text(text, session.tokenizer, session.model.n_vocab).tokens
    if tokens.size < 2:
        raise InvalidArgumentError(f"text: expected at least 2 tokens, got {tokens.size}")
    return tokens


def _predictions(
    tokens: Tokens, progress: Progress | None, *sessions: Session
) -> Iterator[tuple[Tokens, list[NDArray[np.float32]]]]:
    """Let sessions read all tokens but the last, and yield what each predicts, piece by piece.

    Yields the tokens that are to be predicted, and each session's logits (n_tokens, n_vocab).
    """
    to_read = tokens[:-1]
    n_read = 0
    for piece in pieces(to_read):
        logits = []
        for session in sessions:
            (rows,) = session.model.step([(session, piece)], logits="all")
            assert rows is not None
            logits.append(rows)
        yield tokens[n_read + 1 : n_read + 1 + piece.size], logits
        n_read += piece.size
        if progress is not None:
            progress(n_read, to_read.size)


def _last_words(
    fresh: Session, batch: Sequence[tuple[Tokens, Tokens]]
) -> Iterator[tuple[bool, float]]:
    """Yield, for each passage, whether its word is the most probable, and ln p(word)."""
    sessions = [fresh.fork() for _ in batch]
    firsts = fresh.model.step(
        [(session, context) for session, (context, _) in zip(sessions, batch, strict=True)]
    )
    # The logits after a word's last token predict what nobody asks for.
    longer = [
        (session, word[:-1])
        for session, (_, word) in zip(sessions, batch, strict=True)
        if word.size > 1
    ]
    others = iter(fresh.model.step(longer, logits="all"))
    for first, (_, word) in zip(firsts, batch, strict=True):
        assert first is not None
        logits = first[np.newaxis]
        if word.size > 1:
            rest = next(others)
            assert rest is not None
            logits = np.concatenate([logits, rest])
        right = bool((logits.argmax(axis=1) == word).all())
        yield right, float(_log_probabilities(logits, word).sum())


def _row_blocks(logits: NDArray[np.float32]) -> Iterator[slice]:
    """Cut (n_tokens, n_vocab) into blocks of rows of `_LOGITS_AT_ONCE` numbers."""
    n_tokens, n_vocab = logits.shape
    n_rows = max(1, _LOGITS_AT_ONCE // n_vocab)
    for begin in range(0, n_tokens, n_rows):
        yield slice(begin, begin + n_rows)


def _log_probabilities(logits: NDArray[np.float32], targets: Tokens) -> NDArray[np.float64]:
    """Return ln p of a target in each row, float64 (n_tokens,)."""
    log_p: NDArray[np.float64] = log_softmax(logits)[np.arange(len(targets)), targets]
    return log_p


def _perplexity(session: Session, tokens: Tokens, nats: float) -> Perplexity:
    n_bytes = len(session.tokenizer.decode_bytes(tokens[1:]))
    return Perplexity(n_tokens=tokens.size - 1, n_bytes=n_bytes, nats=nats)


def _exp(x: float) -> float:
    """Return e^x, infinite where a float64 cannot hold it."""
    return math.exp(x) if x < 709 else math.inf
