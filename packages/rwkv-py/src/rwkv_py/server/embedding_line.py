"""Texts that wait to become vectors: for one client at a time, and what waits of it together."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..embedding import embed
from .models import Served
from .turns import Turns

__all__ = ["EmbeddingLine", "Pooling"]

Pooling: TypeAlias = Literal["mean", "last"]

# What is read in one turn besides a request's own texts: so much fills the model's steps, and
# others do not wait long for their turn.
_MAX_TOGETHER = 32
_MAX_TOKENS_TOGETHER = 4096


@dataclass(eq=False)
class _Wanted:
    """What one request waits for."""

    served: Served
    prompts: list[list[int]]
    pooling: Pooling
    share: str
    vectors: asyncio.Future[NDArray[np.float32]]

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.prompts))


class EmbeddingLine:
    """Reads texts in turns: they take the threads and the model from those who write texts.

    Used in the event loop alone.

    Args:
        max_waiting: as for `Turns`.
    """

    def __init__(self, max_waiting: int):
        self._turns = Turns(max_waiting)
        self._wanted: list[_Wanted] = []

    @property
    def seconds_to_begin(self) -> float:
        """How long one who comes now waits for a turn, as it was lately."""
        return self._turns.seconds_to_begin

    async def embed(
        self, served: Served, prompts: list[list[int]], pooling: Pooling, share: str
    ) -> NDArray[np.float32]:
        """Return a vector for each text, as the function `embed` does; float32 (n_prompts, n_embd).

        Args:
            served: what reads.
            prompts: tokens of the texts.
            pooling: as for `embed`.
            share: whose request it is.

        Raises:
            EngineFullError: too many wait.
            RwkvError: as `embed`.
        """
        vectors = asyncio.get_running_loop().create_future()
        own = _Wanted(served, prompts, pooling, share, vectors)
        self._wanted.append(own)
        turn = asyncio.ensure_future(self._take_turn(own))
        try:
            await asyncio.wait({turn, vectors}, return_when=asyncio.FIRST_COMPLETED)
            if not vectors.done():
                turn.result()  # what it failed with
            found: NDArray[np.float32] = vectors.result()
            return found
        finally:
            self._wanted.remove(own)
            turn.cancel()
            await asyncio.wait({turn})

    async def _take_turn(self, own: _Wanted) -> None:
        async with self._turns.turn(own.share):
            if own.vectors.done():  # they were made in the turn before
                return
            group = self._with(own)
            try:
                await _read(group)
            except Exception:
                if len(group) == 1:
                    raise
                await _read([own])  # what is wrong with another is told to whoever sent it

    def _with(self, own: _Wanted) -> list[_Wanted]:
        """Return a request and others of the same client that can be read with it."""
        group = [own]
        n_texts, n_tokens = len(own.prompts), own.n_tokens
        for other in self._wanted:
            if other is own or other.vectors.done():
                continue
            if (other.served, other.pooling, other.share) != (own.served, own.pooling, own.share):
                continue
            n_texts += len(other.prompts)
            n_tokens += other.n_tokens
            if n_texts > _MAX_TOGETHER or n_tokens > _MAX_TOKENS_TOGETHER:
                break
            group.append(other)
        return group


async def _read(group: list[_Wanted]) -> None:
    """Make the vectors of several requests."""
    first = group[0]
    prompts = [prompt for wanted in group for prompt in wanted.prompts]
    found = await _embed(first.served, prompts, first.pooling)
    begin = 0
    for wanted in group:
        end = begin + len(wanted.prompts)
        if not wanted.vectors.done():
            wanted.vectors.set_result(found[begin:end])
        begin = end


async def _embed(served: Served, prompts: list[list[int]], pooling: Pooling) -> NDArray[np.float32]:
    """Let the model read; if the client goes away, it ends within a step."""
    gone = threading.Event()

    def watch(n_read: int, n_all: int) -> None:
        if gone.is_set():
            raise _Gone

    work = asyncio.to_thread(
        embed,
        served.model,
        prompts,
        pooling=pooling,
        tokenizer=served.tokenizer,
        progress=watch,
    )
    working = asyncio.ensure_future(work)
    # If we are cancelled once more while we wait, as the loop does to all at its end, nobody asks.
    working.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        gone.set()
        await asyncio.wait({working})  # the model is ours until then
        raise


class _Gone(Exception):
    """Nobody waits for the vectors any more."""
