"""What tests of chats ask, and what is right."""

from __future__ import annotations

from typing import Any

QUESTION = "What does the json module do?"
ANSWER = "The module json: Encode and decode the JSON format."
# Of the model that answers questions, without chance.
PLAIN: dict[str, Any] = {"temperature": 0, "presence_penalty": 0, "frequency_penalty": 0}

LOOK_UP: dict[str, Any] = {
    "name": "look_up",
    "description": "Look something up.",
    "parameters": {
        "type": "object",
        "properties": {"name": {"enum": ["json", "re"]}, "pages": {"type": "integer"}},
        "required": ["name"],
        "additionalProperties": False,
    },
}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
