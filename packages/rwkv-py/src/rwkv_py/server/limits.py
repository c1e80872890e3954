"""How long a request may be."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, error_response

__all__ = ["BodyLimit"]

_DRAIN_SECONDS = 5


class BodyLimit:
    """Refuses bodies that are too long, whether they say so or not, without keeping them."""

    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            await self._refuse(scope, receive, send, f"{length[:20]}")
            return
        n_bytes = 0
        begun = False

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._max_bytes:
                raise _TooLong
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLong:
            if not begun:
                await self._refuse(scope, receive, send, "more")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, got: str) -> None:
        if "expect" not in Headers(scope=scope):  # else a client that asks before it sends
            await _drain(receive)
        message = f"body: expected at most {self._max_bytes} bytes, got {got}"
        response = error_response(scope["path"], ApiError(413, message))
        response.headers["Connection"] = "close"  # what may still be coming is not read
        await response(scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Read what is still coming, for a while: many clients see no answer before they have sent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body"):
                pass


class _TooLong(BaseException):
    """Not an Exception: what reads the body is not to make another error of it."""
