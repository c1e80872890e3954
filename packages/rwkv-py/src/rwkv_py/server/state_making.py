"""What a state is made of that is to be kept: a response, a prompt, messages, a file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..conversation import write_history
from ..errors import RwkvError
from ..state_folder import SavedState, StateFolder
from .context import Context
from .errors import ApiError, api_error
from .fields import Body
from .keys import Asker
from .models import Served
from .openai_messages import (
    ChatMessage,
    ToolChoice,
    ToolDefinition,
    choice_of,
    messages_of,
    tools_of,
)
from .state_store import fingerprint_of, labelled
from .stored_responses import Ending
from .writing import Ask, begin_writing

__all__ = ["Labels", "StateRequest", "keep_state", "keep_uploaded"]


class Labels(Body):
    """What whoever keeps a state calls it."""

    name: str | None = Field(None, max_length=200)
    metadata: dict[str, str] | None = Field(None, max_length=16)


class StateRequest(Labels):
    """What the model is to remember: of a response, or of a prompt or messages after a state."""

    model: str | None = None
    response_id: str | None = Field(None, description="The response that it ended in.")
    choice: int = Field(0, ge=0, description="Which text of the response.")
    state: str | None = Field(None, description="The state to begin at, by its id.")
    prompt: str | list[int] | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None


async def keep_state(ask: StateRequest, context: Context, asker: Asker) -> SavedState:
    """Let the model read, and keep what it remembers then.

    Raises:
        ApiError: something about it is refused.
    """
    given = [
        name for name in ("response_id", "prompt", "messages") if getattr(ask, name) is not None
    ]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise ApiError(400, f"body: expected one of response_id, prompt and messages, got {got}")
    model, name, ending = ask.model, ask.state, None
    if ask.response_id is not None:
        ending = _ending_of(ask, ask.response_id, context, asker)
        model, name = ending.model, ending.state
    lease = await context.models.lease(model)
    served, names = lease.served, dict.fromkeys(("prompt", "text", "tokens"), given[0])
    try:
        before = None if name is None else await context.states.find(name, asker.owner)
        told = None if before is None else before.notes["told"]
        if ending is not None:
            _check_model(ending, served)
            read, told = ending.read[ask.choice], ending.told
        elif ask.messages is not None:
            text, told = write_history(
                served.chat_format,
                messages_of(ask.messages),
                tools=tools_of(ask.tools),
                tool_choice=choice_of(ask.tool_choice),
                after=None if before is None else told or "",
            )
            read = (text,)
        else:
            read = (ask.prompt or "",)
        session = None if before is None else await context.states.session(before, served)
    except BaseException as error:
        lease.release()
        if isinstance(error, RwkvError):
            raise api_error(error, names) from error
        raise
    prompt, opening = (*read, "")[:2]
    reading = Ask(
        prompt=prompt,
        opening=opening,
        session=session,
        keep_session=True,
        options={"max_tokens": 0},
    )
    writing = await begin_writing(
        lease, [reading], context.settings, context.metrics, asker.share, names
    )
    try:
        async for _ in writing.pieces():
            pass
        (request,) = writing.requests
        if request.finish_reason == "cancelled":
            raise ApiError(
                503,
                "server: expected to read it in time, got none",
                code="timeout",
                retry_after=lease.served.engine.seconds_to_begin,
            )
        n_before = 0 if before is None else before.notes["tokens"]
        n_read = request.n_prompt_tokens or int(before is None)  # what begins a document
        notes = _notes(ask, asker, served, told)
        notes["tokens"] = None if n_before is None else n_before + n_read
        return await context.states.save(request.session, labelled(notes))
    finally:
        writing.close()


async def keep_uploaded(
    data: bytes, model: str | None, labels: Labels, context: Context, asker: Asker
) -> SavedState:
    """Keep the state in a state file.

    Raises:
        ApiError: it is none of that model, or there is no room.
    """
    lease = await context.models.lease(model)
    try:
        notes = {**_notes(labels, asker, lease.served, None), "tokens": None}
        return await context.states.add(lease.served, data, labelled(notes))
    finally:
        lease.release()


def _ending_of(ask: StateRequest, name: str, context: Context, asker: Asker) -> Ending:
    if ask.state is not None:
        raise ApiError(400, "state: expected none with response_id, whose state it is, got one")
    kept = context.responses if name.startswith("resp_") else context.endings
    ending = kept.find(name, asker.owner).ending
    if ask.choice >= len(ending.read):
        most = len(ending.read) - 1
        raise ApiError(400, f"choice: expected at most {most}, got {ask.choice}")
    if ask.model not in (None, ending.model):
        raise ApiError(
            400, f"model: expected {ending.model}, which wrote it, or none, got {ask.model[:100]!r}"
        )
    return ending


def _check_model(ending: Ending, served: Served) -> None:
    own, whose = (
        fingerprint_of(name) for name in (StateFolder.model_name(served.model), ending.whose)
    )
    if own != whose:
        raise ApiError(
            400,
            f"response_id: expected one of the model {served.name}, whose fingerprint is {own}, "
            f"got one of a model with fingerprint {whose}",
            code="state_of_another_model",
        )


def _notes(labels: Labels, asker: Asker, served: Served, told: str | None) -> dict[str, Any]:
    given = {"name": labels.name, "metadata": labels.metadata or {}}
    return {"owner": asker.owner, "model": served.name, "told": told, **given}
