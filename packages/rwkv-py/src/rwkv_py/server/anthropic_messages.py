"""`POST /v1/messages` and `/v1/messages/count_tokens`: conversations, in Anthropic's form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, cast

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..chat_format import Message
from ..generation import GenerationOptions
from ..tools import Tool
from .anthropic_blocks import Blocks, InputBlock, system_of, values_of
from .context import Context, ContextOf
from .errors import ApiError, error_body
from .fields import Body, Sampling
from .keys import Asker, asker_of
from .openai_messages import tool_of
from .sse import EventStream, event, while_connected
from .stored_responses import Stored
from .turn import Answer, Effort, Turn, begin_answer, count_prompt_tokens
from .wire import Json

__all__ = ["MessageEvent", "MessagesRequest", "answer_message", "router"]

router = APIRouter()

_PATH = "/v1/messages"
# What our arguments are called here.
_NAMES = {"prompt": "messages", "text": "messages", "stop": "stop_sequences"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class InputMessage(Body):
    """Something that was said."""

    role: Literal["user", "assistant", "system"]
    content: str | list[InputBlock]


class InputTool(Body):
    """A tool that may be called; those that the client does not do itself are left out."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Body):
    """Which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """How much to reason."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class OutputFormat(Body):
    """What the answer must fit."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """How the answer is to be."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountRequest(Sampling):
    """A conversation."""

    model: str | None = None
    messages: list[InputMessage] = Field(min_length=1)
    system: str | list[InputBlock] | None = None
    tools: list[InputTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountRequest):
    """A conversation to go on with."""

    max_tokens: int = Field(ge=1)
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    seed: int | None = None


