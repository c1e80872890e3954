"""Messages, tools and wishes about the form of an answer, as OpenAI's chats have them."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field

from ..chat_format import Message, Role
from ..errors import InvalidArgumentError
from ..grammar import GrammarOptions
from ..tools import Tool, ToolCall
from .errors import ApiError
from .fields import Body

__all__ = [
    "ChatMessage",
    "ContentPart",
    "ResponseFormat",
    "ToolChoice",
    "ToolDefinition",
    "choice_of",
    "fits_of",
    "messages_of",
    "text_of",
    "tool_of",
    "tools_of",
]


class ContentPart(Body):
    """A part of what was said; only text is read here."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    """What was called."""

    name: str
    arguments: str


class ToolCallMessage(Body):
    """A call that the assistant made."""

    id: str = ""
    type: str = "function"
    function: FunctionCall


class ChatMessage(Body):
    """Something that was said."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallMessage] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class FunctionDefinition(Body):
    """A function that may be called; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Body):
    """A tool that may be called."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Body):
    """The name of a function."""

    name: str


class ToolChoice(Body):
    """The function that must be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(Body):
    """What the answer must fit."""

    name: str | None = None
    schema_: dict[str, Any] | bool | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


def messages_of(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """Return what was said, as values.

    Raises:
        ApiError: a part is no text.
    """
    return tuple(_message_of(message, f"messages[{i}]") for i, message in enumerate(messages))


def _message_of(message: ChatMessage, where: str) -> Message:
    roles: dict[str, Role] = {"developer": "system", "function": "tool"}
    content = text_of(message.content, f"{where}.content")
    return Message(
        role=roles.get(message.role, cast(Role, message.role)),
        content=content,
        thinking=message.reasoning_content or "",
        tool_calls=tuple(
            ToolCall(name=call.function.name, arguments=call.function.arguments, id=call.id)
            for call in message.tool_calls or ()
        ),
    )


def text_of(content: str | list[Any] | None, where: str) -> str:
    """Return the text of a content, whose parts are of the types that OpenAI has."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, part in enumerate(content):
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in ("text", "input_text", "output_text", "refusal") or text is None:
            raise ApiError(400, f"{where}[{i}].type: expected text, got {part.type[:60]}")
        texts.append(text)
    return "\n".join(texts)


def tools_of(definitions: list[ToolDefinition] | None) -> tuple[Tool, ...]:
    """Return the tools that are defined."""
    found = []
    for i, definition in enumerate(definitions or ()):
        function = definition.function
        where = f"tools[{i}].function"
        found.append(tool_of(function.name, function.description, function.parameters, where))
    return tuple(found)


def tool_of(
    name: str, description: str | None, parameters: dict[str, Any] | None, where: str
) -> Tool:
    """Return a tool.

    Raises:
        ApiError: a part of it is refused; `where` is its place in the request.
    """
    try:
        return Tool(name=name, description=description or "", parameters=parameters or {})
    except InvalidArgumentError as error:
        raise ApiError(400, f"{where}.{error.message}") from None


def choice_of(choice: str | ToolChoice | None) -> str:
    """Return which tool is to be called: see `Turn`."""
    if choice is None:
        return "auto"
    return choice if isinstance(choice, str) else choice.function.name


def fits_of(
    response_format: ResponseFormat | None, grammar: str | None, regex: str | None
) -> GrammarOptions:
    """Return what the answer must fit.

    Raises:
        ApiError: a schema is wanted, and none is there.
    """
    fits = GrammarOptions()
    if grammar is not None:
        fits["grammar"] = grammar
    if regex is not None:
        fits["regex"] = regex
    if response_format is None or response_format.type == "text":
        return fits
    if response_format.type == "json_object":
        fits["json_schema"] = {"type": "object"}
        return fits
    schema = response_format.json_schema
    if schema is None or schema.schema_ is None:
        raise ApiError(400, "response_format.json_schema.schema: expected a JSON schema, got none")
    fits["json_schema"] = schema.schema_
    return fits
