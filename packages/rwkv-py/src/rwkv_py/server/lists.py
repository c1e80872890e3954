"""Lists of things that are kept, a part at a time."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from .errors import ApiError

__all__ = ["Order", "listed"]

Order: TypeAlias = Literal["asc", "desc"]


def listed(
    things: list[dict[str, Any]], limit: int, order: Order, after: str | None
) -> dict[str, Any]:
    """Return a part of a list, in OpenAI's form.

    Args:
        things: all, the oldest first; each has an "id".
        limit: how many to return.
        order: "asc": the oldest first.
        after: the last one of the part before; None: from the beginning.

    Raises:
        ApiError: `after` is none of them.
    """
    things = things if order == "asc" else things[::-1]
    if after is not None:
        names = [thing["id"] for thing in things]
        if after not in names:
            raise ApiError(400, f"after: expected one of the list, got {after[:80]!r}")
        things = things[names.index(after) + 1 :]
    data = things[:limit]
    return {
        "object": "list",
        "data": data,
        "has_more": len(things) > limit,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
