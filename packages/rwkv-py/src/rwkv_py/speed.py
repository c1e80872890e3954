"""How fast a model is on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

from ._arguments import StrPath, TokenSequence, as_count, as_number
from .errors import InvalidArgumentError
from .guessers import SpeculationOptions
from .model import Model
from .prompt import PIECE_TOKENS
from .session import Session
from .speculation import SpeculationCounts

__all__ = ["Speculated", "Speed", "measure", "measure_speculation"]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What `measure` found: medians, in tokens per second.

    Attributes:
        decode: one sequence, token by token: how fast a text is written.
        prefill: one sequence, `n_prefill` tokens at a time: how fast a prompt is read.
        batch: `n_batch` sequences, a token of each at a time, all counted.
        n_prefill: tokens in a piece of a prompt.
        n_batch: sequences.
    """

    decode: float
    prefill: float
    batch: float
    n_prefill: int
    n_batch: int


def measure(
    model: Model | StrPath,
    *,
    seconds: float = 2.0,
    n_batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Speed:
    """Measure a model's speed, sampling and tokenizing aside.

    Args:
        model: a `Model`, or the path of a model file.
        seconds: how long each of three measurements takes; a slow model takes longer.
        n_batch: how many sequences to write at once.
        progress: called with how many measurements are done, and of how many.

    Raises:
        InvalidArgumentError: an argument is not above 0.

    >>> from rwkv_py.speed import measure
    >>> speed = measure(model, seconds=0.01, n_batch=4, progress=lambda *of: print(*of))
    0 3
    1 3
    2 3
    3 3
    >>> speed.n_prefill, speed.n_batch
    (256, 4)
    """
    seconds = as_number("seconds", seconds)
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidArgumentError(f"seconds: expected a number above 0, got {seconds}")
    n_batch = as_count("n_batch", n_batch, at_least=1)
    if not isinstance(model, Model):
        model = Model(model)
    found: list[float] = []
    if progress is not None:
        progress(0, 3)
    for n_sequences, n_tokens in ((1, 1), (1, PIECE_TOKENS), (n_batch, 1)):
        duration = _duration_of_step(model, n_sequences, n_tokens, seconds)
        found.append(n_sequences * n_tokens / duration)
        if progress is not None:
            progress(len(found), 3)
    decode, prefill, batch = found
    return Speed(
        decode=decode, prefill=prefill, batch=batch, n_prefill=PIECE_TOKENS, n_batch=n_batch
    )


@dataclass(frozen=True, kw_only=True)
class Speculated:
    """What `measure_speculation` found.

    Attributes:
        plain: tokens per second of a text without guesses.
        guessed: the same text with guesses, those that did not hold counted as time only.
        counts: what the guesses gave.
    """

    plain: float
    guessed: float
    counts: SpeculationCounts


def measure_speculation(
    session: Session,
    prompt: str | bytes | TokenSequence,
    *,
    max_tokens: int = 256,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[SpeculationOptions],
) -> Speculated:
    """Measure how much faster a text is written with guesses.

    It is the most probable text after the prompt, which is longer than one that ends by itself.

    Args:
        session: what writes; it stays as it is.
        prompt: what to go on with.
        max_tokens: how many tokens to write.
        progress: called with how many measurements are done, and of how many.
        **options: speculate and draft, as for `Session.stream`.

    Raises:
        InvalidArgumentError: as `Session.stream`.

    >>> from rwkv_py.speed import measure_speculation
    >>> found = measure_speculation(Session(model), "ab" * 99, max_tokens=50, speculate="lookup")
    >>> found.counts.n_kept <= found.counts.n_guessed
    True
    """
    max_tokens = as_count("max_tokens", max_tokens, at_least=2)
    rates = []
    counts = SpeculationCounts()
    each: list[SpeculationOptions] = [{}, options]
    for n_done, guessing in enumerate(each):
        if progress is not None:
            progress(n_done, 2)
        stream = session.fork().stream(
            prompt, max_tokens=max_tokens, temperature=0, stop_tokens=[], **guessing
        )
        next(stream, None)
        n_before, began = len(stream.tokens), time.perf_counter()
        for _ in stream:
            pass
        rates.append((len(stream.tokens) - n_before) / (time.perf_counter() - began))
        counts = stream.speculation or counts
    if progress is not None:
        progress(2, 2)
    return Speculated(plain=rates[0], guessed=rates[1], counts=counts)


def _duration_of_step(model: Model, n_sequences: int, n_tokens: int, seconds: float) -> float:
    """Return the median duration in seconds of a step: at least 3, after one to warm up."""
    tokens = [i % model.n_vocab for i in range(1, n_tokens + 1)]
    work = [(Session(model), tokens) for _ in range(n_sequences)]
    model.step(work)
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while len(durations) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        model.step(work)
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations)
