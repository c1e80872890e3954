"""A line of a batch: a request, as it would be sent to a server."""

from __future__ import annotations

import json
import reprlib
from typing import Any, NamedTuple

__all__ = ["BadLine", "Line", "parse_line"]


class Line(NamedTuple):
    """A request.

    Attributes:
        custom_id: what its sender calls it.
        url: the path that it is for, such as "/v1/chat/completions".
        body: what is sent there.
    """

    custom_id: str
    url: str
    body: dict[str, Any]


class BadLine(Exception):
    """A line that is no request.

    Attributes:
        message: what is wrong: where, expected, got.
        custom_id: what its sender calls it, as far as can be told.
    """

    def __init__(self, message: str, custom_id: str | None = None):
        super().__init__(message)
        self.message = message
        self.custom_id = custom_id


def parse_line(raw: bytes) -> Line:
    """Return what a line says.

    Raises:
        BadLine: it is no JSON, or a field is missing or another than it has to be.
    """
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        what = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise BadLine(f"line: expected JSON in UTF-8, got none: {what}") from None
    if not isinstance(found, dict):
        raise BadLine(f"line: expected an object, got {reprlib.repr(found)}")
    name = found.get("custom_id")
    if not isinstance(name, str):
        raise BadLine(f"custom_id: expected a text, got {_got(found, 'custom_id')}")
    if found.get("method") != "POST":
        raise BadLine(f"method: expected POST, got {_got(found, 'method')}", name)
    if not isinstance(found.get("url"), str):
        raise BadLine(f"url: expected a path, got {_got(found, 'url')}", name)
    if not isinstance(found.get("body"), dict):
        raise BadLine(f"body: expected an object, got {_got(found, 'body')}", name)
    return Line(name, found["url"], found["body"])


def _got(found: dict[str, Any], name: str) -> str:
    return reprlib.repr(found[name]) if name in found else "none"
