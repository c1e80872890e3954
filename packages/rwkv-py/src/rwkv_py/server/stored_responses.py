"""Responses that a later request may go on from."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ..chat_format import Message
from .errors import ApiError

__all__ = ["Stored", "StoredResponses"]


@dataclass(frozen=True)
class Stored:
    """A response, and the conversation that it ended.

    Attributes:
        response: as it was sent.
        messages: all that was said, the answer too, without instructions.
        owner: who asked for it; nobody else gets it.
    """

    response: dict[str, Any]
    messages: tuple[Message, ...]
    owner: str


class StoredResponses:
    """The last responses, as many as are kept, in memory."""

    def __init__(self, most: int):
        self._most = most
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def keep(self, stored: Stored) -> None:
        """Keep one; the oldest goes, if there are too many."""
        self._stored[stored.response["id"]] = stored
        while len(self._stored) > self._most:
            self._stored.popitem(last=False)

    def find(self, name: str, owner: str, *, field: str = "response_id") -> Stored:
        """Return one.

        Raises:
            ApiError: it is not kept, or is somebody else's.
        """
        found = self._stored.get(name)
        if found is None or found.owner != owner:
            message = f"{field}: expected a response that is kept, got {name[:80]!r}"
            raise ApiError(404, message, code="previous_response_not_found")
        self._stored.move_to_end(name)
        return found

    def delete(self, name: str, owner: str) -> None:
        """Forget one.

        Raises:
            ApiError: as `find`.
        """
        self.find(name, owner)
        del self._stored[name]
