"""The server's application: all routes, and what stands before them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from ..errors import InvalidArgumentError, RwkvError
from ..model import Model
from ..tokenizer import Tokenizer
from . import (
    anthropic_messages,
    batches,
    embeddings,
    files,
    openai_chat,
    openai_completions,
    openai_models,
    openai_responses,
    operations,
    page,
    states,
    tokens,
)
from .access import Access
from .batch_runs import BatchRuns
from .context import Context, open_context
from .errors import ApiError, ErrorBody, api_error, error_response, from_validation
from .file_store import FileStore
from .keys import Keys
from .limits import BodyLimit
from .metrics import Metrics
from .openapi import openapi_file
from .settings import Settings
from .state_store import is_of_the_disk

__all__ = ["create_app"]

_log = logging.getLogger("rwkv_py.server")

_ROUTERS = (
    openai_models.router,
    openai_chat.router,
    openai_completions.router,
    openai_responses.router,
    anthropic_messages.router,
    embeddings.router,
    states.router,
    files.router,
    batches.router,
    tokens.router,
    operations.router,
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What is wrong with the request."},
    "5XX": {"model": ErrorBody, "description": "What is wrong with the server."},
}


def create_app(
    files: Mapping[str, Path],
    settings: Settings | None = None,
    *,
    open_model: Callable[[Path], Model] = Model,
    tokenizer: Tokenizer | None = None,
) -> FastAPI:
    """Return a server's application, for any ASGI server; `rwkv serve` runs it with uvicorn.

    One model is loaded when the application starts, of several each when it is first asked for.

    Args:
        files: model files by the names that clients call them.
        settings: who may ask, and how much.
        open_model: opens a file.
        tokenizer: what the models' tokens stand for; None: what each says.
    """
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opening = open_context(files, settings, open_model=open_model, tokenizer=tokenizer)
        async with contextlib.AsyncExitStack() as open_things:
            try:
                context = await open_things.enter_async_context(opening)
                app.state.batches = _open_batches(context)
            except RwkvError as error:
                app.state.failure = error
                raise
            app.state.context = context
            if app.state.batches is not None:
                open_things.push_async_callback(app.state.batches.close)
                app.state.batches.begin()
            unloading = asyncio.create_task(context.models.unload_idle())
            open_things.callback(unloading.cancel)
            yield

    app = FastAPI(
        title="RWKV on a CPU",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses=_ERRORS,
        middleware=_middleware(settings, lambda: app.state.context.metrics),
        exception_handlers={
            RequestValidationError: _on_validation,
            HTTPException: _on_http,
            ApiError: _on_api_error,
            RwkvError: _on_api_error,
            MemoryError: _on_api_error,
        },
        redirect_slashes=False,
    )
    for router in _ROUTERS:
        app.include_router(router)
    if settings.page:
        app.include_router(page.router)
    app.openapi = functools.partial(openapi_file, app)  # type: ignore[method-assign]
    return app


def _open_batches(context: Context) -> BatchRuns | None:
    """Return the batches that outlive the server; None if nothing does, or the disk fails."""
    folder, settings = context.states.lasting, context.settings
    if folder is None:
        return None
    most, quota = settings.state_disk_bytes, settings.state_quota_bytes
    try:
        return BatchRuns(context, FileStore(folder.path / "files", most, quota))
    except InvalidArgumentError as error:
        if not is_of_the_disk(error.__cause__):
            raise
        _log.error("files cannot be kept: %s", error.__cause__.__class__.__name__)
        return None


def _middleware(settings: Settings, metrics: Callable[[], Metrics]) -> list[Middleware]:
    """Return what stands before the routes, the outermost first."""
    stack: list[Middleware] = [Middleware(Access, metrics=metrics)]
    if settings.cors_origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
            )
        )
    free = {"/health"} | (page.PATHS if settings.page else set())
    stack.append(Middleware(Keys, keys=settings.api_keys, free=free))
    stack.append(Middleware(BodyLimit, max_bytes=settings.max_body_bytes))
    return stack


async def _on_validation(request: Request, error: Any) -> Response:
    return error_response(request.url.path, from_validation(error.errors()))


async def _on_http(request: Request, error: Any) -> Response:
    if error.status_code == 404:
        message = "path: expected one of this server, got another"
    elif error.status_code == 405:
        message = "method: expected one that the path has, got another"
    else:
        message = "body: expected JSON, got none that can be read"
    response = error_response(request.url.path, ApiError(error.status_code, message))
    response.headers.update(error.headers or {})
    return response


async def _on_api_error(request: Request, error: Any) -> Response:
    told = api_error(error)
    if told.status == 503 and told.retry_after is None:
        told.retry_after = request.app.state.context.models.retry_seconds
    return error_response(request.url.path, told)
