"""`GET /health` and `GET /metrics`: for whoever runs the server."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from .context import ContextOf
from .wire import Json

__all__ = ["router"]

router = APIRouter()


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok"]


@router.get("/health", response_model=Health)
async def health() -> Response:
    """Say that the server answers."""
    return Json({"status": "ok"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(context: ContextOf) -> Response:
    """Tell what was counted, as Prometheus reads it."""
    return Response(context.metrics.write(), media_type="text/plain; version=0.0.4; charset=utf-8")
