"""`POST /v1/chat/completions`: going on with conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..answer_reader import AnswerPart
from ..probabilities import TokenProbability
from .context import Context, ContextOf
from .errors import ApiError, error_body
from .fields import Body, OpenAISampling, TokenDetails
from .keys import Asker, asker_of
from .marks import Marks
from .openai_logprobs import ChatLogprobs, chat_logprobs
from .openai_messages import (
    ChatMessage,
    ResponseFormat,
    ToolChoice,
    ToolDefinition,
    choice_of,
    fits_of,
    messages_of,
    tools_of,
)
from .sse import DONE, EventStream, event, while_connected
from .stored_responses import Stored
from .turn import Answer, Effort, Turn, begin_answer
from .wire import Json

__all__ = ["ChatChunk", "ChatRequest", "answer_chat", "router"]

router = APIRouter()

_PATH = "/v1/chat/completions"

# What our arguments are called here.
_NAMES = {"prompt": "messages", "text": "messages", "json_schema": "response_format"}


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool | None = None


class ChatRequest(OpenAISampling):
    """A conversation to go on with."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=0)
    max_completion_tokens: int | None = Field(None, ge=0)
    n: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None


class CalledFunction(BaseModel):
    """What is called."""

    name: str
    arguments: str


class Call(BaseModel):
    """A call that the assistant makes."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatAnswer(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class ChatChoice(BaseModel):
    """An answer."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatUsage(BaseModel):
    """How many tokens there were."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class ChatCompletion(BaseModel):
    """The answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class CalledFunctionDelta(BaseModel):
    """More of what is called."""

    name: str | None = None
    arguments: str


class CallDelta(BaseModel):
    """A call, or more of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunctionDelta


class ChatDelta(BaseModel):
    """What the assistant says next."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChatChunkChoice(BaseModel):
    """More of an answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatChunk(BaseModel):
    """More of the answers: an event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: ChatUsage | None = None


@router.post(_PATH, response_model=ChatCompletion)
async def chat(ask: ChatRequest, request: Request, context: ContextOf) -> Response:
    """Go on with a conversation."""
    asker = asker_of(request.scope)
    if not ask.stream:
        return await while_connected(request, answer_chat(ask, context, asker))
    chatting = await _begin(ask, context, asker)
    return EventStream(chatting.events(), chatting.answer.close)


async def answer_chat(ask: ChatRequest, context: Context, asker: Asker) -> Json:
    """Return the whole answer.

    Raises:
        ApiError: it is refused, or writing has failed.
    """
    chatting = await _begin(ask, context, asker)
    try:
        return await chatting.whole()
    finally:
        chatting.answer.close()


async def _begin(ask: ChatRequest, context: Context, asker: Asker) -> _Chatting:
    answer = await begin_answer(_turn(ask, context), ask.model, context, asker, _NAMES)
    return _Chatting(ask, answer, context, asker)


def _turn(ask: ChatRequest, context: Context) -> Turn:
    n = ask.n or 1
    if n > context.settings.max_choices:
        raise ApiError(400, f"n: expected at most {context.settings.max_choices}, got {n}")
    if ask.top_logprobs is not None and not ask.logprobs:
        raise ApiError(400, "top_logprobs: expected none without logprobs, got some")
    options = ask.options()
    most = ask.max_tokens if ask.max_completion_tokens is None else ask.max_completion_tokens
    if most is not None:
        options["max_tokens"] = most
    return Turn(
        messages=messages_of(ask.messages),
        tools=tools_of(ask.tools),
        tool_choice=choice_of(ask.tool_choice),
        parallel_tool_calls=ask.parallel_tool_calls is not False,
        effort=ask.reasoning_effort,
        fits=fits_of(ask.response_format, ask.grammar, ask.regex),
        options=options,
        state=ask.state,
        n=n,
        seed=ask.seed,
        logprobs=(ask.top_logprobs or 0) if ask.logprobs else None,
    )


