"""`POST /v1/responses`: conversations, of which the server remembers what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..chat_format import Message
from ..generation import GenerationOptions
from ..tools import ToolCall
from .context import Context, ContextOf
from .errors import ApiError, error_body
from .fields import Body, OpenAISampling
from .keys import Asker, asker_of
from .openai_messages import ContentPart, ResponseFormat, fits_of, text_of, tool_of
from .response_items import Items
from .sse import EventStream, event, while_connected
from .stored_responses import Stored
from .turn import Answer, Effort, Turn, begin_answer
from .wire import Json

__all__ = ["ResponseEvent", "ResponseRequest", "answer_response", "router"]

router = APIRouter()

_PATH = "/v1/responses"
# What our arguments are called here.
_NAMES = {"prompt": "input", "text": "input", "messages": "input", "json_schema": "text"}


class InputItem(Body):
    """Something that was said, a call of a tool, or what it gave."""

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[ContentPart] | None = None


class FunctionTool(Body):
    """A tool; those that are no functions are left out, since nobody here does them."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class NamedTool(Body):
    """The function that must be called."""

    type: Literal["function"]
    name: str


class TextFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class TextWishes(Body):
    """How the answer is to be."""

    format: TextFormat | None = None


class Reasoning(Body):
    """How much to reason."""

    effort: Effort | None = None


class ResponseRequest(OpenAISampling):
    """A conversation to go on with, or what is said next in one that the server remembers."""

    model: str | None = None
    input: str | list[InputItem]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    store: bool | None = None
    stream: bool | None = None
    text: TextWishes | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None


class ResponseObject(BaseModel):
    """The answer, and what was asked."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


class ResponseEvent(BaseModel):
    """What has become of the answer: an event of a stream."""

    type: str = Field(pattern=r"^response\.")
    sequence_number: int
    response: ResponseObject | None = None
    output_index: int | None = None
    item_id: str | None = None
    item: dict[str, Any] | None = None
    delta: str | None = None


class Deleted(BaseModel):
    """A response that is not kept any more."""

    id: str
    object: Literal["response"]
    deleted: bool


@router.post(_PATH, response_model=ResponseObject)
async def respond(ask: ResponseRequest, request: Request, context: ContextOf) -> Response:
    """Go on with a conversation."""
    asker = asker_of(request.scope)
    if not ask.stream:
        return await while_connected(request, answer_response(ask, context, asker))
    responding = await _begin(ask, context, asker)
    return EventStream(responding.events(), responding.answer.close)


async def answer_response(ask: ResponseRequest, context: Context, asker: Asker) -> Json:
    """Return the whole answer.

    Raises:
        ApiError: it is refused, or writing has failed.
    """
    responding = await _begin(ask, context, asker)
    try:
        return await responding.whole()
    finally:
        responding.answer.close()


async def _begin(ask: ResponseRequest, context: Context, asker: Asker) -> _Responding:
    before = None
    if ask.previous_response_id is not None:
        if ask.state is not None:
            message = "state: expected none with previous_response_id, whose state it is, got one"
            raise ApiError(400, message)
        name = ask.previous_response_id
        before = context.responses.find(name, asker.owner, field="previous_response_id")
    said = _said(ask, () if before is None else before.messages)
    turn = _turn(ask, said, ask.state if before is None else before.ending.state)
    answer = await begin_answer(turn, ask.model, context, asker, _NAMES)
    return _Responding(ask, answer, said, asker, context)


@router.get(f"{_PATH}/{{response_id}}", response_model=ResponseObject)
async def show(response_id: str, request: Request, context: ContextOf) -> Response:
    """Return a response that is kept."""
    return Json(context.responses.find(response_id, asker_of(request.scope).owner).response)


@router.delete(f"{_PATH}/{{response_id}}", response_model=Deleted)
async def delete(response_id: str, request: Request, context: ContextOf) -> Response:
    """Forget a response."""
    context.responses.delete(response_id, asker_of(request.scope).owner)
    return Json({"id": response_id, "object": "response", "deleted": True})


def _said(ask: ResponseRequest, before: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return what was said up to now, without the instructions."""
    if isinstance(ask.input, str):
        return (*before, Message(role="user", content=ask.input))
    said = list(before)
    for i, item in enumerate(ask.input):
        message = _message_of(item, f"input[{i}]")
        if message is None:
            continue
        if message.tool_calls and said and said[-1].role == "assistant":  # of the same answer
            last = said.pop()
            calls = (*last.tool_calls, *message.tool_calls)
            message = Message(role="assistant", content=last.content, tool_calls=calls)
        said.append(message)
    return tuple(said)


def _message_of(item: InputItem, where: str) -> Message | None:
    kind = item.type or "message"
    if kind == "message":
        if item.role is None:
            raise ApiError(400, f"{where}.role: expected who said it, got none")
        role = "system" if item.role == "developer" else item.role
        return Message(role=role, content=text_of(item.content, f"{where}.content"))
    if kind == "function_call":
        call = ToolCall(name=item.name or "", arguments=item.arguments or "", id=item.call_id or "")
        return Message(role="assistant", content="", tool_calls=(call,))
    if kind == "function_call_output":
        return Message(role="tool", content=text_of(item.output, f"{where}.output"))
    if kind == "reasoning":  # which is not remembered
        return None
    raise ApiError(
        400,
        f"{where}.type: expected message, function_call, function_call_output or reasoning, got "
        f"{kind[:60]}",
    )


