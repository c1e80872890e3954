"""What schemathesis is told besides our OpenAPI file, so that many requests are not refused."""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any

import schemathesis

# Fields that chance hardly ever fills with something that fits.
HARD = (
    "model", "grammar", "regex", "banned_tokens", "logit_bias", "suffix", "best_of", "stop", "n",
    "tools", "tool_choice", "response_format", "text", "output_config", "previous_response_id",
    "logprobs", "top_logprobs", "dimensions",
)  # fmt: skip


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Leave out fields that are hard to fill, in three of four, as their bytes have it."""
    if not isinstance(body, dict):
        return body
    number = zlib.crc32(repr(body).encode("utf-8", "replace"))
    if number % 8:  # the others stay as they are
        for i, name in enumerate(HARD):
            if (number >> (i + 3)) % 4:
                body.pop(name, None)
        if number % 2:  # their parts must fit each other
            if "input" in body:
                body["input"] = "What is it?"
            if "messages" in body:
                body["messages"] = [{"role": "user", "content": "What is it?"}]
            if "max_tokens" in body:  # else often 12.0, which is an integer in JSON schemas alone
                body["max_tokens"] = number % 8
    return body


# The last that were made, and may be gone again.
STATES: deque[str] = deque(maxlen=8)
RESPONSES: deque[str] = deque(maxlen=8)
FILES: deque[bytes] = deque(maxlen=1)
UPLOADS: deque[str] = deque(maxlen=8)
BATCHES: deque[str] = deque(maxlen=8)
KEPT = {"state_id": STATES, "state": STATES, "response_id": RESPONSES,
        "previous_response_id": RESPONSES, "file_id": UPLOADS, "input_file_id": UPLOADS,
        "batch_id": BATCHES}  # fmt: skip
REQUEST = b"""{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}\n"""


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Remember what there is to be asked for."""
    if response.status_code != 200:
        return
    if case.path.endswith("/content"):
        if case.path.startswith("/v1/states"):
            FILES.append(response.content)
    elif case.method.upper() == "POST" and response.headers["content-type"] == ["application/json"]:
        name = response.json().get("id", "")
        if case.path.startswith("/v1/states"):
            STATES.append(name)
        elif case.path == "/v1/responses":
            RESPONSES.append(name)
        elif case.path == "/v1/files":
            UPLOADS.append(name)
        elif case.path == "/v1/batches":
            BATCHES.append(name)


@schemathesis.hook
def before_call(context: Any, case: Any, **_: Any) -> None:
    """Ask for what there is, in three of four."""
    number = zlib.crc32(repr((case.path, case.query, case.body)).encode("utf-8", "replace"))
    if not number % 4:
        return
    body = case.body
    for where in (case.path_parameters, body):
        if isinstance(where, dict):
            for name, kept in KEPT.items():
                if name in where and kept:
                    where[name] = kept[number % len(kept)]
    if case.path == "/v1/files" and isinstance(body, dict) and "file" in body:
        body["file"], body["purpose"] = REQUEST * (number % 5), "batch"
    if case.path == "/v1/batches" and isinstance(body, dict) and number % 2:
        body["completion_window"] = "24h"
    if case.path == "/v1/states" and case.method.upper() == "POST":
        if isinstance(body, dict) and case.media_type == "application/json":
            for name in [n for n in ("response_id", "messages", "prompt") if n in body][1:]:
                del body[name]
        if FILES and isinstance(body, dict) and "file" in body:
            body["file"] = FILES[0]
        elif FILES and case.media_type == "application/octet-stream":
            case.body = FILES[0]


@schemathesis.check
def no_fault_in_a_stream(context: Any, response: Any, case: Any) -> None:
    """What fails after the answer has begun is no 5xx any more: it must not be one in disguise."""
    if response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        for fault in ('"type":"server_error"', '"type":"api_error"', '"status":"failed"'):
            assert fault not in response.text, response.text
