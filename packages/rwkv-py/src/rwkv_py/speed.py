"""How fast a model is on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from ._arguments import StrPath, as_count, as_number
from .errors import InvalidArgumentError
from .model import Model
from .prompt import PIECE_TOKENS
from .session import Session

__all__ = ["Speed", "measure"]


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
