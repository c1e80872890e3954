"""`/v1/files`: files of requests for batches, and the answers that come of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from .batch_runs import BatchRuns, BatchRunsOf
from .errors import ApiError
from .file_store import StoredFile
from .forms import form_with_file
from .keys import asker_of
from .lists import Order, listed
from .wire import Json

__all__ = ["router"]

router = APIRouter()

_PATH = "/v1/files"
_OCTETS = "application/octet-stream"
_BINARY = {"type": "string", "format": "binary"}
_FORM_SCHEMA = {
    "type": "object",
    "properties": {"file": _BINARY, "purpose": {"enum": ["batch"]}},
    "required": ["file", "purpose"],
}


class FileFacts(BaseModel):
    """A file that is kept."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class FileList(BaseModel):
    """Files."""

    object: Literal["list"]
    data: list[FileFacts]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FileDeleted(BaseModel):
    """A file that is not kept any more."""

    id: str
    object: Literal["file"]
    deleted: bool


@router.post(
    _PATH,
    response_model=FileFacts,
    openapi_extra={
        "requestBody": {
            "content": {"multipart/form-data": {"schema": _FORM_SCHEMA}},
            "required": True,
        }
    },
)
async def upload(request: Request, runs: BatchRunsOf) -> Response:
    """Keep a file of requests: JSON, one a line."""
    store = runs.store
    owner = asker_of(request.scope).owner
    async with form_with_file(request, "a file of requests") as (file, fields):
        purpose = fields.get("purpose")
        if purpose != "batch":
            got = "none" if purpose is None else repr(purpose[:80])
            raise ApiError(400, f"purpose: expected 'batch', got {got}")
        with store.arriving(file.size or 0, owner):
            writing = asyncio.create_task(asyncio.to_thread(store.write, file.file))
            try:
                id = await asyncio.shield(writing)
            except OSError:
                message = "files: expected a disk that works, got a failure"
                raise ApiError(503, message, retry_after=1) from None
            return Json(_facts(store.add(id, owner, file.filename or "requests.jsonl", "batch")))


@router.get(_PATH, response_model=FileList)
async def list_files(
    request: Request,
    runs: BatchRunsOf,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10000)] = 10000,
    order: Order = "desc",
    after: Annotated[str | None, Query(description="The last id of the list before.")] = None,
) -> Response:
    """List the files that are kept."""
    found = runs.store.files(asker_of(request.scope).owner, purpose)
    return Json(listed([_facts(file) for file in found], limit, order, after))


@router.get(f"{_PATH}/{{file_id}}", response_model=FileFacts)
async def show(file_id: str, request: Request, runs: BatchRunsOf) -> Response:
    """Tell of a file."""
    return Json(_facts(_find(file_id, request, runs)))


@router.get(
    f"{_PATH}/{{file_id}}/content",
    response_class=Response,
    responses={200: {"content": {_OCTETS: {"schema": _BINARY}}}},
)
async def content(file_id: str, request: Request, runs: BatchRunsOf) -> Response:
    """Return what is in a file."""
    file = _find(file_id, request, runs)
    path = runs.store.path_of(file.id)
    if not path.is_file():
        raise ApiError(404, f"file_id: expected a file that is kept, got {file_id[:80]!r}")
    return FileResponse(path, media_type=_OCTETS, filename=f"{file.id}.jsonl")


@router.delete(f"{_PATH}/{{file_id}}", response_model=FileDeleted)
async def delete(file_id: str, request: Request, runs: BatchRunsOf) -> Response:
    """Delete a file."""
    file = _find(file_id, request, runs)
    runs.store.delete(file.id)
    return Json({"id": file.id, "object": "file", "deleted": True})


def _find(id: str, request: Request, runs: BatchRuns) -> StoredFile:
    return runs.store.find(id, asker_of(request.scope).owner)


def _facts(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.n_bytes,
        "created_at": file.created,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }
