"""What every route needs: the models, the settings, what is counted and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from .metrics import Metrics
from .models import Models
from .settings import Settings
from .state_store import StateStore
from .stored_responses import StoredResponses
from .turns import Turns

__all__ = ["Context", "ContextOf"]


@dataclass(frozen=True)
class Context:
    """What every route needs."""

    settings: Settings
    models: Models
    metrics: Metrics
    responses: StoredResponses
    endings: StoredResponses  # of what is not asked for again but to keep its state
    states: StateStore
    embedding: Turns


def _context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextOf = Annotated[Context, Depends(_context_of)]
"""As the type of a route's parameter: the context of the server that was asked."""
