"""What schemathesis is told besides our OpenAPI file, so that many requests are not refused."""

from __future__ import annotations

import zlib
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


@schemathesis.check
def no_fault_in_a_stream(context: Any, response: Any, case: Any) -> None:
    """What fails after the answer has begun is no 5xx any more: it must not be one in disguise."""
    if response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        for fault in ('"type":"server_error"', '"type":"api_error"', '"status":"failed"'):
            assert fault not in response.text, response.text
