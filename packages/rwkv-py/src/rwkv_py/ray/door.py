"""What stands before the replicas: it passes each request on to the one that it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
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
from .lists import LISTS, list_of_all
from .routing import Asked, named_in, parsed, session_of

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
        if body is None:
            return
        request = parsed(body)
        name = named_in(scope["path"], request)
        handle = self._replicas.options(session_id=name or session_of(request, body))
        kept = {key: scope[key] for key in _SCOPE if key in scope}
        asked = Asked(kept, body, self._holders.get(name or ""), ())
        if scope["method"] == "GET" and scope["path"] in LISTS:
            ask = functools.partial(_ask, handle, asked)
            listed = await list_of_all(scope["path"], scope["query_string"], ask)
            if listed is not None:
                await listed(scope, receive, send)
                return
        declined: list[tuple[int, list[Message]]] = []
        while len(declined) < self._n_replicas:
            async with _reply(handle, asked) as (replica, messages):
                first = await anext(messages, None)
                if replica in asked.tried or first is None:
                    break
                status = first["status"]
                # Another may have room, or what this one does not know.
                if status not in (429, 503) and not (status == 404 and name is not None):
                    await send(first)
                    await self._send_on(messages, replica, send)
                    return
                declined.append((status, [first, *[message async for message in messages]]))
                asked = asked._replace(tried=(*asked.tried, replica))
        n_unknown = sum(status == 404 for status, _ in declined)
        if declined and not (name is not None and n_unknown == len(declined) < self._n_replicas):
            for told in max(declined, key=lambda one: one[0])[1]:
                await send(told)
            return
        message = "server: expected all of its replicas, got fewer, while others are started again"
        error = ApiError(503, message, retry_after=_RETRY_SECONDS)
        await error_response(scope["path"], error)(scope, receive, send)

    async def _send_on(self, messages: AsyncIterator[Message], replica: str, send: Send) -> None:
        """Send what a replica says, and know what it holds now, for those who go on from there."""
        looked = False
        async for message in messages:
            body = message.get("body", b"")
            if body and not looked:
                looked = True
                self._remember(replica, body)
            await send(message)

    def _remember(self, replica: str, body: bytes) -> None:
        found = _OWN_NAME.search(body)
        if found is not None:
            self._holders[found[1].decode()] = replica
            if len(self._holders) > _MAX_REMEMBERED:
                self._holders.popitem(last=False)


@contextlib.asynccontextmanager
async def _reply(
    handle: DeploymentHandle, asked: Asked
) -> AsyncIterator[tuple[str, AsyncIterator[Message]]]:
    """Ask a replica: its name, and the messages of its reply.

    One that is lost before it has said anything is followed by another; if that happens again and
    again, there are no messages.
    """
    for attempt in range(1, _MAX_LOST + 1):
        replies = handle.remote(asked)
        try:
            replica = await anext(replies)
            first = await anext(replies)
        except RayActorError:
            await asyncio.sleep(0.1 * attempt)  # until Serve knows it, too
            continue
        except BaseException:
            replies.cancel()
            raise
        try:
            yield replica, _one_by_one(first, replies)
        finally:
            replies.cancel()
        return
    yield "", _one_by_one([], None)


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
    async with _reply(handle, asked) as (replica, messages):
        said = [message async for message in messages]
        status = said[0]["status"] if said else 503
        return replica, status, b"".join(message.get("body", b"") for message in said)


async def _one_by_one(
    first: list[Message], rest: AsyncIterator[list[Message]] | None
) -> AsyncIterator[Message]:
    for message in first:
        yield message
    if rest is not None:
        async for messages in rest:
            for message in messages:
                yield message


class _Answer(Response):
    """A response that is an application."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _whole(receive: Receive) -> bytes | None:
    """Return the whole body of a request; None if whoever asks has gone."""
    body, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(body)
