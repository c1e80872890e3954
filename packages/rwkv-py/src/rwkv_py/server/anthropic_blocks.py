"""The blocks that messages consist of in Anthropic's form."""

from __future__ import annotations

import json
from typing import Any

from ..answer_reader import AnswerPart
from ..chat_format import Message
from ..tools import ToolCall
from .errors import ApiError
from .fields import Body
from .marks import Marks

__all__ = ["Blocks", "InputBlock", "system_of", "values_of"]


class InputBlock(Body):
    """A part of what was said: text, reasoning, a call of a tool or what it gave."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Any] | None = None


def system_of(system: str | list[InputBlock] | None) -> str:
    """Return the system prompt."""
    if system is None or isinstance(system, str):
        return system or ""
    return "\n".join(_text(block, f"system[{i}]") for i, block in enumerate(system))


def values_of(role: str, content: str | list[InputBlock], where: str) -> list[Message]:
    """Return a message as values: what tools gave stands apart.

    Raises:
        ApiError: a block is of a type that cannot be read; `where` is the message's place.
    """
    if isinstance(content, str):
        return [Message(role=role, content=content)]  # type: ignore[arg-type]
    found: list[Message] = []
    texts: list[str] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(content):
        place = f"{where}.content[{i}]"
        if block.type == "tool_result":
            found.append(Message(role="tool", content=_result(block.content, place)))
        elif block.type == "tool_use":
            arguments = json.dumps(block.input or {}, ensure_ascii=False)
            calls.append(ToolCall(name=block.name or "", arguments=arguments, id=block.id or ""))
        elif block.type not in ("thinking", "redacted_thinking"):
            texts.append(_text(block, place))
    if texts or calls or not found:
        text = "\n".join(texts)
        found.append(
            Message(role=role, content=text, tool_calls=tuple(calls))  # type: ignore[arg-type]
        )
    return found


def _text(block: InputBlock, where: str) -> str:
    if block.type != "text" or block.text is None:
        raise ApiError(400, f"{where}.type: expected text, got {block.type[:60]}")
    return block.text


def _result(content: str | list[Any] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, block in enumerate(content):
        text = block.get("text") if isinstance(block, dict) else None
        if not isinstance(text, str):
            raise ApiError(400, f"{where}.content[{i}].type: expected text, got another")
        texts.append(text)
    return "\n".join(texts)


class Blocks:
    """The blocks of an answer, made of its parts.

    Args:
        marks: the names of the answer's parts.

    Attributes:
        written: those so far; the last may go on.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self.written: list[dict[str, Any]] = []
        self._kind = ""
        self._arguments = ""

    def take(self, part: AnswerPart) -> list[dict[str, Any]]:
        """Let a part come next; return the events that tell of it."""
        events = []
        if part.kind == "call" or (part.kind != self._kind and part.kind != "arguments"):
            events += self._close()
            events.append(self._open(part))
        index, block = len(self.written) - 1, self.written[-1]
        delta: dict[str, Any] = {}
        if part.kind == "answer":
            block["text"] += part.text
            delta = {"type": "text_delta", "text": part.text}
        elif part.kind == "thinking":
            block["thinking"] += part.text
            delta = {"type": "thinking_delta", "thinking": part.text}
        elif part.kind == "arguments":
            self._arguments += part.text
            delta = {"type": "input_json_delta", "partial_json": part.text}
        if delta:
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        return events

    def end(self) -> list[dict[str, Any]]:
        """End the last block; return the events that tell of it."""
        return self._close()

    def _open(self, part: AnswerPart) -> dict[str, Any]:
        self._kind = part.kind
        block: dict[str, Any] = {"type": "text", "text": ""}
        if part.kind == "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif part.kind == "call":
            self._arguments = ""
            name = self._marks.new_id("toolu_")
            block = {"type": "tool_use", "id": name, "name": part.text, "input": {}}
        self.written.append(block)
        index = len(self.written) - 1
        return {"type": "content_block_start", "index": index, "content_block": dict(block)}

    def _close(self) -> list[dict[str, Any]]:
        if not self._kind:
            return []
        if self._kind == "call":
            self.written[-1]["input"] = _object(self._arguments)
        self._kind = ""
        return [{"type": "content_block_stop", "index": len(self.written) - 1}]


def _object(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call; what was cut, or is no object, gives none."""
    try:
        found = json.loads(arguments)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
