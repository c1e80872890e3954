"""What is told of each request: a line of the log, a count; and what a fault of ours ends as."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import api_error, error_response
from .metrics import Metrics

__all__ = ["Access"]

_log = logging.getLogger("rwkv_py.server")


class Access:
    """Logs and counts requests: by their route, never with anything that a client sent.

    A fault of ours is logged by its place in the code, without its message, which may hold what a
    client sent; the client gets a 500 in the form of its protocol.
    """

    def __init__(self, app: ASGIApp, metrics: Callable[[], Metrics]):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = 499  # a client that went away before an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("fault: %s in %s, line %s", type(error).__name__, place.name, place.lineno)
            if status == 499:
                await error_response(scope["path"], api_error(error))(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics().count_request(route, status)
            seconds = time.monotonic() - begun
            _log.info("%s %s %d %.3f s", scope["method"], route, status, seconds)
