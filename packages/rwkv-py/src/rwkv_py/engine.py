"""Many sequences at once: requests join and leave while the others are written."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from ._arguments import StrPath, TokenSequence, as_count, as_integers, as_tokens
from ._options import takes_options_of
from .errors import EngineClosedError, InvalidArgumentError, TokenOutOfRangeError
from .model import Model, WantedLogits
from .sampling import Sampler, SamplingOptions, sampler_of_text
from .session import END_OF_DOCUMENT, PROMPT_PIECE, Session
from .text_stream import FinishReason, TextBuilder
from .time_state import TimeState
from .tokenizer import Tokenizer

__all__ = ["Engine", "Request", "RequestFinishReason"]

RequestFinishReason: TypeAlias = FinishReason | Literal["cancelled", "error"]


class Request(Iterator[str], AsyncIterator[str]):
    """A text that an `Engine` writes; `Engine.submit` makes requests.

    Iterate over it for pieces of text as they come, with `for` in a thread or `async for` in a
    coroutine, and ask `result()` or `await` it for the whole. Pieces are whole characters and never
    empty. If writing fails, all of these raise what it failed with.

    Cancelling a coroutine that waits for a request cancels the request.
    """

    def __init__(self, builder: TextBuilder):
        self._builder = builder
        self._changed = threading.Condition()
        self._unseen: deque[str] = deque()  # pieces for those who iterate
        self._text: list[str] = []
        self._n_tokens = 0  # of the builder's, those that `_text` is about
        self._finish_reason: RequestFinishReason | None = None
        self._error: BaseException | None = None
        self._session: Session | None = None  # what is kept, once the text has ended
        self._wakers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

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
        return self._builder.tokens[: self._n_tokens]

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
                f"itself, got one with finish_reason {self._finish_reason!r}. Try result() first"
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
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise TimeoutError(f"request: expected its end within {timeout} s, got none yet")
        return self._whole()

    def __next__(self) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self._unseen or self.done)
            if self._unseen:
                return self._unseen.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration

    async def __anext__(self) -> str:
        await self._wait(lambda: bool(self._unseen) or self.done)
        with self._changed:
            if self._unseen:
                return self._unseen.popleft()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def __await__(self) -> Generator[Any, None, str]:
        yield from self._wait(lambda: self.done).__await__()
        return self._whole()

    def _whole(self) -> str:
        if self._error is not None:
            raise self._error
        return "".join(self._text)

    async def _wait(self, ready: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if ready():
                    return
                change = loop.create_future()
                self._wakers.append((loop, change))
            try:
                await change
            except asyncio.CancelledError:
                self.cancel()
                raise

    # The rest is the engine's side.

    def _deliver(self, text: str) -> None:
        with self._changed:
            if self.done:
                return
            self._n_tokens = len(self._builder.tokens)
            if text:
                self._unseen.append(text)
                self._text.append(text)
                self._wake()

    def _finish(
        self,
        reason: RequestFinishReason,
        error: BaseException | None = None,
        session: Session | None = None,
    ) -> bool:
        with self._changed:
            if self.done:
                return False
            self._finish_reason = reason
            self._error = error
            self._session = session
            self._wake()
            return True

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, change in self._wakers:
            with contextlib.suppress(RuntimeError):  # a loop that was closed waits for nothing
                loop.call_soon_threadsafe(_resolve, change)
        self._wakers.clear()


def _resolve(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)


class _Sequence:
    """A request being worked on. Only the engine's thread touches it."""

    def __init__(
        self,
        request: Request,
        builder: TextBuilder,
        base: Session,
        prompt: NDArray[np.int32],
        make_sampler: Callable[[], Sampler],
        keep_session: bool,
    ):
        self.request = request
        self.unread = prompt  # what the session must read before the next token can be drawn
        self.reads_prompt = True
        self.session = base  # until `start`
        self._builder = builder
        self._make_sampler = make_sampler
        self._keep_session = keep_session

    def start(self) -> None:
        """Get a state and a sampler, which take too much memory to have while waiting in line."""
        self.session = self.session.fork()
        self._sampler = self._make_sampler()
        if self._is_written():
            self._finish("length")
        elif self.unread.size == 0:
            assert self.session._logits is not None
            self.draw(self.session._logits)

    def draw(self, logits: NDArray[np.float32]) -> None:
        """Draw the next token, and let the request have the text."""
        text = ""
        if not self._builder.full:
            token = self._sampler.sample(logits)
            text = self._builder.push(token)
            if self._builder.finish_reason is None:
                self._sampler.accept(token)
                self.unread = as_tokens([token])
                self.reads_prompt = False
        if self._builder.finish_reason is None and self._is_written():
            text += self._builder.end("length")
        self.request._deliver(text)
        if self._builder.finish_reason is not None:
            self._finish(self._builder.finish_reason)

    def _is_written(self) -> bool:
        """Whether nothing is left to do: the last token is read only if the session is kept."""
        return self._builder.full and not (self._keep_session and self.unread.size)

    def _finish(self, reason: FinishReason) -> None:
        self.request._finish(reason, session=self.session if self._keep_session else None)

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Let what fails here fail this request alone."""
        try:
            yield
        except Exception as error:
            self.request._finish("error", error)


class Engine:
    r"""Writes many texts at once: each weight of the model is read once for all of them.

    Requests join and leave at any time. Each gets what `Session` would write for it alone: prompts
    are read in the same pieces, and neighbours in a step do not matter.

    A step lets every text that is being written advance by a token, and reads at most one piece
    (256 tokens) of prompts, which take turns: a long prompt delays the others by a piece at a time.

    All methods may be called by any thread, or in a coroutine: none of them waits but `close`.
    The work is done in a thread that lives while there are requests.

    Args:
        model: a `Model`, or the path of a model file.
        threads: as for `Model`; only with a path.
        ln_x_eps: as for `Model`; only with a path.
        tokenizer: as for `Session`.
        time_state: as for `Session`; what every text begins with whose request brings no session.
        max_running: how many texts are written at once, at most; each takes the memory of a state.
            Further requests wait in line.

    Raises:
        NoTokenizerError: none was given, and none is known for this number of tokens.
        InvalidArgumentError, ModelFileError: as `Session`.

    >>> with Engine("model.bin") as engine:
    ...     requests = [engine.submit(f"import {name}\n", max_tokens=20) for name in ("re", "os")]
    ...     texts = [request.result() for request in requests]
    >>> len(texts)
    2
    """

    def __init__(
        self,
        model: Model | StrPath,
        *,
        threads: int | None = None,
        ln_x_eps: float | None = None,
        tokenizer: Tokenizer | StrPath | None = None,
        time_state: TimeState | None = None,
        max_running: int = 32,
    ):
        # Every sequence begins as a copy of this session, which itself reads nothing.
        self._fresh = Session(
            model, threads=threads, ln_x_eps=ln_x_eps, tokenizer=tokenizer, time_state=time_state
        )
        self._tokenizer = self._fresh.tokenizer
        self._max_running = as_count("max_running", max_running, at_least=1)
        self._lock = threading.Lock()  # guards what follows
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []  # prompts in the order of their turns
        self._thread: threading.Thread | None = None
        self._closed = False
        _engines.add(self)

    @property
    def model(self) -> Model:
        """The model."""
        return self._fresh.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._tokenizer

    @takes_options_of(Sampler)
    def submit(
        self,
        prompt: str | bytes | TokenSequence,
        *,
        session: Session | None = None,
        max_tokens: int = 256,
        stop: str | bytes | Iterable[str | bytes] = (),
        stop_tokens: Iterable[int] = (END_OF_DOCUMENT,),
        keep_session: bool = False,
        **sampling: Unpack[SamplingOptions],
    ) -> Request:
        """Ask for the text that `Session.stream` would write for the same arguments.

        Args:
            prompt: text or tokens.
            session: go on from where this session is; it is copied now, and stays as it is. It must
                be of the engine's model. None begins anew.
            max_tokens: how many tokens to draw at most.
            stop: strings that end the text and are left out of it.
            stop_tokens: tokens that end the text.
            keep_session: keep what the model then remembers, as `Request.session`, so that a
                conversation can go on from there. The memory of a state is kept as long as the
                request. Costs reading the last token, and with 0 `max_tokens` the prompt.
            **sampling: the keyword arguments of `Sampler`: temperature, top_p, seed, ...

        Raises:
            EngineClosedError: the engine is closed.
            InvalidArgumentError, TokenOutOfRangeError: as `Session.stream`; no request is made.

        >>> with Engine(model) as engine:
        ...     for piece in engine.submit("The ", max_tokens=20, temperature=0.8, seed=2):
        ...         assert piece
        ...     first = engine.submit("import ", max_tokens=9, seed=1, keep_session=True)
        ...     text = first.result()
        ...     more = engine.submit("as ", session=first.session, max_tokens=9, seed=1).result()
        """
        base = self._fresh if session is None else session
        if base.model is not self.model:
            raise InvalidArgumentError(
                f"session: expected one of {self.model.path}, got one of {base.model.path}"
            )
        unread = base._before_writing(self._fresh._tokens(prompt))
        _check_tokens(unread, self.model.n_vocab)
        if "banned_tokens" in sampling:  # may be an iterator, and is needed twice
            sampling["banned_tokens"] = as_integers("banned_tokens", sampling["banned_tokens"])
        make_sampler = functools.partial(
            sampler_of_text, self._tokenizer, self.model.n_vocab, **sampling
        )
        make_sampler()  # raises now what it would raise later
        builder = TextBuilder(
            self._tokenizer, max_tokens=max_tokens, stop=stop, stop_tokens=stop_tokens
        )
        request = Request(builder)
        base = base if session is None else session.fork()
        self._join(_Sequence(request, builder, base, unread, make_sampler, keep_session))
        return request

    def close(self, *, cancel: bool = False) -> None:
        """Accept no more requests, and wait until those that there are have finished.

        The end of a `with` block does this; one that is left by an exception cancels. An engine
        that is not closed cancels its requests when Python exits.

        Args:
            cancel: cancel all requests instead; waits for the step being computed at most.
        """
        with self._lock:
            self._closed = True
            if cancel:
                for sequence in [*self._waiting, *self._running]:
                    sequence.request.cancel()
            thread = self._thread
        if thread is not None:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(cancel=kind is not None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close, cancel=kind is not None)

    def _join(self, sequence: _Sequence) -> None:
        with self._lock:
            if self._closed:
                raise EngineClosedError("engine: expected an open one, got one that was closed")
            if self._thread is None:
                # A daemon: Python may exit without waiting for it, having cancelled its requests.
                thread = threading.Thread(target=self._work, name="rwkv-engine", daemon=True)
                thread.start()
                self._thread = thread
            self._waiting.append(sequence)

    def _work(self) -> None:
        try:
            while self._admit():
                self._step()
        except BaseException as error:  # a fault of ours: let nobody wait for ever
            with self._lock:
                for sequence in [*self._waiting, *self._running]:
                    sequence.request._finish("error", error)
                self._waiting.clear()
                self._running.clear()
                self._thread = None
            raise

    def _admit(self) -> bool:
        """Let those who are done leave and others join; return whether there is work."""
        with self._lock:
            self._running = [s for s in self._running if not s.request.done]
            joining = []
            while self._waiting and len(self._running) < self._max_running:
                sequence = self._waiting.popleft()
                if not sequence.request.done:
                    self._running.append(sequence)
                    joining.append(sequence)
            if not self._running:
                self._thread = None
                return False
        for sequence in joining:
            with sequence.blamed():
                sequence.start()
        return True

    def _step(self) -> None:
        chosen = self._choose()
        if not chosen:
            return
        work = [(s.session, s.unread[:PROMPT_PIECE]) for s in chosen]
        wanted: list[WantedLogits] = [
            "last" if s.unread.size <= PROMPT_PIECE else None for s in chosen
        ]
        try:
            rows = self.model.step(work, logits=wanted)
        except Exception as error:  # all was checked before: no memory, which is nobody's fault
            for sequence in chosen:
                sequence.request._finish("error", error)
            return
        for sequence, logits in zip(chosen, rows, strict=True):
            sequence.unread = sequence.unread[PROMPT_PIECE:]
            if logits is not None:
                with sequence.blamed():
                    sequence.draw(logits)

    def _choose(self) -> list[_Sequence]:
        """Return all that write, and those whose turn it is to read a piece of their prompt."""
        chosen, behind = [], []
        room = PROMPT_PIECE
        with self._lock:
            for sequence in self._running:
                if sequence.request.done:
                    continue
                if sequence.reads_prompt:
                    size = min(sequence.unread.size, PROMPT_PIECE)
                    if size > room:
                        continue
                    room -= size
                    behind.append(sequence)
                chosen.append(sequence)
            self._running = [s for s in self._running if s not in behind] + behind
        return chosen


def _check_tokens(tokens: NDArray[np.int32], n_vocab: int) -> None:
    """The library checks them too, but in a step that is shared with others."""
    if tokens.size and tokens.max() >= n_vocab:
        place = int(np.argmax(tokens >= n_vocab))
        raise TokenOutOfRangeError(
            f"tokens[{place}]: {tokens[place]} is not in the vocabulary, expected 0 to "
            f"{n_vocab - 1}"
        )


# Engines that nobody closed are closed when Python exits, after the threads of its users.
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_engines):
        engine.close(cancel=True)
