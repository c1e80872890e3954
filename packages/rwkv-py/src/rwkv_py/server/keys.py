"""Who may ask: API keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError, error_response
from .marks import Marks

__all__ = ["Asker", "Keys", "asker_of"]


class Asker(NamedTuple):
    """Whose request it is.

    Attributes:
        share: for fair shares: its key, else its address.
        owner: whose things it may see: those of its key, from one run to the next. Without keys all
            is everybody's.
        marks: the names and times of what is answered.
        keeps: whether answers are kept, so that a later request can go on from them.
    """

    share: str
    owner: str
    marks: Marks = Marks()
    keeps: bool = True


class Keys:
    """Lets only those in who have one of the keys, as a bearer token or as `x-api-key`.

    All keys are compared, each in a time that does not depend on what is given. The paths in `free`
    need none.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], free: Collection[str] = ()):
        self._app = app
        self._free = free
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and self._digests and scope["path"] not in self._free:
            headers = Headers(scope=scope)
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            digest = _digest(given)
            known = [hmac.compare_digest(digest, each) for each in self._digests]
            if not any(known):
                got = "another" if given else "none"
                message = (
                    f"authorization: expected a key of this server as a bearer token, got {got}"
                )
                error = ApiError(401, message, code="invalid_api_key")
                await error_response(scope["path"], error)(scope, receive, send)
                return
            scope["rwkv.key"] = hashlib.blake2b(digest, digest_size=16, person=b"owner").hexdigest()
        await self._app(scope, receive, send)


def asker_of(scope: Scope) -> Asker:
    """Return whose request it is."""
    key: str | None = scope.get("rwkv.key")
    if key is not None:
        return Asker(key, key)
    client = scope.get("client")
    return Asker(client[0] if client else "", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
