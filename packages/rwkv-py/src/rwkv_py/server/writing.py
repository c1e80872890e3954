"""Texts being written for one request of a client."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from .._arguments import TokenSequence
from ..generation import GenerationOptions
from ..probabilities import TokenProbability
from ..request import Request
from ..session import Session
from .errors import ApiError, api_error
from .metrics import Metrics
from .models import Lease
from .settings import Settings

__all__ = ["Ask", "Piece", "Writing", "begin_writing"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What one text is asked for with.

    Attributes:
        prompt: text or tokens.
        opening: what is read after it, see `Engine.submit`.
        session: where to begin; None begins anew.
        keep_session: whether what the model remembers is kept, see `Engine.submit`.
        options: how to write.
        logprobs: how many probable tokens to tell with each; None tells nothing.
        prompt_logprobs: the same for the prompt.
    """

    prompt: str | TokenSequence
    opening: str | TokenSequence = ""
    session: Session | None = None
    keep_session: bool = False
    options: GenerationOptions = field(default_factory=lambda: GenerationOptions())
    logprobs: int | None = None
    prompt_logprobs: int | None = None


class Piece(NamedTuple):
    """Something that has been written.

    Attributes:
        number: of which text.
        text: what; "" where only the end is told.
        logprobs: how probable its tokens were, those since the last piece.
        ended: whether the text has ended with it.
    """

    number: int
    text: str
    logprobs: list[TokenProbability]
    ended: bool


class Writing:
    """Texts being written; `close` it, whatever happens: then nothing more is written.

    Attributes:
        requests: one for each text.
        lease: of the model that writes them.
    """

    def __init__(self, lease: Lease, metrics: Metrics, max_seconds: float):
        self.lease = lease
        self.requests: list[Request] = []
        self._metrics = metrics
        self._closed = False
        self._as_a_whole = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max_seconds, self._cancel)

    def close(self) -> None:
        """End what is not ended, and let the model go; a second time is no error."""
        self._timer.cancel()
        self._cancel()
        if not self._closed:
            self._closed = True
            for request in self.requests:
                self._metrics.count_text(self.lease.served.name, request)
            self.lease.release()

    async def ended(self) -> None:
        """Wait until all texts have ended: cheaper than piece by piece, where nobody reads along.

        Each is then a single piece. What they failed with is told by `pieces`.
        """
        with contextlib.suppress(Exception):
            for request in self.requests:
                await request
        self._as_a_whole = True

    def _cancel(self) -> None:
        for request in self.requests:
            request.cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Return all pieces of all texts, as they come.

        Raises:
            ApiError: writing has failed, or its turn did not come in time.
        """
        if len(self.requests) == 1:
            async for piece in self._pieces_of(0):
                yield piece
            return
        came: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

        async def watch(index: int) -> None:
            try:
                async for piece in self._pieces_of(index):
                    came.put_nowait(piece)
            except Exception as error:
                came.put_nowait(error)

        watching = [asyncio.create_task(watch(index)) for index in range(len(self.requests))]
        try:
            n_left = len(watching)
            while n_left:
                found = await came.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
                n_left -= found.ended
        finally:
            for task in watching:
                task.cancel()

    async def _pieces_of(self, index: int) -> AsyncIterator[Piece]:
        request = self.requests[index]
        n_told = 0
        try:
            if self._as_a_whole:
                text, logprobs = await request, request.logprobs
                n_told = len(logprobs)
                yield Piece(index, text, logprobs, False)
            else:
                async for text in request:
                    logprobs = request.logprobs[n_told:]
                    n_told += len(logprobs)
                    yield Piece(index, text, logprobs, False)
        except Exception as error:
            raise api_error(error) from error
        if request.finish_reason == "cancelled" and request.started_at is None:
            raise ApiError(
                503,
                "server: expected its turn in time, got none",
                code="timeout",
                retry_after=self.lease.served.engine.seconds_to_begin,
            )
        yield Piece(index, "", request.logprobs[n_told:], True)

    def finish_reason(self, index: int) -> str:
        """Return "stop" or "length": what was cut by the limit of time is of the latter kind."""
        return "stop" if self.requests[index].finish_reason in ("end", "stop") else "length"

    @property
    def n_prompt_tokens(self) -> int:
        """The tokens of the prompts: of several texts for the same prompt once."""
        return max(request.n_prompt_tokens for request in self.requests)

    @property
    def n_cached_tokens(self) -> int:
        """How many of them were not read again."""
        return max(request.n_cached_tokens for request in self.requests)

    @property
    def n_written_tokens(self) -> int:
        """The tokens of all texts."""
        return sum(request.n_tokens for request in self.requests)


async def begin_writing(
    lease: Lease,
    asks: list[Ask],
    settings: Settings,
    metrics: Metrics,
    share: str,
    names: Mapping[str, str] | None = None,
) -> Writing:
    """Ask for texts, all or none; the lease is then the writing's, or released.

    Raises:
        ApiError: one is refused. `names` are what the protocol calls our arguments.
    """
    writing = Writing(lease, metrics, settings.max_seconds)
    try:
        for ask in asks:
            given = limited(ask.options, settings)
            options = cast(GenerationOptions, {**given, **lease.served.guessing(given)})
            submit = functools.partial(
                lease.served.engine.submit,
                ask.prompt,
                opening=ask.opening,
                session=ask.session,
                keep_session=ask.keep_session,
                logprobs=ask.logprobs,
                prompt_logprobs=ask.prompt_logprobs,
                share=share,
                **options,
            )
            # Tokenizing, and compiling a grammar, take too long for the loop.
            submitting = asyncio.get_running_loop().run_in_executor(None, submit)
            try:
                writing.requests.append(await asyncio.shield(submitting))
            except asyncio.CancelledError:
                submitting.add_done_callback(_cancel_made)
                raise
    except BaseException as error:
        writing.close()
        if isinstance(error, Exception):
            raise api_error(error, names) from error
        raise
    return writing


def limited(options: GenerationOptions, settings: Settings) -> GenerationOptions:
    """Return options that ask for no longer text than the server writes."""
    most = settings.max_output_tokens
    wanted = options.get("max_tokens", most)
    return cast(GenerationOptions, {**options, "max_tokens": min(wanted, most)})


def _cancel_made(submitting: asyncio.Future[Request]) -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().cancel()
