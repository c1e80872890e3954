"""The OpenAPI file: what FastAPI writes of the routes, and the events of streams."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .anthropic_messages import MessageEvent
from .openai_chat import ChatChunk
from .openai_completions import Completion
from .openai_responses import ResponseEvent

__all__ = ["openapi_file"]

_REF = "#/components/schemas/{model}"

_EVENTS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatChunk,
    "/v1/completions": Completion,
    "/v1/responses": ResponseEvent,
    "/v1/messages": MessageEvent,
}
"""What the events of a stream hold, by the paths that have streams."""


def openapi_file(app: FastAPI) -> dict[str, Any]:
    """Return the file of an application, which is made once."""
    made = app.openapi_schema is not None
    file = FastAPI.openapi(app)
    if not made:
        _, used = models_json_schema(
            [(model, "serialization") for model in _EVENTS.values()], ref_template=_REF
        )
        schemas = file["components"]["schemas"]
        for name, schema in used["$defs"].items():
            schemas.setdefault(name, schema)
        for path, model in _EVENTS.items():
            answer = file["paths"][path]["post"]["responses"]["200"]
            answer["content"]["text/event-stream"] = {"schema": _event(model)}
    return file


def _event(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of an event: JSON, or OpenAI's mark of the end."""
    kinds = [{"$ref": _REF.format(model=name)} for name in (model.__name__, "ErrorBody")]
    json = {"contentMediaType": "application/json", "contentSchema": {"anyOf": kinds}}
    return {
        "type": "object",
        "properties": {
            "event": {"type": "string"},
            "data": {"type": "string", "anyOf": [{"const": "[DONE]"}, json]},
        },
        "required": ["data"],
    }
