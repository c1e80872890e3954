"""`GET /v1/models`: what is served, for the clients of OpenAI and of Anthropic, and for Codex."""

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


class CutAt(BaseModel):
    """Where what a tool answers is cut."""

    mode: Literal["tokens"]
    limit: int


class CodexModel(BaseModel):
    """A model as Codex's command reads it, which refuses the list if any of these is not there.

    We leave the instructions to whoever runs it, and offer no tool that is not a plain function.
    """

    slug: str
    display_name: str
    description: str | None
    supported_reasoning_levels: list[dict[str, str]]
    shell_type: Literal["default"]
    visibility: Literal["list"]
    supported_in_api: bool
    priority: int
    upgrade: None
    base_instructions: str
    supports_reasoning_summaries: bool
    support_verbosity: bool
    default_verbosity: None
    apply_patch_tool_type: None
    truncation_policy: CutAt
    supports_parallel_tool_calls: bool
    context_window: int
    experimental_supported_tools: list[str]
    input_modalities: list[Literal["text"]]


class ModelList(BaseModel):
    """All models; `models` are the same as `data`."""

    object: Literal["list"]
    data: list[ModelFacts]
    models: list[CodexModel]
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
            "models": [_for_codex(context, name) for name in context.models.files],
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


def _for_codex(context: Context, name: str) -> dict[str, Any]:
    longest = context.settings.max_prompt_tokens
    return {
        "slug": name,
        "display_name": name,
        "description": None,
        "supported_reasoning_levels": [],
        "shell_type": "default",
        "visibility": "list",
        "supported_in_api": True,
        "priority": list(context.models.files).index(name),
        "upgrade": None,
        "base_instructions": "",
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "tokens", "limit": min(10_000, longest // 4)},
        "supports_parallel_tool_calls": True,
        "context_window": longest,
        "experimental_supported_tools": [],
        "input_modalities": ["text"],
    }


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
