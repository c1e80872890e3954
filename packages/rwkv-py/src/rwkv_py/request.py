"""A text that an engine writes, as its caller sees it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import Any, Literal, TypeAlias

from ._arguments import as_number
from .errors import EngineClosedError, InvalidArgumentError
from .probabilities import TokenProbability
from .session import Session
from .speculation import SpeculationCounts
from .text_stream import FinishReason

__all__ = ["Request", "RequestFinishReason", "TokenProbability"]

RequestFinishReason: TypeAlias = FinishReason | Literal["cancelled", "error"]


class Request(Iterable[str], AsyncIterable[str], Coroutine[Any, Any, str]):
    """A text that an `Engine` writes; `Engine.submit` makes requests.

    Iterate over it for pieces of text as they come, with `for` in a thread or `async for` in a
    coroutine, and ask `result()` or `await` it for the whole. Pieces are whole characters and never
    empty; each iteration begins with the first. If writing fails, all of these raise what it failed
    with.

    It is also a coroutine that returns the whole text, so that `asyncio.create_task(request)`,
    `asyncio.gather`, `asyncio.wait_for` and `asyncio.run` take it. Cancelling a task or coroutine
    that waits for a request cancels the request.

    Attributes:
        n_prompt_tokens: how many tokens its prompt has.
        speculation: what guesses have given so far, for a request with `speculate`; else None.
        submitted_at: when it was submitted. This and the other times are seconds of
            `time.monotonic()`.
        started_at: when its turn came to read the prompt; None before that.
        first_token_at: when the first token was drawn; None before that.
        finished_at: when the text ended; None before that.
    """

    def __init__(self, n_prompt_tokens: int, speculation: SpeculationCounts | None = None):
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._pieces: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[TokenProbability] = []
        self._prompt_logprobs: list[TokenProbability | None] = []
        self._ending: TokenProbability | None = None
        self._stopped_by: bytes | None = None
        self._n_cached_tokens = 0
        self._finish_reason: RequestFinishReason | None = None
        self._error: BaseException | None = None
        self._session: Session | None = None  # what is kept, once the text has ended
        # Who waits in coroutines: for more than so many pieces.
        self._wakers: list[tuple[float, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self.n_prompt_tokens = n_prompt_tokens
        self.speculation = speculation
        self.submitted_at = time.monotonic()
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.finished_at: float | None = None

    def __repr__(self) -> str:
        state = self._finish_reason or ("waiting" if self.started_at is None else "writing")
        return (
            f"<Request: {self.n_prompt_tokens} prompt tokens, {len(self._tokens)} written, {state}>"
        )

    @property
    def finish_reason(self) -> RequestFinishReason | None:
        """Why the text ended; None while there may be more.

        "end", "stop" and "length" as `TextStream` says; "cancelled", or "error".
        """
        return self._finish_reason

    @property
    def done(self) -> bool:
        """Whether the text has ended."""
        return self._finish_reason is not None

    @property
    def tokens(self) -> list[int]:
        """The tokens drawn so far, but for the one that ended the text: a copy."""
        return list(self._tokens)

    @property
    def n_tokens(self) -> int:
        """How many tokens were drawn so far: the length of `tokens`."""
        return len(self._tokens)

    @property
    def logprobs(self) -> list[TokenProbability]:
        """How probable each of `tokens` was, for a request made with `logprobs`: a copy."""
        return list(self._logprobs)

    @property
    def prompt_logprobs(self) -> list[TokenProbability | None]:
        """How probable each token of the prompt was, for a request made with `prompt_logprobs`.

        A copy, of those read so far. None stands for the first token of a sequence, which follows
        nothing.
        """
        return list(self._prompt_logprobs)

    @property
    def ending(self) -> TokenProbability | None:
        """How probable the token was that ended the text, for a request made with `logprobs`.

        None before the end, and where none was drawn that ended it.
        """
        return self._ending

    @property
    def stopped_by(self) -> bytes | None:
        """The stop string that ended the text, if one did."""
        return self._stopped_by

    @property
    def n_cached_tokens(self) -> int:
        """How many tokens of the prompt the engine's cache spared; 0 before its turn comes."""
        return self._n_cached_tokens

    @property
    def session(self) -> Session:
        """The session that wrote the text, for a request that was made with `keep_session`.

        As after `Session.stream`, it has read what it began with, the prompt and `tokens`. It is
        the caller's own.

        Raises:
            InvalidArgumentError: the text has not ended yet, or not by itself (it was cancelled, or
                failed); or nobody asked for its session.
        """
        if self._session is None:
            raise InvalidArgumentError(
                "session: expected a request made with keep_session=True whose text has ended by "
                f"itself, got one with finish_reason {self._finish_reason!r}",
                remedy="Try result() first",
            )
        return self._session

    def cancel(self) -> bool:
        """Write no more; the text so far stays. Return whether there was anything to cancel."""
        return self._finish("cancelled")

    def result(self, timeout: float | None = None) -> str:
        """Wait for the end, and return the whole text.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: it takes longer. The request goes on.
            EngineClosedError: this is another process than the engine's.
        """
        if timeout is not None:
            timeout = as_number("timeout", timeout)
        with self._locked():
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise TimeoutError(f"request: expected its end within {timeout} s, got none yet")
        return self._whole()

    def __iter__(self) -> Iterator[str]:
        for n_seen in itertools.count():
            with self._locked():
                while not self._has_more_than(n_seen):
                    self._changed.wait()
            if n_seen == len(self._pieces):
                break
            yield self._pieces[n_seen]
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[str]:
        for n_seen in itertools.count():
            while (change := self._change(n_seen)) is not None:
                await self._wait(change)
            if n_seen == len(self._pieces):
                break
            yield self._pieces[n_seen]
        if self._error is not None:
            raise self._error

    def __await__(self) -> Generator[Any, None, str]:
        while (change := self._change()) is not None:
            yield from self._wait(change).__await__()
        return self._whole()

    # A coroutine, so that a task can be made of it. Each task that runs it calls `send` until the
    # text has ended; there is nothing to remember in between, so that several may.

    def send(self, value: None) -> Any:
        """Go on waiting: return what to wait for, as coroutines do."""
        change = self._change()
        if change is None:
            raise StopIteration(self._whole())
        return next(change.__await__())

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Let what waits fail: the request is cancelled."""
        self.cancel()
        if isinstance(kind, BaseException):
            raise kind
        raise value if isinstance(value, BaseException) else kind()

    def close(self) -> None:
        """The same as `cancel`, as a coroutine calls it."""
        self.cancel()

    def _whole(self) -> str:
        if self._error is not None:
            raise self._error
        return "".join(self._pieces)

    def _has_more_than(self, n_seen: float) -> bool:
        """Whether there are more pieces than that, or there will be no more."""
        return self.done or len(self._pieces) > n_seen

    def _change(self, n_seen: float = math.inf) -> asyncio.Future[None] | None:
        """Return something that comes with the next change; None if there is more to see now."""
        loop = asyncio.get_running_loop()
        with self._locked():
            if self._has_more_than(n_seen):
                return None
            change = loop.create_future()
            self._wakers.append((n_seen, loop, change))
            return change

    async def _wait(self, change: asyncio.Future[None]) -> None:
        """Wait for a change; whoever is cancelled meanwhile cancels the request."""
        try:
            await change
        except asyncio.CancelledError:
            self.cancel()
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Take the lock, which a thread may hold for ever that a forked child does not have."""
        check_process("request", self._process)
        with self._changed:
            yield

    # The rest is the engine's side.

    def _start(self, n_cached_tokens: int) -> None:
        self._n_cached_tokens = n_cached_tokens
        self.started_at = time.monotonic()

    def _read(self, probabilities: list[TokenProbability | None]) -> None:
        """Tell how probable tokens of the prompt were."""
        self._prompt_logprobs += probabilities

    def _deliver(self, text: str, token: int | None, probability: TokenProbability | None) -> None:
        """Hand on what was written, and the token that was taken for it, if one was."""
        with self._locked():
            if self.done:
                return
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
            if token is not None:
                self._tokens.append(token)
                if probability is not None:
                    self._logprobs.append(probability)
            if text:
                self._pieces.append(text)
                self._wake()

    def _finish(
        self,
        reason: RequestFinishReason,
        error: BaseException | None = None,
        session: Session | None = None,
        *,
        ending: TokenProbability | None = None,
        stopped_by: bytes | None = None,
    ) -> bool:
        with self._locked():
            if self.done:
                return False
            self._ending = ending
            self._stopped_by = stopped_by
            self._error = error
            self._session = session
            self.finished_at = time.monotonic()
            self._finish_reason = reason
            self._wake()
            return True

    def _wake(self) -> None:
        self._changed.notify_all()
        for n_seen, loop, change in self._wakers:
            if self._has_more_than(n_seen):
                with contextlib.suppress(RuntimeError):  # a loop that was closed waits for nothing
                    loop.call_soon_threadsafe(_resolve, change)
        self._wakers = [waker for waker in self._wakers if not self._has_more_than(waker[0])]


def _resolve(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)


def check_process(who: str, process: int) -> None:
    """Refuse to work in a child that was made by `fork`, which has not the engine's thread."""
    if os.getpid() != process:
        raise EngineClosedError(
            f"{who}: made in process {process}, whose thread does the work, expected to be used "
            f"there, got process {os.getpid()}",
            remedy="Try opening the Model and making the Engine after fork()",
        )