class _Message:
    """A message of the assistant, of the parts that have come."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self.texts: dict[str, list[str]] = {"thinking": [], "answer": []}
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[TokenProbability] = []
        self.finish_reason: str | None = None

    def take(self, part: AnswerPart) -> None:
        """Let a part come next."""
        if part.kind == "call":
            function = {"name": part.text, "arguments": ""}
            name = self._marks.new_id("call_")
            self.calls.append({"id": name, "type": "function", "function": function})
        elif part.kind == "arguments":
            self.calls[part.index]["function"]["arguments"] += part.text
        else:
            self.texts[part.kind].append(part.text)

    def write(self) -> dict[str, Any]:
        """Return the message."""
        content = "".join(self.texts["answer"])
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self.calls and not content else content,
            "refusal": None,
        }
        if self.texts["thinking"]:
            message["reasoning_content"] = "".join(self.texts["thinking"])
        if self.calls:
            message["tool_calls"] = self.calls
        return message


class _Chatting:
    """Answers being written, in OpenAI's form.

    Attributes:
        answer: what is written; to be closed.
    """

    def __init__(self, ask: ChatRequest, answer: Answer, context: Context, asker: Asker):
        self._ask = ask
        self.answer = answer
        self._context = context
        self._asker = asker
        self._n = len(answer.writing.requests)
        self._head = {
            "id": asker.marks.new_id("chatcmpl-"),
            "object": "chat.completion.chunk" if ask.stream else "chat.completion",
            "created": asker.marks.created,
            "model": answer.served.name,
        }

    async def whole(self) -> Json:
        """Return the response."""
        await self.answer.writing.ended()
        messages = [_Message(self._asker.marks) for _ in range(self._n)]
        async for piece in self.answer.pieces():
            message = messages[piece.number]
            for part in piece.parts:
                message.take(part)
            message.logprobs += piece.logprobs
            message.finish_reason = piece.ended
        self._keep()
        choices = [
            {
                "index": i,
                "message": message.write(),
                "logprobs": self._logprobs(message.logprobs),
                "finish_reason": message.finish_reason,
            }
            for i, message in enumerate(messages)
        ]
        return Json({**self._head, "choices": choices, "usage": self._usage()})

    async def events(self) -> AsyncIterator[bytes]:
        """Return the events."""
        options = self._ask.stream_options
        with_usage = options is not None and options.include_usage
        rest = {"usage": None} if with_usage else {}

        def chunk(index: int, delta: dict[str, Any], logprobs: Any, ended: str | None) -> bytes:
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": logprobs,
                "finish_reason": ended,
            }
            return event({**self._head, "choices": [choice], **rest})

        for i in range(self._n):
            yield chunk(i, {"role": "assistant", "content": None}, None, None)
        n_left = self._n
        try:
            async for piece in self.answer.pieces():
                deltas = [_delta(part, self._asker.marks) for part in piece.parts]
                told = self._logprobs(piece.logprobs) if piece.logprobs else None
                if told is not None and not deltas:
                    deltas = [{}]
                for delta in deltas:
                    yield chunk(piece.number, delta, told, None)
                    told = None
                if piece.ended is not None:
                    n_left -= 1
                    if not n_left:
                        self._keep()
                    yield chunk(piece.number, {}, None, piece.ended)
        except ApiError as error:
            yield event(error_body(_PATH, error))
            return
        if with_usage:
            yield event({**self._head, "choices": [], "usage": self._usage()})
        yield DONE

    def _keep(self) -> None:
        if not self._asker.keeps:
            return
        name = str(self._head["id"])
        self._context.endings.keep(
            Stored(id=name, owner=self._asker.owner, ending=self.answer.ending())
        )

    def _logprobs(self, probabilities: list[TokenProbability]) -> dict[str, Any] | None:
        if not self._ask.logprobs:
            return None
        return chat_logprobs(self.answer.served.tokenizer, probabilities)

    def _usage(self) -> dict[str, Any]:
        writing = self.answer.writing
        return {
            "prompt_tokens": writing.n_prompt_tokens,
            "completion_tokens": writing.n_written_tokens,
            "total_tokens": writing.n_prompt_tokens + writing.n_written_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self._asker.marks.cached(writing.n_cached_tokens)
            },
        }


def _delta(part: AnswerPart, marks: Marks) -> dict[str, Any]:
    if part.kind == "call":
        function = {"name": part.text, "arguments": ""}
        call = {"index": part.index, "id": marks.new_id("call_"), "type": "function"}
        return {"tool_calls": [{**call, "function": function}]}
    if part.kind == "arguments":
        return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}
    return {"content" if part.kind == "answer" else "reasoning_content": part.text}