class OutputBlock(BaseModel):
    """A part of the answer: text, reasoning or a call of a tool."""

    type: Literal["text", "thinking", "tool_use"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class MessageUsage(BaseModel):
    """How many tokens there were; `input_tokens` are those that were read for this answer."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class OutputMessage(BaseModel):
    """The answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[OutputBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(BaseModel):
    """What has become of the answer: an event of a stream."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    ]
    message: OutputMessage | None = None
    index: int | None = None
    content_block: OutputBlock | None = None
    delta: dict[str, Any] | None = None
    usage: MessageUsage | None = None


class TokenCount(BaseModel):
    """How many tokens a conversation has."""

    input_tokens: int


@router.post(_PATH, response_model=OutputMessage)
async def messages(ask: MessagesRequest, request: Request, context: ContextOf) -> Response:
    """Go on with a conversation."""
    asker = asker_of(request.scope)
    if not ask.stream:
        return await while_connected(request, answer_message(ask, context, asker))
    answering = await _begin(ask, context, asker)
    return EventStream(answering.events(), answering.answer.close)


async def answer_message(ask: MessagesRequest, context: Context, asker: Asker) -> Json:
    """Return the whole answer.

    Raises:
        ApiError: it is refused, or writing has failed.
    """
    answering = await _begin(ask, context, asker)
    try:
        return await answering.whole()
    finally:
        answering.answer.close()


async def _begin(ask: MessagesRequest, context: Context, asker: Asker) -> _Answering:
    answer = await begin_answer(_turn(ask), ask.model, context, asker, _NAMES)
    return _Answering(answer, context, asker)


@router.post(f"{_PATH}/count_tokens", response_model=TokenCount)
async def count_tokens(ask: CountRequest, request: Request, context: ContextOf) -> Response:
    """Count the tokens of a conversation."""
    asker = asker_of(request.scope)
    n_tokens = await count_prompt_tokens(_turn(ask), ask.model, context, asker, _NAMES)
    return Json({"input_tokens": n_tokens})


def _turn(ask: CountRequest) -> Turn:
    said: list[Message] = []
    if system := system_of(ask.system):
        said.append(Message(role="system", content=system))
    for i, message in enumerate(ask.messages):
        said += values_of(message.role, message.content, f"messages[{i}]")
    options = cast(GenerationOptions, ask.given())
    seed = None
    if isinstance(ask, MessagesRequest):
        options["max_tokens"] = ask.max_tokens
        options["stop"] = ask.stop_sequences or []
        seed = ask.seed
    fits: Any = {name: value for name in ("grammar", "regex") if (value := getattr(ask, name))}
    if ask.output_config is not None and ask.output_config.format is not None:
        fits["json_schema"] = ask.output_config.format.schema_
    choice = ask.tool_choice
    return Turn(
        messages=tuple(said),
        tools=_tools(ask.tools or []),
        tool_choice=_choice(choice),
        parallel_tool_calls=not (choice is not None and choice.disable_parallel_tool_use),
        effort=_effort(ask),
        fits=fits,
        options=options,
        state=ask.state,
        seed=seed,
    )


def _tools(tools: list[InputTool]) -> tuple[Tool, ...]:
    return tuple(
        tool_of(tool.name, tool.description, tool.input_schema, f"tools[{i}]")
        for i, tool in enumerate(tools)
        if tool.type in (None, "custom")
    )


def _choice(choice: ToolChoice | None) -> str:
    if choice is None:
        return "auto"
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if choice.name is None:
        raise ApiError(400, "tool_choice.name: expected the name of a tool, got none")
    return choice.name


def _effort(ask: CountRequest) -> Effort | None:
    """Return how much to reason: the budget, which we do not count, says roughly."""
    if ask.output_config is not None and ask.output_config.effort is not None:
        effort = ask.output_config.effort
        return "xhigh" if effort == "max" else effort
    if ask.thinking is None or ask.thinking.type == "adaptive":
        return None
    if ask.thinking.type == "disabled":
        return "none"
    budget = ask.thinking.budget_tokens or 4096
    return "low" if budget < 2048 else "medium" if budget < 8192 else "high"


class _Answering:
    """An answer being written, in Anthropic's form.

    Attributes:
        answer: what is written; to be closed.
    """

    def __init__(self, answer: Answer, context: Context, asker: Asker):
        self.answer = answer
        self._context = context
        self._asker = asker
        self._blocks = Blocks(asker.marks)
        self._head = {
            "id": asker.marks.new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": answer.served.name,
        }

    async def whole(self) -> Json:
        """Return the response."""
        await self.answer.writing.ended()
        ended = ""
        async for piece in self.answer.pieces():
            for part in piece.parts:
                self._blocks.take(part)
            ended = piece.ended or ended
        self._blocks.end()
        self._keep()
        return Json(
            {
                **self._head,
                "content": self._blocks.written,
                **self._ending(ended),
                "usage": self._usage(),
            }
        )

    async def events(self) -> AsyncIterator[bytes]:
        """Return the events."""

        def named(data: dict[str, Any]) -> bytes:
            return event(data, data["type"])

        begin: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        yield named({"type": "message_start", "message": {**begin, "usage": self._usage()}})
        yield named({"type": "ping"})
        try:
            async for piece in self.answer.pieces():
                for part in piece.parts:
                    for data in self._blocks.take(part):
                        yield named(data)
                if piece.ended is not None:
                    self._keep()
                    for data in self._blocks.end():
                        yield named(data)
                    delta = self._ending(piece.ended)
                    yield named({"type": "message_delta", "delta": delta, "usage": self._usage()})
        except ApiError as error:
            yield named(error_body(_PATH, error))
            return
        yield named({"type": "message_stop"})

    def _keep(self) -> None:
        if not self._asker.keeps:
            return
        name: str = self._head["id"]
        self._context.endings.keep(
            Stored(id=name, owner=self._asker.owner, ending=self.answer.ending())
        )

    def _ending(self, ended: str) -> dict[str, Any]:
        stopped_by = self.answer.stopped_by()
        reason = {"length": "max_tokens", "tool_calls": "tool_use"}.get(ended, "end_turn")
        if reason == "end_turn" and stopped_by is not None:
            reason = "stop_sequence"
        stop_sequence = stopped_by if reason == "stop_sequence" else None
        return {"stop_reason": reason, "stop_sequence": stop_sequence}

    def _usage(self) -> dict[str, int]:
        writing = self.answer.writing
        n_cached = self._asker.marks.cached(writing.n_cached_tokens)
        return {
            "input_tokens": writing.n_prompt_tokens - n_cached,
            "output_tokens": writing.n_written_tokens,
            "cache_read_input_tokens": n_cached,
            "cache_creation_input_tokens": 0,
        }
