"""`/v1/batches`: files of requests, answered beside what clients wait for."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from .batch_answers import URLS
from .batch_runs import BatchRunsOf
from .errors import ApiError
from .fields import Body
from .keys import asker_of
from .lists import listed
from .wire import Json

__all__ = ["router"]

router = APIRouter()

_PATH = "/v1/batches"


class BatchRequest(Body):
    """A file of requests to answer."""

    input_file_id: str
    endpoint: str = Field(json_schema_extra={"enum": list(URLS)})
    completion_window: str = Field(
        pattern=r"^[1-9][0-9]{0,3}[hd]$", description="After which it ends as it is: 24h, or 7d."
    )
    metadata: dict[str, str] | None = Field(None, max_length=16)


class BatchError(BaseModel):
    """What is wrong with a whole batch."""

    code: str
    message: str
    line: int | None
    param: str | None


class BatchErrors(BaseModel):
    """The same, as a list."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(BaseModel):
    """How far it is."""

    total: int
    completed: int
    failed: int


class Batch(BaseModel):
    """A file of requests, and how far it is answered."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """Batches, the newest first."""

    object: Literal["list"]
    data: list[Batch]
    has_more: bool
    first_id: str | None
    last_id: str | None


@router.post(_PATH, response_model=Batch)
async def create(ask: BatchRequest, request: Request, runs: BatchRunsOf) -> Response:
    """Answer a file of requests, as far as there is time beside what clients wait for."""
    owner = asker_of(request.scope).owner
    if ask.endpoint not in URLS:
        raise ApiError(
            400, f"endpoint: expected one of {', '.join(URLS)}, got {ask.endpoint[:80]!r}"
        )
    file = runs.store.find(ask.input_file_id, owner, field="input_file_id")
    if file.purpose != "batch":
        raise ApiError(400, "input_file_id: expected a file with purpose batch, got another")
    return Json(runs.create(ask.model_dump(), owner))


@router.get(_PATH, response_model=BatchList)
async def list_batches(
    request: Request,
    runs: BatchRunsOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The last id of the list before.")] = None,
) -> Response:
    """List batches."""
    found = runs.all(asker_of(request.scope).owner)
    return Json(listed(found, limit, "desc", after))


@router.get(f"{_PATH}/{{batch_id}}", response_model=Batch)
async def show(batch_id: str, request: Request, runs: BatchRunsOf) -> Response:
    """Tell how far a batch is."""
    return Json(runs.find(batch_id, asker_of(request.scope).owner))


@router.post(f"{_PATH}/{{batch_id}}/cancel", response_model=Batch)
async def cancel(batch_id: str, request: Request, runs: BatchRunsOf) -> Response:
    """Answer no more of a batch; what was answered is kept."""
    owner = asker_of(request.scope).owner
    return Json(runs.cancel(batch_id, owner))
