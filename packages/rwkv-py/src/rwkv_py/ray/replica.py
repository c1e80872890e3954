"""A replica: the server of `rwkv serve`, asked through Ray."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from ray import serve
from starlette.types import Message

from ..errors import InvalidArgumentError
from ..model import Model
from ..models import fetch
from ..server import Settings, create_app
from ..state_folder import locked
from ..tokenizer import Tokenizer
from .routing import Asked

__all__ = ["Replica"]

# How long a replica that ends may keep its folder of states from the one that follows it.
_FOLDER_SECONDS = 120

# Messages that wait to be sent on: more, and whatever writes them waits.
_MAX_WAITING = 64


class Replica:
    """A server that is asked by messages of ASGI.

    Args:
        files: model files, or names of models, by the names that clients call them.
        settings: of the server; `state_dir` is that of all replicas.
        n_replicas: how many there are.
        threads: that compute.
        tokenizer: a name or a file; None: what each model says.
    """

    async def __init__(  # type: ignore[misc]  # Serve waits for it
        self,
        files: dict[str, str],
        settings: Settings,
        n_replicas: int,
        threads: int,
        tokenizer: str | None,
    ):
        self._name = str(serve.get_replica_context().replica_id.unique_id)
        self._open = contextlib.AsyncExitStack()
        if settings.state_dir is not None:
            own, lock = await asyncio.to_thread(_own_folder, settings.state_dir, n_replicas)
            self._open.callback(os.close, lock)
            settings = dataclasses.replace(settings, state_dir=own)
        paths = {name: await asyncio.to_thread(fetch, file) for name, file in files.items()}
        self._app = create_app(
            paths,
            settings,
            open_model=functools.partial(Model, threads=threads),
            tokenizer=None if tokenizer is None else Tokenizer.named(tokenizer),
        )
        await self._open.enter_async_context(self._app.router.lifespan_context(self._app))

    async def __del__(self) -> None:
        await self._open.aclose()

    async def ask(self, asked: Asked) -> AsyncIterator[str | list[Message]]:
        """Yield the name of this replica, then messages of ASGI, as many at once as there are."""
        yield self._name
        said: asyncio.Queue[Message | None] = asyncio.Queue(_MAX_WAITING)
        given = [{"type": "http.request", "body": asked.body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> Message:
            if given:
                return given.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def answer() -> None:
            try:
                await self._app(asked.scope, receive, said.put)
            except Exception:
                await said.put(None)
                raise
            await said.put(None)  # and not if it is cancelled: nobody may be there to make room

        answering = asyncio.create_task(answer())
        try:
            ended = False
            while not ended:
                messages = [await said.get()]
                while not said.empty():
                    messages.append(said.get_nowait())
                ended = messages[-1] is None
                yield [message for message in messages if message is not None]
            await answering
        finally:
            gone.set()  # whoever asked; nothing is written for nobody
            answering.cancel()


def _own_folder(state_dir: Path, n_replicas: int) -> tuple[Path, int]:
    """Return a folder for one replica's states, and the lock by which it is its own.

    Raises:
        InvalidArgumentError: all are taken, also after a while.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + _FOLDER_SECONDS
    while True:
        for number in range(n_replicas):
            with contextlib.suppress(InvalidArgumentError):
                return state_dir / f"replica-{number}", locked(state_dir / f"{number}.lock")
        if time.monotonic() > deadline:
            raise InvalidArgumentError(
                f"{state_dir}: expected one of {n_replicas} folders that no replica uses, got none"
            )
        time.sleep(0.2)
