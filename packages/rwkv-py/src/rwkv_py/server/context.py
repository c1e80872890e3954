"""What every answer needs: the models, the settings, what is counted and what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from ..model import Model
from ..tokenizer import Tokenizer
from .embedding_line import EmbeddingLine
from .metrics import Metrics
from .models import Models
from .settings import Settings
from .state_store import StateStore, open_folder
from .stored_responses import StoredResponses

__all__ = ["Context", "ContextOf", "open_context"]


@dataclass(frozen=True)
class Context:
    """What every answer needs."""

    settings: Settings
    models: Models
    metrics: Metrics
    responses: StoredResponses
    endings: StoredResponses  # of what is not asked for again but to keep its state
    states: StateStore
    embedding: EmbeddingLine


@contextlib.asynccontextmanager
async def open_context(
    files: Mapping[str, Path],
    settings: Settings,
    *,
    open_model: Callable[[Path], Model] = Model,
    tokenizer: Tokenizer | None = None,
) -> AsyncIterator[Context]:
    """Yield what answers are made with, in the event loop that makes them.

    One model is loaded at once, of several each when it is first asked for.

    Args:
        files: model files by the names that clients call them.
        settings: who may ask, and how much.
        open_model: opens a file.
        tokenizer: what the models' tokens stand for; None: what each says.

    Raises:
        InvalidArgumentError: the folder of states cannot be used.
        ApiError: the one model cannot be loaded.
    """
    async with contextlib.AsyncExitStack() as open_things:
        folder = open_folder(settings)
        most = settings.max_stored
        path = None if folder is None else folder.path / "responses.sqlite"
        disk = settings.cache_bytes if folder is None else settings.state_disk_bytes
        store = StateStore(folder, disk, settings.state_quota_bytes)
        open_things.callback(store.close)
        responses, endings = StoredResponses(most, path), StoredResponses(most)
        open_things.callback(responses.close)
        open_things.callback(endings.close)
        models = Models(files, settings, open_model=open_model, tokenizer=tokenizer, folder=folder)
        open_things.push_async_callback(models.close)
        embedding = EmbeddingLine(settings.max_waiting)
        metrics = Metrics(models)
        if len(files) == 1:
            (await models.lease(None)).release()
        yield Context(settings, models, metrics, responses, endings, store, embedding)


def _context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextOf = Annotated[Context, Depends(_context_of)]
"""As the type of a route's parameter: the context of the server that was asked."""
