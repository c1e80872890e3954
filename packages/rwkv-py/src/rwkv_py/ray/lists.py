"""Lists of what replicas keep, such as `GET /v1/states`: each has its own, a client sees all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from starlette.responses import Response

from ..server.errors import ApiError, error_response
from ..server.lists import Order, listed
from ..server.wire import Json

__all__ = ["LISTS", "list_of_all"]


class _List(NamedTuple):
    """How a server lists something.

    Attributes:
        limit: how many are listed, if nobody says.
        most: how many at most.
        order: in which order, if nobody says.
        orders: the orders that a client may ask for.
    """

    limit: int
    most: int
    order: Order
    orders: tuple[str, ...] = ()


LISTS = {
    "/v1/states": _List(100, 1000, "asc"),
    "/v1/files": _List(10000, 10000, "desc", ("asc", "desc")),
    "/v1/batches": _List(20, 100, "desc"),
}
"""The lists, by their paths."""

Ask = Callable[[bytes, str | None, tuple[str, ...]], Awaitable[tuple[str, int, bytes]]]
"""Asks a replica with a query: the one of that name, or another than those that were asked before;
returns its name, the status and the body."""


async def list_of_all(path: str, query: bytes, ask: Ask) -> Response | None:
    """Return one list of what all replicas keep; None if one of them must say what is wrong.

    Args:
        path: one of `LISTS`.
        query: what the client gave: `limit`, `after`, `order`, and what chooses.
        ask: asks a replica.
    """
    about = LISTS[path]
    given = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
    limit, after = given.pop("limit", str(about.limit)), given.pop("after", None)
    order: Any = given.pop("order", about.order) if about.orders else about.order
    if not (limit.isdecimal() and 1 <= int(limit[:9]) <= about.most):
        return None
    if about.orders and order not in about.orders:
        return None
    things: list[dict[str, Any]] = []
    asked: tuple[str, ...] = ()
    holder, page = None, {**given, "limit": str(about.most)}
    while True:
        replica, status, body = await ask(urlencode(page).encode(), holder, asked)
        if replica in asked:  # all were asked
            break
        if status != 200:
            return None
        part = json.loads(body)
        things += part["data"]
        if part["has_more"]:
            holder, page = replica, {**page, "after": part["last_id"]}
        else:
            holder, page = None, {**given, "limit": str(about.most)}
            asked = (*asked, replica)
    things.sort(key=lambda thing: thing.get("created", thing.get("created_at", 0)))
    try:
        return Json(listed(things, int(limit), order, after))
    except ApiError as error:
        return error_response(path, error)
