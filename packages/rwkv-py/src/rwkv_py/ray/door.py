"""What stands before the replicas: it passes each request on to the one that it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
from collections import OrderedDict
from collections.abc import AsyncIterator

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..server.errors import ApiError, error_response
from ..server.limits import BodyLimit
from .routing import Asked, named_in, parsed, session_of
from .state_list import PATH, list_states

__all__ = ["Door"]

_SCOPE = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string",
    "root_path", "headers", "client", "server",
)  # fmt: skip

# What a reply is called stands near its beginning.
_OWN_NAME = re.compile(rb'"id": ?"((?:resp|state|file|batch|chatcmpl|cmpl|msg)[-_]\w+)"')
_MAX_REMEMBERED = 100_000

# How often a request is asked again whose replica was lost before it had begun to answer.
_MAX_LOST = 8

# After how long a replica may have been started again.
_RETRY_SECONDS = 5


class Door:
    """Passes requests on to the replicas that they belong to.

    Args:
        replicas: all of them.
        n_replicas: how many there are when none is lost.
        max_bytes: how long a request may be.
    """

    def __init__(self, replicas: DeploymentHandle, n_replicas: int, max_bytes: int):
        self._replicas = replicas.options(method_name="ask", stream=True)
        self._n_replicas = n_replicas
        self._holders: OrderedDict[str, str] = OrderedDict()  # replicas by what they hold
        self._app = BodyLimit(self._pass_on, max_bytes=max_bytes)

    async def __call__(self, request: Request) -> Response:
        """Return what answers a request."""
        return _Answer(self._app)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole(receive)
        request = parsed(body)
        name = named_in(scope["path"], request)
        handle = self._replicas.options(session_id=name or session_of(request, body))
        kept = {key: scope[key] for key in _SCOPE if key in scope}
        asked = Asked(kept, body, self._holders.get(name or ""), ())
        if (scope["method"], scope["path"]) == ("GET", PATH):
            listed = await list_states(
                scope["query_string"], functools.partial(_ask, handle, asked)
            )
            if listed is not None:
                await listed(scope, receive, send)
                return
        declined: list[tuple[int, list[Message]]] = []
        while len(declined) < self._n_replicas:
            async with _reply(handle, asked) as (replica, first, rest):
                if replica in asked.tried or not first:
                    break
                status = first[0]["status"]
                # Another may have room, or what this one does not know.
                if status not in (429, 503) and not (status == 404 and name is not None):
                    self._remember(replica, first)
                    await _send_all(first, rest, send)
                    return
                declined.append((status, first + [m async for some in rest for m in some]))
                asked = asked._replace(tried=(*asked.tried, replica))
        if name is not None and len(declined) < self._n_replicas and declined[-1][0] == 404:
            message = "server: expected all of its replicas, got fewer, one of which may know it"
            error = ApiError(503, message, retry_after=_RETRY_SECONDS)
            await error_response(scope["path"], error)(scope, receive, send)
            return
        for told in max(declined, key=lambda one: one[0])[1]:
            await send(told)

    def _remember(self, replica: str, messages: list[Message]) -> None:
        """Know who holds what a reply is called, for those who go on from there."""
        found = _OWN_NAME.search(b"".join(m.get("body", b"") for m in messages))
        if found is not None:
            self._holders[found[1].decode()] = replica
            if len(self._holders) > _MAX_REMEMBERED:
                self._holders.popitem(last=False)


@contextlib.asynccontextmanager
async def _reply(
    handle: DeploymentHandle, asked: Asked
) -> AsyncIterator[tuple[str, list[Message], AsyncIterator[list[Message]]]]:
    """Ask a replica: its name, the first messages of its reply, and those that follow.

    One that is lost before it has said anything is followed by another.
    """
    for attempt in itertools.count(1):
        replies = handle.remote(asked)
        try:
            replica = await anext(replies)
            first = await anext(replies)
            break
        except RayActorError:
            if attempt == _MAX_LOST:
                raise
            await asyncio.sleep(0.1 * attempt)  # until Serve knows it, too
        except BaseException:
            replies.cancel()
            raise
    try:
        yield replica, first, replies
    finally:
        replies.cancel()


async def _ask(
    handle: DeploymentHandle,
    asked: Asked,
    query: bytes,
    holder: str | None,
    tried: tuple[str, ...],
) -> tuple[str, int, bytes]:
    """Ask a replica for the same with another query: its name, the status and the body."""
    scope = {**asked.scope, "query_string": query}
    asked = asked._replace(scope=scope, holder=holder, tried=tried)
    async with _reply(handle, asked) as (replica, first, rest):
        messages = first + [message async for some in rest for message in some]
        return replica, messages[0]["status"], b"".join(m.get("body", b"") for m in messages)


async def _send_all(first: list[Message], rest: AsyncIterator[list[Message]], send: Send) -> None:
    for message in first:
        await send(message)
    async for messages in rest:
        for message in messages:
            await send(message)


class _Answer(Response):
    """A response that is an application."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _whole(receive: Receive) -> bytes:
    """Return the whole body of a request."""
    body, more = [], True
    while more:
        message = await receive()
        body.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(body)
