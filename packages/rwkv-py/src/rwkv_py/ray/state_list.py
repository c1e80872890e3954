"""`GET /v1/states` of many replicas: each has its own, and a client sees all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.responses import Response

from ..server.errors import ApiError, error_response
from ..server.wire import Json

__all__ = ["PATH", "list_states"]

PATH = "/v1/states"
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000

Ask = Callable[[bytes, str | None, tuple[str, ...]], Awaitable[tuple[str, int, bytes]]]
"""Asks a replica with a query: the one of that name, or another than those that were asked before;
returns its name, the status and the body."""


async def list_states(query: bytes, ask: Ask) -> Response | None:
    """Return one list of the states of all replicas; None if one of them must say what is wrong.

    Args:
        query: what the client gave: `limit` and `after`.
        ask: asks a replica.
    """
    given = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
    limit = given.get("limit", str(_DEFAULT_LIMIT))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= _MAX_LIMIT:
        return None
    states: list[dict[str, Any]] = []
    asked: tuple[str, ...] = ()
    wanted: dict[str, Any] = {"limit": _MAX_LIMIT}
    holder = None
    while True:
        replica, status, body = await ask(urlencode(wanted).encode(), holder, asked)
        if replica in asked:  # all were asked
            break
        if status != 200:
            return None
        page = json.loads(body)
        states += page["data"]
        if page["has_more"]:
            holder, wanted = replica, {"limit": _MAX_LIMIT, "after": page["last_id"]}
        else:
            holder, wanted, asked = None, {"limit": _MAX_LIMIT}, (*asked, replica)
    states.sort(key=lambda state: state["created"])
    after = given.get("after")
    if after is not None:
        names = [state["id"] for state in states]
        if after not in names:
            message = f"after: expected a state that is kept, got {after[:80]!r}"
            return error_response(PATH, ApiError(400, message))
        states = states[names.index(after) + 1 :]
    shown = states[: int(limit)]
    return Json(
        {
            "object": "list",
            "data": shown,
            "has_more": len(states) > len(shown),
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        }
    )