def _turn(ask: ResponseRequest, said: tuple[Message, ...], state: str | None) -> Turn:
    options: GenerationOptions = ask.options()
    if ask.max_output_tokens is not None:
        options["max_tokens"] = ask.max_output_tokens
    instructions: tuple[Message, ...] = ()
    if ask.instructions:
        instructions = (Message(role="system", content=ask.instructions),)
    wanted = None
    if ask.text is not None and ask.text.format is not None:
        form = ask.text.format
        schema = {"name": form.name, "schema": form.schema_}
        wanted = ResponseFormat.model_validate({"type": form.type, "json_schema": schema})
    choice = ask.tool_choice
    return Turn(
        messages=(*instructions, *said),
        tools=tuple(
            tool_of(tool.name or "", tool.description, tool.parameters, f"tools[{i}]")
            for i, tool in enumerate(ask.tools or ())
            if tool.type == "function"
        ),
        tool_choice=choice.name if isinstance(choice, NamedTool) else choice or "auto",
        parallel_tool_calls=ask.parallel_tool_calls is not False,
        effort=ask.reasoning.effort if ask.reasoning is not None else None,
        fits=fits_of(wanted, ask.grammar, ask.regex),
        options=options,
        state=state,
        seed=ask.seed,
    )


class _Responding:
    """An answer being written, in the form of responses.

    Attributes:
        answer: what is written; to be closed.
    """

    def __init__(
        self,
        ask: ResponseRequest,
        answer: Answer,
        said: tuple[Message, ...],
        asker: Asker,
        context: Context,
    ):
        self._ask = ask
        self.answer = answer
        self._said = said
        self._asker = asker
        self._context = context
        self._stores = ask.store is not False and asker.keeps
        self._items = Items(asker.marks)
        fields = ask.model_dump(mode="json", by_alias=True)
        self._head = {
            "id": asker.marks.new_id("resp_"),
            "object": "response",
            "created_at": asker.marks.created,
            "model": answer.served.name,
            "error": None,
            "parallel_tool_calls": ask.parallel_tool_calls is not False,
            "store": self._stores,
            "text": fields["text"] or {"format": {"type": "text"}},
            "tool_choice": fields["tool_choice"] or "auto",
            "tools": fields["tools"] or [],
            "metadata": ask.metadata or {},
            "truncation": "disabled",
            **{
                name: fields[name]
                for name in ("instructions", "max_output_tokens", "previous_response_id")
            },
            **{name: fields[name] for name in ("reasoning", "temperature", "top_p")},
        }

    async def whole(self) -> Json:
        """Return the response."""
        await self.answer.writing.ended()
        ended = ""
        async for piece in self.answer.pieces():
            for part in piece.parts:
                self._items.take(part)
            ended = piece.ended or ended
        self._items.end(_status(ended))
        return Json(self._finished(ended))

    async def events(self) -> AsyncIterator[bytes]:
        """Return the events."""
        number = 0

        def named(data: dict[str, Any]) -> bytes:
            nonlocal number
            number += 1
            return event({**data, "sequence_number": number - 1}, data["type"])

        begin = self._response("in_progress", None)
        yield named({"type": "response.created", "response": begin})
        yield named({"type": "response.in_progress", "response": begin})
        ended = ""
        try:
            async for piece in self.answer.pieces():
                for part in piece.parts:
                    for data in self._items.take(part):
                        yield named(data)
                ended = piece.ended or ended
        except ApiError as error:
            failed = self._response("failed", None)
            facts = error_body(_PATH, error)["error"]
            code = facts["code"] or facts["type"]
            failed["error"] = {"code": code, "message": facts["message"]}
            yield named({"type": "response.failed", "response": failed})
            return
        for data in self._items.end(_status(ended)):
            yield named(data)
        yield named({"type": f"response.{_status(ended)}", "response": self._finished(ended)})

    def _response(self, status: str, usage: dict[str, Any] | None) -> dict[str, Any]:
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            **self._head,
            "status": status,
            "incomplete_details": reason,
            "output": self._items.written,
            "usage": usage,
        }

    def _finished(self, ended: str) -> dict[str, Any]:
        """Return the whole response, having kept it."""
        writing = self.answer.writing
        usage = {
            "input_tokens": writing.n_prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": self._asker.marks.cached(writing.n_cached_tokens)
            },
            "output_tokens": writing.n_written_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens()},
            "total_tokens": writing.n_prompt_tokens + writing.n_written_tokens,
        }
        response = self._response(_status(ended), usage)
        if self._stores:
            calls = tuple(
                ToolCall(name=item["name"], arguments=item["arguments"], id=item["call_id"])
                for item in self._items.written
                if item["type"] == "function_call"
            )
            answer = Message(role="assistant", content=self._items.text, tool_calls=calls)
            self._context.responses.keep(
                Stored(
                    id=response["id"],
                    owner=self._asker.owner,
                    ending=self.answer.ending(),
                    response=response,
                    messages=(*self._said, answer),
                )
            )
        return response

    def _reasoning_tokens(self) -> int:
        encode = self.answer.served.tokenizer.encode
        return sum(
            len(encode(content["text"]))
            for item in self._items.written
            if item["type"] == "reasoning"
            for content in item["content"]
        )


def _status(ended: str) -> str:
    return "incomplete" if ended == "length" else "completed"
