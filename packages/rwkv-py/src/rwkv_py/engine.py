"""Many sequences at once: requests join and leave while the others are written."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, Unpack

from ._arguments import StrPath, Tokens, TokenSequence, as_count, as_integers, as_stops, as_tokens
from ._options import takes_options_of
from .beginning import OpeningOptions, begin
from .errors import EngineClosedError, InvalidArgumentError
from .generation import GenerationOptions, Plan, takes_generation_options
from .model import Model, StepLogits
from .prompt import BEGIN_OF_DOCUMENT, PIECE_TOKENS, Prompt
from .request import Request, check_process
from .sequence import Sequence
from .session import Session
from .speculation import Pass
from .task import Task, Wishes
from .tokenizer import Tokenizer
from .waiting_line import WaitingLine

__all__ = ["Engine"]


class Engine:
    r"""Writes many texts at once: each weight of the model is read once for all of them.

    Requests join and leave at any time. Each gets what `Session` would write for it alone: prompts
    are read in the same pieces, and neighbours in a step do not matter.

    A step lets every text that is being written advance by a token, and reads at most one piece
    (256 tokens) of prompts, which take turns: a long prompt delays the others by a piece at a time.

    All methods may be called by any thread, or in a coroutine: none of them waits but `close` and
    `generate_batch`. The work is done in a thread that lives while there are requests. A child
    process made by `fork` has not that thread: an engine, and its requests, refuse to work there.

    Args:
        model: a `Model`, or the path of a model file.
        max_running: how many texts are written at once, at most; each takes the memory of a state.
            Further requests wait in line.
        max_waiting: how many requests wait in line, at most; None: any number.
        max_prompt_tokens: how long a prompt is, at most; None: any length.
        **opening: threads, ln_x_eps, tokenizer, cache and time_state, as for `Session`.

    Raises:
        NoTokenizerError: none was given, and none is known for this number of tokens.
        InvalidArgumentError, ModelFileError: as `Session`.

    >>> with Engine("model.bin") as engine:
    ...     requests = [engine.submit(f"import {name}\n", max_tokens=20) for name in ("re", "os")]
    ...     texts = [request.result() for request in requests]
    >>> len(texts)
    2
    """

    @takes_options_of(begin)
    def __init__(
        self,
        model: Model | StrPath,
        *,
        max_running: int = 32,
        max_waiting: int | None = None,
        max_prompt_tokens: int | None = None,
        **opening: Unpack[OpeningOptions],
    ):
        self._max_running = as_count("max_running", max_running, at_least=1)
        self._waiting = WaitingLine(
            self._max_running,
            None if max_waiting is None else as_count("max_waiting", max_waiting),
        )
        self._max_prompt_tokens = (
            None
            if max_prompt_tokens is None
            else as_count("max_prompt_tokens", max_prompt_tokens, at_least=1)
        )
        self._beginning = begin(model, **opening)
        self._tokenizer = self._beginning.tokenizer
        self._process = os.getpid()
        # Guards who waits and what follows; told when a request leaves, or the thread does.
        self._changed = threading.Condition()
        self._running: list[Task] = []  # prompts in the order of their turns
        self._thread: threading.Thread | None = None
        self._closed = False
        _engines.add(self)

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        else:
            state = f"{len(self._running)} running, {len(self._waiting)} waiting"
        return f"<Engine of {self.model!r}: {state}>"

    @property
    def model(self) -> Model:
        """The model."""
        return self._beginning.model

    @property
    def max_running(self) -> int:
        """How many texts are written at once, at most."""
        return self._max_running

    @property
    def n_running(self) -> int:
        """How many texts are being written."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """How many requests wait in line."""
        return len(self._waiting)

    @property
    def shares(self) -> dict[str, int]:
        """How many requests that have not ended there are of each share, see `submit`.

        Raises:
            EngineClosedError: the engine was made before this process was forked.
        """
        with self._locked():
            tasks = [*self._waiting, *self._running]
            return dict(Counter(task.share for task in tasks if not task.request.done))

    @property
    def seconds_to_begin(self) -> float:
        """How long a request that comes now will wait in line, as texts took lately; 0: not at all.

        Raises:
            EngineClosedError: the engine was made before this process was forked.
        """
        with self._locked():
            return self._waiting.seconds_to_begin(self._running)

    @property
    def seconds_to_end(self) -> float:
        """How long the requests that there are will take, as texts took lately.

        Raises:
            EngineClosedError: the engine was made before this process was forked.
        """
        with self._locked():
            return self._waiting.seconds_to_end(self._running)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._tokenizer

    @takes_generation_options
    def submit(
        self,
        prompt: str | bytes | TokenSequence,
        *,
        opening: str | bytes | TokenSequence = "",
        session: Session | None = None,
        keep_session: bool = False,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        share: str = "",
        **options: Unpack[GenerationOptions],
    ) -> Request:
        """Ask for the text that `Session.stream` would write for the same arguments.

        Args:
            prompt: text or tokens.
            opening: what to read after the prompt, in tokens and a piece of its own: what an answer
                is made to begin with, which the next prompt will not have. A cache keeps the state
                before it.
            session: go on from where this session is; it is copied now, and stays as it is. It must
                be of the engine's model. None begins anew.
            keep_session: keep what the model then remembers, as `Request.session`, so that a
                conversation can go on from there. The memory of a state is kept as long as the
                request. Costs reading the last token.
            logprobs: tell how probable each token was and this many of the most probable ones, as
                `Request.logprobs`; 0 tells only of those drawn, None nothing.
            prompt_logprobs: the same for the tokens of the prompt, as `Request.prompt_logprobs`;
                the cache is then not asked.
            share: whose request it is. Of those that wait in line, the first of whoever has the
                fewest at work comes next; and with `max_waiting`, nobody has more places there than
                are left free.
            **options: as for `Session.stream`: max_tokens, stop, temperature, seed, ...

        Raises:
            EngineClosedError: the engine is closed, or was made before this process was forked.
            EngineFullError: `max_waiting` requests wait in line, or too many of the share.
            InvalidArgumentError, TokenOutOfRangeError: as `Session.stream`; or the prompt has more
                than `max_prompt_tokens`. No request is made.

        >>> with Engine(model) as engine:
        ...     for piece in engine.submit("The ", max_tokens=20, temperature=0.8, seed=2):
        ...         assert piece
        ...     first = engine.submit("import ", max_tokens=9, seed=1, keep_session=True)
        ...     text = first.result()
        ...     more = engine.submit("as ", session=first.session, max_tokens=9, seed=1).result()
        """
        wishes = Wishes(
            keep_session,
            None if logprobs is None else as_count("logprobs", logprobs),
            None if prompt_logprobs is None else as_count("prompt_logprobs", prompt_logprobs),
        )
        task = self._task([prompt, opening], session, wishes, options, share)
        self._join(task, waits=False)
        return task.request

    @takes_generation_options
    def generate_batch(
        self,
        prompts: Iterable[str | bytes | TokenSequence],
        *,
        seeds: Iterable[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[str]:
        r"""Continue many prompts at once: return their texts, in order.

        Each text is the one that `Session.generate` would return for its prompt; together they take
        much less time. For options that differ, or texts as they come, see `submit`. With
        `max_waiting` this waits for room in the line.

        Args:
            prompts: texts or tokens.
            seeds: a seed for each prompt. With `seed` instead, which is the same for all, equal
                prompts get equal texts; with neither, seeds are chosen at random.
            progress: called with how many texts are finished, and of how many.
            **options: as for `Session.stream`: max_tokens, stop, temperature, ...

        Raises:
            InvalidArgumentError: `prompts` is a single text; and as `submit`. The requests made so
                far are then cancelled.
            TokenOutOfRangeError, EngineClosedError: as `submit`.

        >>> with Engine(model) as engine:
        ...     texts = engine.generate_batch(
        ...         ["import ", ".. class:: "], max_tokens=20, temperature=0
        ...     )
        >>> texts[0] == Session(model).generate("import ", max_tokens=20, temperature=0)
        True
        """
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
            raise InvalidArgumentError(
                f"prompts: expected a list of them, got one: {prompts!r}", remedy="Try [prompt]"
            )
        prompts = list(prompts)
        # What may be an iterator is needed for each.
        if "stop" in options:
            options["stop"] = as_stops(options["stop"])
        if "stop_tokens" in options:
            options["stop_tokens"] = as_integers("stop_tokens", options["stop_tokens"])
        if "banned_tokens" in options:
            options["banned_tokens"] = as_integers("banned_tokens", options["banned_tokens"])
        each: list[GenerationOptions] = [options] * len(prompts)
        if seeds is not None:
            each = [{**options, "seed": seed} for seed in as_integers("seeds", seeds)]
        if len(each) != len(prompts):
            raise InvalidArgumentError(
                f"seeds: expected one for each of {len(prompts)} prompts, got {len(each)}"
            )
        requests: list[Request] = []
        texts = []
        try:
            for prompt, own in zip(prompts, each, strict=True):
                task = self._task([prompt], None, Wishes(), own)
                self._join(task, waits=True)
                requests.append(task.request)
            for request in requests:
                texts.append(request.result())
                if progress is not None:
                    progress(len(texts), len(prompts))
        except BaseException:
            for request in requests:
                request.cancel()
            raise
        return texts

    def close(self, *, cancel: bool = False) -> None:
        """Accept no more requests, and wait until those that there are have finished.

        The end of a `with` block does this; one that is left by an exception cancels. An engine
        that is not closed cancels its requests when Python exits.

        Args:
            cancel: cancel all requests instead; waits for the step being computed at most.

        Raises:
            EngineClosedError: the engine was made before this process was forked.
        """
        with self._locked():
            self._closed = True
            self._changed.notify_all()
            if cancel:
                for task in [*self._waiting, *self._running]:
                    task.request.cancel()
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
        if os.getpid() == self._process:  # a forked child that leaves has nothing to wait for
            self.close(cancel=kind is not None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)

    def _task(
        self,
        prompts: list[str | bytes | TokenSequence],
        session: Session | None,
        wishes: Wishes,
        options: GenerationOptions,
        share: str = "",
    ) -> Task:
        """Check everything, and copy what a caller could change."""
        check_process("engine", self._process)
        if not (session is None or isinstance(session, Session)):
            raise InvalidArgumentError(
                f"session: expected a Session, got {type(session).__name__}: {session!r}"
            )
        if session is not None and session.model is not self.model:
            raise InvalidArgumentError(
                f"session: expected one of {self.model.path}, got one of {session.model.path}"
            )
        read = [self._beginning.prompt(prompt) for prompt in prompts]
        n_tokens = sum(given.tokens.size for given in read)
        limit = self._max_prompt_tokens
        if limit is not None and n_tokens > limit:
            raise InvalidArgumentError(f"prompt: expected at most {limit} tokens, got {n_tokens}")
        plan = Plan.of(self._tokenizer, self.model.n_vocab, self.model.end_tokens, **options)
        if session is not None:
            session = session.fork()
        if not n_tokens:
            nothing = Prompt(BEGIN_OF_DOCUMENT.tokens[:0])
            begin = BEGIN_OF_DOCUMENT
            if session is not None:
                begin = session._moving().before_writing(nothing)
            read = [begin]
        request = Request(n_tokens, plan.speculation)
        return Task(request, self._beginning, session, read, plan, wishes, share)

    def _join(self, task: Task, *, waits: bool) -> None:
        with self._locked():
            while not self._closed and (
                refusal := self._waiting.refusal(task.share, self._running)
            ):
                if not waits:
                    raise refusal
                self._changed.wait()
            if self._closed:
                raise EngineClosedError("engine: expected an open one, got one that was closed")
            if self._thread is None:
                # A daemon: Python may exit without waiting for it, having cancelled its requests.
                thread = threading.Thread(target=self._work, name="rwkv-engine", daemon=True)
                thread.start()
                self._thread = thread
            self._waiting.join(task)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Take the lock, which a thread may hold for ever that a forked child does not have."""
        check_process("engine", self._process)
        with self._changed:
            yield

    # The rest is done in the engine's thread.

    def _work(self) -> None:
        try:
            while running := self._admit():
                self._step(self._choose(running))
        except BaseException as error:  # a fault of ours: let nobody wait for ever
            with self._changed:
                for task in [*self._waiting, *self._running]:
                    task.request._finish("error", error)
                self._waiting.clear()
                self._running = []
                self._thread = None
                self._changed.notify_all()
            raise

    def _admit(self) -> list[Task]:
        """Let those who are done leave and others join; return who is at work."""
        with self._changed:
            running = []
            for task in self._running:
                if task.request.done:
                    self._waiting.learn(task.request)
                else:
                    running.append(task)
            joining = self._waiting.take(running)
            running += joining
            self._running = running
            if not running:
                self._thread = None
            self._changed.notify_all()
        for task in joining:
            with task.blamed():
                task.start()
        return running

    def _choose(self, running: list[Task]) -> list[Task]:
        """Return all that write, and those whose turn it is to read a piece of their prompt.

        The latter go to the end of the line of those who read.
        """
        chosen, behind = [], []
        room = PIECE_TOKENS
        for task in running:
            if task.request.done:
                continue
            if task.reads_prompt:
                if task.piece.size > room:
                    continue
                room -= task.piece.size
                behind.append(task)
            chosen.append(task)
        self._running = [task for task in running if task not in behind] + behind
        return chosen

    def _step(self, chosen: list[Task]) -> None:
        if not chosen:
            return
        guessing = None
        if any(task.speculation is not None for task in chosen):
            # Beside a piece of a prompt rows are not free.
            writing = not any(task.reads_prompt for task in chosen)
            guessing = Pass(
                self.model._pass_times if writing else None,
                [(task.speculation, task.n_guesses) for task in chosen],
            )
        work: list[tuple[Sequence, Tokens]] = []
        wants: list[StepLogits] = []
        for i, task in enumerate(chosen):
            guesses = [] if guessing is None else guessing.guesses[i]
            piece = as_tokens([*task.piece, *guesses]) if guesses else task.piece
            work.append((task.sequence, piece))
            wants.append("ahead" if guesses else task.wants)
        try:
            found = self.model._step(work, wants, lends=True)
        except Exception as error:
            if len(chosen) == 1:
                chosen[0].request._finish("error", error)
            else:  # nobody has read anything: find out who it is
                for task in chosen:
                    self._step([task])
            return
        if guessing is not None:
            guessing.made()
        for task, logits in zip(chosen, found, strict=True):
            with task.blamed():
                task.advance(logits)


# Engines that nobody closed are closed when Python exits, after the threads of its users.
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_engines):
        if engine._process == os.getpid():
            engine.close(cancel=True)
