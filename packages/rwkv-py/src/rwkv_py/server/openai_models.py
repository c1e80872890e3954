"""`GET /v1/models`: what is served, for the clients of OpenAI and of Anthropic."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from .context import Context, ContextOf
from .errors import ApiError
from .wire import Json

__all__ = ["router"]

router = APIRouter()


class ModelFacts(BaseModel):
    """A model: `object`, `created`, `owned_by` for clients of OpenAI, the rest for Anthropic's."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelFacts]
    has_more: bool
    first_id: str | None
    last_id: str | None


@router.get("/v1/models", response_model=ModelList)
async def list_models(context: ContextOf) -> Response:
    """List the models."""
    data = [_facts(context, name) for name in context.models.files]
    return Json(
        {
            "object": "list",
            "data": data,
            "has_more": False,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }
    )


@router.get("/v1/models/{name:path}", response_model=ModelFacts)
async def show_model(name: str, context: ContextOf) -> Response:
    """Tell of one model."""
    if name not in context.models.files:
        names = ", ".join(context.models.files)
        message = f"model: expected one of {names}, got {name[:100]!r}"
        raise ApiError(404, message, code="model_not_found")
    return Json(_facts(context, name))


def _facts(context: Context, name: str) -> dict[str, Any]:
    created = context.models.created
    when = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rwkv",
        "type": "model",
        "display_name": name,
        "created_at": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
