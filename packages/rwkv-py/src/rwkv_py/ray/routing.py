"""Which replica a request belongs to: the one that holds the state of its conversation."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

__all__ = ["Asked", "ConversationRouter", "named_in", "parsed", "session_of"]

# What a request goes on from, by its name, in the order in which it counts.
_FIELDS = ("previous_response_id", "response_id", "state", "input_file_id")
_NAMED_IN_PATH = re.compile(r"/v1/(?:responses|states|files|batches)/([^/]+)")


class Asked(NamedTuple):
    """A request on its way to a replica.

    Attributes:
        scope: of ASGI, what of it can be sent.
        body: the whole.
        holder: the replica that is known to hold what is asked for, if one is.
        tried: replicas that have declined.
    """

    scope: dict[str, Any]
    body: bytes
    holder: str | None
    tried: tuple[str, ...]


class ConversationRouter(ConsistentHashRouter):  # type: ignore[misc]
    """Sends a session's requests to one replica, and, where that declines, to the next in the ring.

    A replica that comes or goes takes with it only the sessions that are its own.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return replicas in the order in which they are to be asked."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        if pending_request is None:
            return ranks  # type: ignore[no-any-return]
        asked: Asked = pending_request.args[0]  # not of this class here: Serve sends a copy of it
        others = [[r for r in rank if _name(r) not in asked.tried] for rank in ranks]
        others = [rank for rank in others if rank]
        others.sort(key=lambda rank: _name(rank[0]) != asked.holder)
        # All have declined: whoever asks again sees that, and stops.
        return others or ranks


def _name(replica: RunningReplica) -> str:
    return str(replica.replica_id.unique_id)


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is; an empty one if it is something else."""
    if body.lstrip()[:1] != b"{":
        return {}
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):  # which the replica refuses
        return {}
    return asked if isinstance(asked, dict) else {}


def named_in(path: str, asked: dict[str, Any]) -> str | None:
    """Return what a request names that only one replica holds; None if nothing."""
    in_path = _NAMED_IN_PATH.match(path)
    if in_path is not None:
        return in_path[1]
    return next((asked[f] for f in _FIELDS if isinstance(asked.get(f), str)), None)


def session_of(asked: dict[str, Any], body: bytes) -> str:
    """Return what all requests of a conversation have in common, whatever protocol they come by.

    That is what was said up to the end of the first message of a user: later turns repeat it. A
    request that is no conversation has its own.
    """
    messages = asked.get("messages", asked.get("input"))
    if isinstance(messages, str):
        messages = [messages]
    if not isinstance(messages, list) or not messages:
        return hashlib.sha256(body).hexdigest()
    said = [asked.get("system"), asked.get("instructions")]
    for message in messages:
        said.append(message)
        if not isinstance(message, dict) or message.get("role") == "user":
            break
    texts = "\0".join(text for each in said for text in _texts(each))
    return hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()


def _texts(said: Any) -> Iterator[str]:
    """Yield the texts in a message: clients change what stands beside them."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, list):
        for each in said:
            yield from _texts(each)
    elif isinstance(said, dict):
        yield from _texts(said.get("text", said.get("content")))
