"""`POST /v1/embeddings`: texts to vectors."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from .context import Context, ContextOf
from .errors import ApiError, api_error
from .fields import Body
from .keys import Asker, asker_of
from .models import Served
from .sse import while_connected
from .wire import Json

__all__ = ["EmbeddingRequest", "answer_embeddings", "router"]

router = APIRouter()

_MAX_INPUTS = 2048


class EmbeddingRequest(Body):
    """Texts, as text or as tokens; `pooling` and `normalize` are ours."""

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    pooling: Literal["mean", "last"] | None = None
    normalize: bool | None = None


class Embedding(BaseModel):
    """A vector: numbers, or float32 of them in base64, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """How many tokens there were."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The vectors."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/v1/embeddings", response_model=EmbeddingList)
async def embeddings(ask: EmbeddingRequest, request: Request, context: ContextOf) -> Response:
    """Return a vector for each text: the mean of its final hidden states, or the last."""
    asker = asker_of(request.scope)
    return await while_connected(request, answer_embeddings(ask, context, asker))


async def answer_embeddings(ask: EmbeddingRequest, context: Context, asker: Asker) -> Json:
    """Return the vectors.

    Raises:
        ApiError: they are refused, or reading has failed.
    """
    lease = await context.models.lease(ask.model)
    try:
        served = lease.served
        n_embd = served.model.info.n_embd
        if ask.dimensions not in (None, n_embd):
            raise ApiError(400, f"dimensions: expected {n_embd}, got {ask.dimensions}")
        prompts = await asyncio.to_thread(_prompts, ask.input, served, context)
        seconds = context.settings.max_seconds
        try:
            async with asyncio.timeout(seconds):
                pooling = ask.pooling or "mean"
                vectors = await context.embedding.embed(served, prompts, pooling, asker.share)
        except TimeoutError:
            message = f"server: expected to have read all within {seconds:g} s, got no further"
            seconds = context.embedding.seconds_to_begin
            raise ApiError(503, message, code="timeout", retry_after=seconds) from None
        if ask.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        n_tokens = sum(len(prompt) for prompt in prompts)
        context.metrics.count_prompt(served.name, n_tokens)
        return Json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": i, "embedding": _write(vector, ask)}
                    for i, vector in enumerate(vectors.astype("<f4"))
                ],
                "model": served.name,
                "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
            }
        )
    except Exception as error:
        raise api_error(error, {"prompts": "input", "text": "input", "tokens": "input"}) from error
    finally:
        lease.release()


def _prompts(given: Any, served: Served, context: Context) -> list[list[int]]:
    """Return the tokens of each text."""
    several = given if isinstance(given, list) else [given]
    if several and isinstance(several[0], int):
        several = [several]
    if not 1 <= len(several) <= _MAX_INPUTS:
        raise ApiError(400, f"input: expected 1 to {_MAX_INPUTS} texts, got {len(several)}")
    prompts = [served.tokenizer.encode(each) if isinstance(each, str) else each for each in several]
    most = context.settings.max_prompt_tokens
    if (longest := max(map(len, prompts))) > most:
        raise ApiError(400, f"input: expected at most {most} tokens, got {longest}")
    return prompts


def _write(vector: NDArray[np.float32], ask: EmbeddingRequest) -> list[float] | str:
    if ask.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
