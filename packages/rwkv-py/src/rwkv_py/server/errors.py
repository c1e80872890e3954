"""What is wrong with a request, in the form of each protocol."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..errors import (
    EngineClosedError,
    EngineFullError,
    InvalidArgumentError,
    RwkvError,
    TokenOutOfRangeError,
)
from .wire import Json

__all__ = ["ApiError", "ErrorBody", "api_error", "error_body", "error_response", "from_validation"]


class ApiError(Exception):
    """Something to tell the client.

    Args:
        status: of HTTP.
        message: where, what, expected, got.
        code: what programs know it by, in the forms that have that.
        retry_after: seconds after which to try again. None, of a 503: the server says what it has
            measured.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after = retry_after

    @property
    def param(self) -> str | None:
        """The field that it is about, which stands at the beginning of the message."""
        found = re.match(r"([a-z_]\w*(?:\[\d+\]|\.\w+)*): ", self.message)
        return found[1] if found and self.status == 400 else None


class ErrorFacts(BaseModel):
    """The facts, in OpenAI's form; Anthropic's has the first two."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """What is wrong with a request; `type` is "error" in Anthropic's form."""

    error: ErrorFacts
    type: str | None = None


_TYPES = {
    401: ("invalid_request_error", "authentication_error"),
    404: ("invalid_request_error", "not_found_error"),
    405: ("invalid_request_error", "not_found_error"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_error"),
    503: ("server_error", "overloaded_error"),
}


def error_body(path: str, error: ApiError) -> dict[str, Any]:
    """Return the body that the protocol of a path has for an error."""
    openai, anthropic = _TYPES.get(
        error.status,
        ("invalid_request_error",) * 2 if error.status < 500 else ("server_error", "api_error"),
    )
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": anthropic, "message": error.message}}
    facts = {"message": error.message, "type": openai, "param": error.param, "code": error.code}
    return {"error": facts}


def error_response(path: str, error: ApiError) -> Json:
    """Return the response that the protocol of a path has for an error."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Json(error_body(path, error), error.status, headers)


def api_error(error: BaseException, names: Mapping[str, str] | None = None) -> ApiError:
    """Return what to tell of an exception; what is not the client's doing stays with us.

    Args:
        error: the exception.
        names: what the protocol calls our arguments, where it has other names.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineFullError):
        seconds = error.retry_seconds
        return ApiError(429, error.message, code="rate_limit_exceeded", retry_after=seconds)
    if isinstance(error, EngineClosedError):
        return ApiError(503, "server: expected one that goes on, got one that ends")
    if isinstance(error, MemoryError):
        return ApiError(503, "server: expected more memory, got none")
    if isinstance(error, InvalidArgumentError | TokenOutOfRangeError):
        where, colon, what = error.message.partition(": ")
        field, *rest = re.split(r"(?=[\[.])", where, maxsplit=1)
        where = (names or {}).get(field, field) + "".join(rest)
        code = "context_length_exceeded" if "prompt: expected at most" in error.message else None
        return ApiError(400, where + colon + what, code=code)
    if isinstance(error, ImportError):
        return ApiError(501, f"server: {error}")
    kind = type(error).__name__ if isinstance(error, RwkvError) else "a fault"
    return ApiError(500, f"server: expected an answer, got {kind}")


_PLAIN = {"str", "int", "float", "bool", "none", "body"}


def from_validation(problems: Sequence[Any]) -> ApiError:
    """Return what pydantic found in a request, as one sentence about one field.

    Of a value that may be of several kinds all kinds are named, unless it is of one of them and the
    fault lies deeper.
    """
    by_place: dict[str, list[Any]] = {}
    for problem in problems:
        if problem["type"] == "json_invalid":
            return ApiError(400, f"body: expected JSON, got none: {problem['ctx']['error']}")
        by_place.setdefault(_place(problem["loc"]), []).append(problem)
    place = max(by_place, key=lambda place: len(re.split(r"[.\[]", place)) if place else 0)
    found = by_place[place]
    expected = " or ".join(dict.fromkeys(_expected(problem) for problem in found))
    missing = found[0]["type"] == "missing"
    got = "none" if missing else reprlib.repr(found[0]["input"])
    return ApiError(400, f"{place or 'body'}: expected {expected}, got {got}")


def _place(location: Sequence[str | int]) -> str:
    """Write a place such as messages[0].content; pydantic's has names of kinds in between."""
    place = ""
    for part in location:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part not in _PLAIN and not re.search(r"[\[\]()A-Z]", part):
            place += f".{part}" if place else part
    return place


def _expected(problem: Any) -> str:
    if problem["type"] == "missing":
        return "a value"
    message: str = problem["msg"]
    for begin in ("Input should be ", "Value error, expected "):
        message = message.removeprefix(begin)
    return message[:1].lower() + message[1:]
