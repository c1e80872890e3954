"""How each protocol asks for a text, and what its answer says."""

from __future__ import annotations

import json
from typing import Any

import httpx

CHAT = "/v1/chat/completions"
STATES = "/v1/states"
NEXT = "Tell me more."
PROMPT = ".. function:: getcwd()\n\n   Return a string that is the name of the folder, and "
# What is drawn differs with all that was read.
DRAWN: dict[str, Any] = {"temperature": 1, "top_p": 1, "seed": 7, "presence_penalty": 0,
                         "frequency_penalty": 0}  # fmt: skip


def post(client: httpx.Client, path: str, **ask: Any) -> dict[str, Any]:
    answer = client.post(path, json=ask)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: httpx.Client, path: str, code: int, **ask: Any) -> str:
    kind = {"content-type": "application/json"}
    answer = client.post(path, content=json.dumps(ask), headers=kind)
    assert answer.status_code == code, answer.text
    message: str = answer.json()["error"]["message"]
    return message


class Protocol:
    """How a conversation is asked for, and what its answer says."""

    def __init__(self, path: str):
        self.path = path

    def ask(self, said: list[dict[str, str]], **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "pychat", **DRAWN, **more}
        if self.path == "/v1/responses":
            return {**body, "input": said, "max_output_tokens": 30}
        if self.path == "/v1/completions":
            text = "".join(each["content"] for each in said)
            return {**body, "prompt": text, "max_tokens": 30}
        return {**body, "messages": said, "max_tokens": 30}

    def text(self, answer: dict[str, Any]) -> str:
        if self.path == "/v1/responses":
            return "".join(part["text"] for item in answer["output"] for part in item["content"])
        if self.path == "/v1/messages":
            return "".join(block["text"] for block in answer["content"])
        (choice,) = answer["choices"]
        if self.path == "/v1/completions":
            return str(choice["text"])
        return str(choice["message"]["content"])

    def streamed(self, client: httpx.Client, ask: dict[str, Any]) -> str:
        answer = client.post(self.path, json={**ask, "stream": True})
        assert answer.status_code == 200, answer.text
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        return "".join(map(self._delta, map(json.loads, lines)))

    def _delta(self, event: dict[str, Any]) -> str:
        if "choices" in event:
            (choice,) = event["choices"]
            found = choice["text"] if "text" in choice else choice["delta"].get("content")
        elif event["type"] == "response.output_text.delta":
            found = event["delta"]
        else:
            found = event["delta"].get("text") if event["type"] == "content_block_delta" else ""
        return found or ""


PROTOCOLS = [Protocol(f"/v1/{name}")
             for name in ("chat/completions", "completions", "responses", "messages")]  # fmt: skip
