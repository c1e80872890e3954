"""Server-sent events, and clients that go away before the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .wire import to_json

__all__ = ["DONE", "EventStream", "event", "while_connected"]

_T = TypeVar("_T")

DONE = b"data: [DONE]\n\n"


def event(data: Any, name: str | None = None) -> bytes:
    """Write one event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + to_json(data) + b"\n\n"


class EventStream(Response):
    """A response of events as they come.

    Args:
        events: what is sent.
        close: called once when nothing more is sent, also if nothing ever was: a client that goes
            away ends its events at once.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]):
        self._events = events
        self._close = close
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.raw_headers[
            next(i for i, (name, _) in enumerate(self.raw_headers) if name == b"content-length")
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or as many as the client waits for."""
        try:
            await _until_gone(receive, self._send(send))
        finally:
            self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for data in self._events:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def while_connected(request: Request, answer: Awaitable[Response]) -> Response:
    """Return an answer; if the client goes away before, cancel what makes it."""
    response = await _until_gone(request.receive, answer)
    return Response(status_code=499) if response is None else response  # which nobody reads


async def _until_gone(receive: Receive, work: Awaitable[_T]) -> _T | None:
    """Return what work returns; None if the client went away first, and the work is cancelled."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
