"""The models that are served: loaded when somebody asks, unloaded when nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .._arguments import TokenSequence
from ..chat_format import ChatFormat
from ..chat_template import format_of_template
from ..engine import Engine
from ..errors import InvalidArgumentError, ModelFileError, OutOfMemoryError
from ..generation import GenerationOptions
from ..guessers import SpeculationOptions
from ..model import Model
from ..models import recognise
from ..prefix_cache import PrefixCache
from ..state_folder import StateFolder
from ..tokenizer import Tokenizer
from .errors import ApiError
from .outage import Outage
from .settings import Settings

__all__ = ["Lease", "Models", "Served"]

_log = logging.getLogger("rwkv_py.server")


class Served:
    """A model that is loaded.

    Attributes:
        name: what clients call it.
        model: the model.
        draft: what guesses for it as "draft", if anything does.
        cache: the beginnings that its requests share.
        engine: what writes.
        n_users: how many requests use it.
        used_at: when one did last, by `time.monotonic()`.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        tokenizer: Tokenizer | None,
        settings: Settings,
        folder: StateFolder | None,
        draft: Model | None = None,
    ):
        self.name = name
        self.model = model
        self.draft = draft
        self._speculate = settings.speculate
        self._folder = folder
        self.cache = PrefixCache(
            model, budget=settings.cache_bytes, exact=settings.exact_cache, folder=folder
        )
        self.engine = Engine(
            model,
            max_running=settings.max_running,
            max_waiting=settings.max_waiting,
            max_prompt_tokens=settings.max_prompt_tokens,
            cache=self.cache,
            tokenizer=tokenizer,
        )
        self.n_users = 0
        self.used_at = time.monotonic()
        self._chat_format: ChatFormat | InvalidArgumentError
        try:
            self._chat_format = _format_of(model, settings.chat_format)
        except InvalidArgumentError as error:  # which is no reason not to complete texts
            self._chat_format = error

    @property
    def tokenizer(self) -> Tokenizer:
        """What its tokens stand for."""
        return self.engine.tokenizer

    @property
    def chat_format(self) -> ChatFormat:
        """How chats are written.

        Raises:
            InvalidArgumentError: the model file says it in a way that we cannot use.
        """
        if isinstance(self._chat_format, InvalidArgumentError):
            raise self._chat_format
        return self._chat_format

    def guessing(self, given: GenerationOptions) -> SpeculationOptions:
        """Return what guesses how a text goes on: as a client has it, else as the server is set.

        Raises:
            ApiError: the client wants a draft, and the model has none.
        """
        asked = "speculate" in given
        names = (given.get("speculate") if asked else self._speculate) or ""
        if "draft" not in names:
            return {"speculate": names or None}
        if self.draft is not None:
            return {"speculate": names, "draft": self.draft}
        if asked:
            raise ApiError(
                400, f"speculate: expected lookup or none for {self.name}, got {names}: no draft"
            )
        return {"speculate": "lookup" if "lookup" in names else None}

    @property
    def n_bytes(self) -> int:
        """The memory that it may take: weights, states kept, states of texts being written."""
        info = self.model.info
        return info.weight_bytes + self.cache.budget + 4 * info.state_size * self.engine.max_running

    def close(self) -> None:
        """Give its memory back; texts being written end."""
        self.engine.close(cancel=True)
        if self._folder is not None:
            self._folder.flush()  # its states are the model's, until they are written
        self.model.close()

    def tokens_of(self, prompt: str | TokenSequence) -> int:
        """Return how many tokens a prompt has."""
        return len(self.tokenizer.encode(prompt)) if isinstance(prompt, str) else len(prompt)


class Lease:
    """The use of a model by one request: it is not unloaded before `release`."""

    def __init__(self, served: Served):
        self.served = served
        self._held = True
        served.n_users += 1

    def release(self) -> None:
        """Let it go; a second time is no error."""
        if self._held:
            self._held = False
            self.served.n_users -= 1
            self.served.used_at = time.monotonic()


