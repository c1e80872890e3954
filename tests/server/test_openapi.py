"""The OpenAPI file is true of streams too; schemathesis sees to the rest (tests/clients)."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import jsonschema
import pytest

from server.conversations import LOOK_UP, PLAIN, QUESTION

SAID = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40, "model": "pychat"}
TOOL = {"type": "function", "function": LOOK_UP}


def test_all_that_it_refers_to_is_there(client: httpx.Client) -> None:
    file = client.get("/openapi.json").json()
    assert client.get("/openapi.json").json() == file
    known = {f"#/components/schemas/{name}" for name in file["components"]["schemas"]}
    assert set(re.findall(r'"\$ref": "(.*?)"', json.dumps(file))) <= known


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/v1/chat/completions", {**SAID, **PLAIN, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {**SAID, "tools": [TOOL], "tool_choice": "required", "seed": 3}),
        ("/v1/chat/completions", {**SAID, **PLAIN, "logprobs": True, "top_logprobs": 2}),
        ("/v1/completions", {"model": "pydoc", "prompt": "import ", "logprobs": 2, "seed": 1}),
        ("/v1/responses", {"model": "pychat", "input": QUESTION, **PLAIN}),
        ("/v1/messages", {**SAID, **PLAIN}),
    ],
)
def test_events_are_as_it_says(client: httpx.Client, path: str, ask: dict[str, Any]) -> None:
    file = client.get("/openapi.json").json()
    content = file["paths"][path]["post"]["responses"]["200"]["content"]
    event = content["text/event-stream"]["schema"]
    end, held = event["properties"]["data"]["anyOf"]
    assert end == {"const": "[DONE]"}
    kind = held["contentSchema"]["anyOf"][0]  # the other is that of errors
    schema = {**kind, "components": file["components"]}
    with client.stream("POST", path, json={**ask, "stream": True}) as answer:
        assert answer.headers["content-type"].split(";")[0] in content
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    assert len(events) > 2
    for each in events:
        jsonschema.validate(each, schema)
    wrong = {name: [] for name in events[0]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
