"""`/v1/states`: what a model remembers, kept to begin there again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ValidationError, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from ..state_folder import SavedState
from .context import Context, ContextOf
from .errors import ApiError, from_validation
from .forms import form_with_file
from .keys import asker_of
from .sse import while_connected
from .state_making import Labels, StateRequest, keep_state, keep_uploaded
from .state_store import fingerprint_of, labelled
from .wire import Json

__all__ = ["router"]

router = APIRouter()

_PATH = "/v1/states"
_OCTETS = "application/octet-stream"
_FORM = "multipart/form-data"
_MAX_LISTED = 1000

_BINARY = {"type": "string", "format": "binary"}
_FORM_SCHEMA = {
    "type": "object",
    "properties": {"file": _BINARY, "model": {"type": "string"}, "name": {"type": "string"}},
    "required": ["file"],
}

# The bytes of a body that is no JSON; in JSON nothing stands for them.
_File = Annotated[bytes, WithJsonSchema({"not": {}})]


class _Upload(Labels):
    """What is said of a file."""

    model: str | None = None


class StateFacts(BaseModel):
    """A state that is kept; `tokens` were read up to it, which is not known of an uploaded one."""

    id: str
    object: Literal["state"]
    created: int
    model: str
    fingerprint: str
    tokens: int | None
    bytes: int
    name: str | None
    metadata: dict[str, str]


class StateList(BaseModel):
    """States, the oldest first."""

    object: Literal["list"]
    data: list[StateFacts]
    has_more: bool
    first_id: str | None
    last_id: str | None


class StateDeleted(BaseModel):
    """A state that is not kept any more."""

    id: str
    object: Literal["state"]
    deleted: bool


@router.post(
    _PATH,
    response_model=StateFacts,
    openapi_extra={
        "requestBody": {"content": {_OCTETS: {"schema": _BINARY}, _FORM: {"schema": _FORM_SCHEMA}}}
    },
)
async def create(
    request: Request,
    context: ContextOf,
    ask: Annotated[StateRequest | _File, Body(description="What to read, or a state file.")],
    model: Annotated[str | None, Query(description="Of an uploaded state.")] = None,
    name: Annotated[str | None, Query(description="The same.", max_length=200)] = None,
) -> Response:
    """Keep what a model remembers: of a response, of what it reads now, or of a state file.

    A file comes as octets, or in a form.
    """
    asker = asker_of(request.scope)
    if isinstance(ask, StateRequest):

        async def kept() -> Response:
            return Json(_facts(await keep_state(ask, context, asker)))

        return await while_connected(request, kept())
    kind = request.headers.get("content-type", "none")
    media_type = kind.partition(";")[0].strip().lower()
    if media_type == _FORM:
        return Json(_facts(await _keep_form(request, model, name, context)))
    if media_type != _OCTETS:
        if "json" in kind:
            raise ApiError(400, "body: expected an object, got a string")
        message = f"content-type: expected application/json, {_OCTETS} or {_FORM}, got {kind[:80]}"
        raise ApiError(400, message)
    labels = Labels(name=name, metadata=None)
    return Json(_facts(await keep_uploaded(ask, model, labels, context, asker)))


@router.get(_PATH, response_model=StateList)
async def list_states(
    request: Request,
    context: ContextOf,
    limit: Annotated[int, Query(ge=1, le=_MAX_LISTED)] = 100,
    after: Annotated[str | None, Query(description="The last id of the list before.")] = None,
) -> Response:
    """List the states that are kept."""
    states = await context.states.saved(asker_of(request.scope).owner)
    names = [_name_of(state) for state in states]
    if after is not None:
        if after not in names:
            raise ApiError(400, f"after: expected a state that is kept, got {after[:80]!r}")
        states = states[names.index(after) + 1 :]
    data = [_facts(state) for state in states[:limit]]
    return Json(
        {
            "object": "list",
            "data": data,
            "has_more": len(states) > limit,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }
    )


@router.get(f"{_PATH}/{{state_id}}", response_model=StateFacts)
async def show(state_id: str, request: Request, context: ContextOf) -> Response:
    """Tell of a state."""
    return Json(_facts(await _find(state_id, request, context)))


@router.get(
    f"{_PATH}/{{state_id}}/content",
    response_class=Response,
    responses={200: {"content": {_OCTETS: {"schema": _BINARY}}}},
)
async def content(state_id: str, request: Request, context: ContextOf) -> Response:
    """Return a state as a file, which can be uploaded again, or loaded by `Session.load_state`."""
    state = await _find(state_id, request, context)
    data = await context.states.content(state)
    file = f'attachment; filename="{_name_of(state)}.state"'
    return Response(data, media_type=_OCTETS, headers={"Content-Disposition": file})


@router.post(f"{_PATH}/{{state_id}}/fork", response_model=StateFacts)
async def fork(
    state_id: str, request: Request, context: ContextOf, ask: Labels | None = None
) -> Response:
    """Keep a state once more, which is deleted by itself; what is not given stays the same."""
    state = await _find(state_id, request, context)
    given = {} if ask is None else ask.model_dump(exclude_none=True)
    notes = labelled({**state.notes, **given})
    return Json(_facts(await context.states.fork(state, notes)))


@router.delete(f"{_PATH}/{{state_id}}", response_model=StateDeleted)
async def delete(state_id: str, request: Request, context: ContextOf) -> Response:
    """Delete a state; what began there goes on."""
    state = await _find(state_id, request, context)
    await context.states.delete(state)
    return Json({"id": _name_of(state), "object": "state", "deleted": True})


async def _keep_form(
    request: Request, model: str | None, name: str | None, context: Context
) -> SavedState:
    """Keep the file of a form, which may say `model` and `name` too."""
    async with form_with_file(request, "a state file") as (file, fields):
        data = await file.read()
    said = {"name": name, **{key: fields[key] for key in ("model", "name") if key in fields}}
    try:
        upload = _Upload.model_validate({"model": model, **said})
    except ValidationError as error:
        raise from_validation(error.errors()) from None
    asker = asker_of(request.scope)
    return await keep_uploaded(data, upload.model, upload, context, asker)


async def _find(name: str, request: Request, context: Context) -> SavedState:
    return await context.states.find(name, asker_of(request.scope).owner, field="state_id")


def _name_of(state: SavedState) -> str:
    return f"state_{state.id}"


def _facts(state: SavedState) -> dict[str, Any]:
    notes = state.notes
    return {
        "id": _name_of(state),
        "object": "state",
        "created": notes["created"],
        "model": notes["model"],
        "fingerprint": fingerprint_of(state.model),
        "tokens": notes["tokens"],
        "bytes": state.n_bytes,
        "name": notes["name"],
        "metadata": notes["metadata"],
    }
