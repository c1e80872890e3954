"""The items that responses consist of, in OpenAI's form, and the events that tell of them."""

from __future__ import annotations

from typing import Any

from ..answer_reader import AnswerPart
from .marks import Marks

__all__ = ["Items"]


class Items:
    """The items of an answer, made of its parts.

    Args:
        marks: the names of the answer's parts.

    Attributes:
        written: those so far; the last may go on.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self.written: list[dict[str, Any]] = []
        self._kind = ""

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(
            content["text"]
            for item in self.written
            if item["type"] == "message"
            for content in item["content"]
        )

    def take(self, part: AnswerPart) -> list[dict[str, Any]]:
        """Let a part come next; return the events that tell of it."""
        events = []
        if part.kind == "call" or (part.kind != self._kind and part.kind != "arguments"):
            events += self.end("completed")
            events += self._open(part)
        item = self.written[-1]
        if part.kind == "arguments":
            item["arguments"] += part.text
            kind = "response.function_call_arguments.delta"
            events.append({"type": kind, **self._place(), "delta": part.text})
        elif part.kind != "call":
            item["content"][0]["text"] += part.text
            delta = {**self._place(), "content_index": 0, "delta": part.text}
            if part.kind == "answer":
                events.append({"type": "response.output_text.delta", **delta, "logprobs": []})
            else:
                events.append({"type": "response.reasoning_text.delta", **delta})
        return events

    def end(self, status: str) -> list[dict[str, Any]]:
        """End the last item, "completed" or "incomplete"; return the events that tell of it."""
        if not self._kind:
            return []
        kind, self._kind = self._kind, ""
        item, place = self.written[-1], self._place()
        item["status"] = status
        done = {"type": "response.output_item.done", "output_index": place["output_index"]}
        last = {**done, "item": item}
        if kind == "call":
            arguments = {"name": item["name"], "arguments": item["arguments"]}
            name = "response.function_call_arguments.done"
            return [{"type": name, **place, **arguments}, last]
        content = item["content"][0]
        told = {**place, "content_index": 0, "text": content["text"]}
        if kind == "thinking":
            return [{"type": "response.reasoning_text.done", **told}, last]
        return [
            {"type": "response.output_text.done", **told, "logprobs": []},
            {
                "type": "response.content_part.done",
                **place,
                "content_index": 0,
                "part": dict(content),
            },
            last,
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.written[-1]["id"], "output_index": len(self.written) - 1}

    def _open(self, part: AnswerPart) -> list[dict[str, Any]]:
        self._kind = part.kind
        new_id = self._marks.new_id
        content: dict[str, Any]
        if part.kind == "call":
            item: dict[str, Any] = {
                "id": new_id("fc_"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": new_id("call_"),
                "name": part.text,
                "arguments": "",
            }
            empty = dict(item)
        elif part.kind == "thinking":
            content = {"type": "reasoning_text", "text": ""}
            item = {"id": new_id("rs_"), "type": "reasoning", "summary": [], "content": [content]}
            empty = {**item, "content": []}
        else:
            content = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {
                "id": new_id("msg_"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [content],
            }
            empty = {**item, "content": []}
        self.written.append(item)
        index = len(self.written) - 1
        added = {"type": "response.output_item.added", "output_index": index, "item": empty}
        if part.kind != "answer":
            return [added]
        begun = {"type": "response.content_part.added", **self._place(), "content_index": 0}
        return [added, {**begun, "part": dict(content)}]
