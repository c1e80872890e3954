"""A line of a batch answered: exactly what a request would get, without HTTP."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel, ValidationError

from ..batch import Answered, BadLine, Line, NotNow
from .anthropic_messages import MessagesRequest, answer_message
from .context import Context
from .embeddings import EmbeddingRequest, answer_embeddings
from .errors import ApiError, api_error, error_body, from_validation
from .keys import Asker
from .marks import RepeatableMarks
from .openai_chat import ChatRequest, answer_chat
from .openai_completions import CompletionRequest, answer_completion
from .openai_responses import ResponseRequest, answer_response
from .wire import Json, to_json

__all__ = ["URLS", "BatchAnswers"]

_log = logging.getLogger("rwkv_py.server")

_Answer: TypeAlias = Callable[[Any, Context, Asker], Awaitable[Json]]

_OPERATIONS: dict[str, tuple[type[BaseModel], _Answer]] = {
    "/v1/chat/completions": (ChatRequest, answer_chat),
    "/v1/completions": (CompletionRequest, answer_completion),
    "/v1/embeddings": (EmbeddingRequest, answer_embeddings),
    "/v1/responses": (ResponseRequest, answer_response),
    "/v1/messages": (MessagesRequest, answer_message),
}

URLS = tuple(_OPERATIONS)
"""What lines may be for."""

_NOT_NOW = {429, 503}
_USAGE = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")


class BatchAnswers(NamedTuple):
    """Answers lines, so that each gets the same answer whenever it is asked for.

    Attributes:
        context: what answers.
        share: whose requests they are, for fair shares.
        owner: whose states and responses they may go on from.
        work: its name: the names in answers follow from it.
        seed: the seeds of those that give none follow from it, and from their numbers.
        created: the time that answers say, in seconds since 1970.
        url: the one that all must be for; None: any.
    """

    context: Context
    share: str
    owner: str
    work: str
    seed: int
    created: int
    url: str | None = None

    async def answer(self, number: int, line: Line | BadLine) -> Answered:
        """Answer a line.

        Raises:
            NotNow: there is no room for it, or a failure that may pass.
        """
        url = line.url if isinstance(line, Line) else ""
        try:
            if isinstance(line, BadLine):
                raise ApiError(400, line.message)
            response = await self._ask(number, line)
            return Answered(response.status_code, bytes(response.body), _tokens(response.content))
        except Exception as error:
            told = api_error(error)
            if told.status == 500:
                _log.error("fault: %s in a line of a batch", type(error).__name__)
            answered = Answered(told.status, to_json(error_body(url, told)), 0)
            if told.status in _NOT_NOW:
                raise NotNow(None if told.status == 429 else answered) from error
            return answered

    async def _ask(self, number: int, line: Line) -> Json:
        if line.url not in _OPERATIONS:
            raise ApiError(404, f"url: expected one of {', '.join(URLS)}, got {line.url[:80]!r}")
        if self.url not in (None, line.url):
            raise ApiError(400, f"url: expected {self.url}, as the batch says, got {line.url}")
        if line.body.get("stream"):
            raise ApiError(400, "stream: expected none, got one")
        kind, answer = _OPERATIONS[line.url]
        body = line.body
        if "seed" in kind.model_fields and body.get("seed") is None:
            body = {**body, "seed": _seed(self.seed, number)}
        try:
            ask = kind.model_validate(body)
        except ValidationError as error:
            raise from_validation(error.errors()) from None
        marks = RepeatableMarks(f"{self.work} {number}".encode(), self.created)
        return await answer(ask, self.context, Asker(self.share, self.owner, marks, keeps=False))


def _seed(seed: int, number: int) -> int:
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _tokens(content: dict[str, Any]) -> int:
    usage = content.get("usage") or {}
    return sum(usage.get(name, 0) for name in _USAGE)