class Models:
    """All models of a server. Used in the event loop alone.

    Args:
        files: model files by the names that clients call them.
        settings: those of the server.
        open_model: opens a file.
        tokenizer: what tokens stand for; None: what each model says.
        folder: where all keep states that are to outlive the server.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        settings: Settings,
        *,
        open_model: Callable[[Path], Model] = Model,
        tokenizer: Tokenizer | None = None,
        folder: StateFolder | None = None,
    ):
        self.files = dict(files)
        self.created = int(time.time())
        self._settings = settings
        self._open_model = open_model
        self._tokenizer = tokenizer
        self._folder = folder
        self._served: dict[str, Served] = {}
        self._loading = asyncio.Lock()  # one is loaded at a time: each needs all cores and memory
        self._loading_seconds = 0.0  # the last time
        self._draft: Model | None = None  # while any model is loaded, if there is to be one
        self._outages: dict[str, Outage] = {}  # of those that cannot be loaded

    @property
    def loaded(self) -> list[Served]:
        """Those that are loaded."""
        return list(self._served.values())

    @property
    def retry_seconds(self) -> float:
        """How long until one has no more to do and another is loaded, as it was lately."""
        busy = [served.engine.seconds_to_end for served in self.loaded if served.n_users]
        return min(busy, default=0.0) + self._loading_seconds

    async def lease(self, name: str | None) -> Lease:
        """Load a model if it is not, and keep it loaded until the lease is released.

        Args:
            name: what the client calls it; None will do where there is one model.

        Raises:
            ApiError: there is none of that name, or no room for it now.
        """
        if name is None and len(self.files) == 1:
            name = next(iter(self.files))
        if name is None or name not in self.files:
            names = ", ".join(self.files)
            got = "none" if name is None else repr(name[:100])
            if name is None:
                raise ApiError(400, f"model: expected one of {names}, got none")
            raise ApiError(
                404, f"model: expected one of {names}, got {got}", code="model_not_found"
            )
        served = self._served.get(name)
        if served is None:
            async with self._loading:
                served = self._served.get(name)
                if served is None:
                    served = await self._load(name)
                return Lease(served)
        return Lease(served)

    async def unload_idle(self) -> None:
        """Unload those that nobody has used for long; goes on until it is cancelled."""
        idle = self._settings.idle_seconds
        if idle is None:
            return
        while True:
            await asyncio.sleep(min(idle / 4, 10.0))
            async with self._loading:
                for served in self.loaded:
                    if not served.n_users and time.monotonic() - served.used_at >= idle:
                        await self._unload(served)

    async def close(self) -> None:
        """Unload all."""
        async with self._loading:
            for served in self.loaded:
                await self._unload(served)
            self._close_draft()

    async def _load(self, name: str) -> Served:
        path = self.files[name]
        await self._make_room(path)
        begun = time.monotonic()
        outage = self._outages.setdefault(name, Outage())
        try:
            served = await asyncio.to_thread(self._open, name, path)
        except (ModelFileError, OutOfMemoryError, InvalidArgumentError) as error:
            # What is wrong with a file is told to whoever runs the server: it has paths.
            if outage.begins():
                _log.error("model %s cannot be loaded: %s", name, type(error).__name__)
            raise ApiError(
                503,
                f"model: expected {name} to load, got {type(error).__name__}",
                retry_after=outage.retry_seconds,
            ) from error
        outage.ends()
        self._loading_seconds = time.monotonic() - begun
        self._served[name] = served
        _log.info("model %s is loaded", name)
        return served

    def _open(self, name: str, path: Path) -> Served:
        draft = self._open_draft()
        model = self._open_model(path)
        if draft is not None and draft.n_vocab != model.n_vocab:
            _log.warning(
                "model %s has no draft: it has %d tokens, the draft %d",
                name,
                model.n_vocab,
                draft.n_vocab,
            )
            draft = None
        return Served(name, model, self._tokenizer, self._settings, self._folder, draft)

    def _open_draft(self) -> Model | None:
        if self._draft is None and self._settings.draft is not None:
            self._draft = self._open_model(self._settings.draft)
            _log.info("the draft is loaded")
        return self._draft

    def _close_draft(self) -> None:
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    async def _make_room(self, path: Path) -> None:
        """Unload what nobody uses, the longest unused first, until there is room for a file."""
        limit = self._settings.memory
        if limit is None:
            return
        try:
            needed = path.stat().st_size + self._settings.cache_bytes
            if self._settings.draft is not None:
                needed += self._settings.draft.stat().st_size
        except OSError:
            return  # opening it says what is wrong
        idle = sorted((s for s in self.loaded if not s.n_users), key=lambda s: s.used_at)
        while sum(s.n_bytes for s in self.loaded) + needed > limit:
            if not idle:
                message = f"memory: expected room for {needed} bytes of {limit}, got less"
                raise ApiError(503, message, retry_after=self.retry_seconds)
            await self._unload(idle.pop(0))

    async def _unload(self, served: Served) -> None:
        del self._served[served.name]
        await asyncio.to_thread(served.close)
        _log.info("model %s is unloaded", served.name)
        if not self._served:
            self._close_draft()


def _format_of(model: Model, name: str | None) -> ChatFormat:
    """Return the format of that name, else of a known model, else what the model file says."""
    if name is not None:
        return ChatFormat.named(name)
    known = recognise(model.path)
    if known is not None:
        return known.chat_format
    if model.info.chat_template:
        return format_of_template(model.info.chat_template, model.path)
    return ChatFormat.named("world")
