"""Tools that a model may call: what they are, and how RWKV models were taught to use them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ._arguments import as_text
from .errors import InvalidArgumentError

__all__ = ["CALL_MARK", "FENCE", "Tool", "ToolCall", "ToolStyle", "write_calls", "write_tools"]

ToolStyle: TypeAlias = Literal["list", "sections"]
"""How tools are written: the list and fences of the G1 models; or sections under headings."""

FENCE = "```json"
CALL_MARK = "**Tool Call:**"


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call.

    Attributes:
        name: letters, digits, `_`, `-`, `.` and `:`, 128 at most.
        description: what it does.
        parameters: a JSON schema of its arguments, which are an object.

    Raises:
        InvalidArgumentError: there is no such name, or a part is of the wrong type.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.:-]{1,128}", as_text("name", self.name), re.ASCII):
            raise InvalidArgumentError(
                "name: expected letters, digits, _, -, . and :, 128 at most, got "
                f"{self.name[:140]!r}"
            )
        as_text("description", self.description)
        if not isinstance(self.parameters, Mapping):
            raise InvalidArgumentError(
                f"parameters: expected a JSON schema, got {type(self.parameters).__name__}"
            )
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"parameters: expected JSON, got: {error}") from None

    @property
    def schema(self) -> dict[str, Any]:
        """The schema of the arguments, which says that they are an object."""
        return {"type": "object", **self.parameters}


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call that a model made.

    Attributes:
        name: the tool's.
        arguments: JSON text, as the model wrote it.
        id: by which the caller knows it; the model does not see it.
    """

    name: str
    arguments: str
    id: str = ""


def write_tools(tools: Sequence[Tool], style: ToolStyle, *, must_call: bool) -> str:
    """Return what a system prompt says of the tools.

    Args:
        tools: at least one.
        style: how.
        must_call: whether the answer has to be a call.
    """
    if style == "sections":
        return "\n".join([*(_section(tool) for tool in tools), _HOW_TO_CALL])
    lines = ["Tools:", *(_line(tool) for tool in tools)]
    if must_call:
        lines.append("Return only a JSON function call.")
    else:
        lines.append("Return only a JSON function call, or answer in words if none is needed.")
    return "\n".join(lines)


def write_calls(calls: Iterable[ToolCall], style: ToolStyle) -> str:
    """Return the text with which a model makes calls."""
    return "\n".join(
        f"{opening_of(style)}{call_before(call.name)}{call.arguments}{CALL_AFTER}" for call in calls
    )


def opening_of(style: ToolStyle) -> str:
    """Return what a call begins with."""
    return f"{CALL_MARK}\n{FENCE}\n" if style == "sections" else f"{FENCE}\n"


def call_before(name: str) -> str:
    """Return what stands before the arguments of a call."""
    return f'{{"name": {json.dumps(name)}, "arguments": '


CALL_AFTER = "}\n```"
"""What stands after them."""

_HOW_TO_CALL = f"""\
To call one of these tools, write exactly this format:
{CALL_MARK}
{FENCE}
{{"name": "tool_name", "arguments": {{"key": "value"}}}}
```
Do not invent tool call IDs or write tool outputs yourself."""


def _section(tool: Tool) -> str:
    lines = [f"### `{tool.name}`"]
    if tool.description:
        lines.append(f"**Description:** {_one_line(tool.description)}")
    schema = json.dumps(tool.schema, indent=2, ensure_ascii=False)
    return "\n".join([*lines, "**Parameters:**", FENCE, schema, "```"])


def _line(tool: Tool) -> str:
    properties = tool.parameters.get("properties")
    required = tool.parameters.get("required")
    needed = set(required) if isinstance(required, list | tuple) else set()
    arguments = []
    for name, schema in (properties if isinstance(properties, Mapping) else {}).items():
        mark = "" if name in needed else "?"
        arguments.append(f"{_one_line(str(name))}{mark}: {_type(schema)}")
    about = f": {_one_line(tool.description)}" if tool.description else ""
    return f"- {tool.name}({', '.join(arguments)}){about}"


def _type(schema: Any) -> str:
    """Return a word or two for what a schema wants."""
    if not isinstance(schema, Mapping):
        return "any"
    if isinstance(schema.get("enum"), list | tuple):
        return "|".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list | tuple):
            return "|".join(_type(each) for each in schema[key])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items'))}"
    if isinstance(kind, list | tuple):
        return "|".join(str(each) for each in kind)
    return str(kind)


def _one_line(text: str) -> str:
    return " ".join(text.split())
