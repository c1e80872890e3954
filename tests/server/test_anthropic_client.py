"""What the official client of Anthropic does, it does here."""

from __future__ import annotations

from typing import Any

import anthropic
import jsonschema
import pytest

from server.conversations import ANSWER, LOOK_UP, PERSON, QUESTION

PLAIN: dict[str, Any] = {
    "model": "pychat",
    "max_tokens": 200,
    "extra_body": {"temperature": 0, "presence_penalty": 0, "frequency_penalty": 0},
}
TOOL: dict[str, Any] = {
    "name": LOOK_UP["name"],
    "description": LOOK_UP["description"],
    "input_schema": LOOK_UP["parameters"],
}
SAID: list[Any] = [{"role": "user", "content": QUESTION}]


def test_a_message(anthropic_client: anthropic.Anthropic) -> None:
    answer = anthropic_client.messages.create(messages=SAID, **PLAIN)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == ANSWER  # type: ignore[union-attr]
    assert (answer.role, answer.stop_reason, answer.stop_sequence) == (
        "assistant",
        "end_turn",
        None,
    )
    again = anthropic_client.messages.create(messages=SAID, **PLAIN)
    assert again.usage.input_tokens == 0
    prompt = f"User: {QUESTION}\n\nAssistant:"
    assert again.usage.cache_read_input_tokens == len(prompt)
    counted = anthropic_client.messages.count_tokens(model="pychat", messages=SAID)
    assert counted.input_tokens == len(prompt)


def test_a_streamed_message(anthropic_client: anthropic.Anthropic) -> None:
    with anthropic_client.messages.stream(messages=SAID, **PLAIN) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == ANSWER  # type: ignore[union-attr]
    assert final.usage.output_tokens > 0
    assert kinds[0] == "message_start"
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_system_and_blocks(anthropic_client: anthropic.Anthropic) -> None:
    texts = [
        anthropic_client.messages.create(system=system, messages=said, **PLAIN).content[0]
        for system, said in (
            ("Be brief.", SAID),
            (
                [{"type": "text", "text": "Be brief."}],
                [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
            ),
        )
    ]  # type: ignore[call-overload]
    assert texts[0] == texts[1]


def test_why_it_ended(anthropic_client: anthropic.Anthropic) -> None:
    cut = anthropic_client.messages.create(messages=SAID, **{**PLAIN, "max_tokens": 5})
    assert cut.stop_reason == "max_tokens"
    stopped = anthropic_client.messages.create(
        messages=SAID, stop_sequences=["never", " decode"], **PLAIN
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " decode")
    assert stopped.content[0].text == ANSWER[: ANSWER.index(" decode")]  # type: ignore[union-attr]


def test_prefilled(anthropic_client: anthropic.Anthropic) -> None:
    said = [*SAID, {"role": "assistant", "content": ANSWER[:10]}]
    answer = anthropic_client.messages.create(messages=said, **PLAIN)
    assert ANSWER[:10] + answer.content[0].text == ANSWER  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look_up"}])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool(
    anthropic_client: anthropic.Anthropic, choice: dict[str, Any], streamed: bool
) -> None:
    ask: dict[str, Any] = {
        "model": "pychat",
        "max_tokens": 300,
        "messages": SAID,
        "tools": [TOOL],
        "tool_choice": {**choice, "disable_parallel_tool_use": True},
        "extra_body": {"seed": 3},
    }
    if streamed:
        with anthropic_client.messages.stream(**ask) as stream:
            answer = stream.get_final_message()
    else:
        answer = anthropic_client.messages.create(**ask)
    (block,) = answer.content
    assert block.type == "tool_use"
    assert answer.stop_reason == "tool_use"
    assert block.name == "look_up" and block.id.startswith("toolu_")
    jsonschema.validate(block.input, LOOK_UP["parameters"])
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "It is about JSON."}
    said = [
        *SAID,
        {"role": "assistant", "content": [block.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    counted = anthropic_client.messages.count_tokens(model="pychat", messages=said, tools=[TOOL])  # type: ignore[arg-type,list-item]
    before = anthropic_client.messages.count_tokens(model="pychat", messages=SAID, tools=[TOOL])  # type: ignore[list-item]
    assert counted.input_tokens > before.input_tokens + len("It is about JSON.")


def test_a_schema(anthropic_client: anthropic.Anthropic) -> None:
    config = {"format": {"type": "json_schema", "schema": PERSON}}
    answer = anthropic_client.messages.create(
        model="pychat", max_tokens=300, messages=SAID,
        extra_body={"seed": 1, "output_config": config},
    )  # fmt: skip
    import json

    jsonschema.validate(json.loads(answer.content[0].text), PERSON)  # type: ignore[union-attr]


def test_models(anthropic_client: anthropic.Anthropic) -> None:
    assert [model.id for model in anthropic_client.models.list()] == ["pychat", "pydoc"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: expected greater than or equal to 1, got 0"),
        ({"messages": []}, "messages: expected list should have at least 1 item"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].type: expected text, got image",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: expected the name of a tool"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name: expected letters"),
        ({"stop_sequences": [""]}, "stop_sequences: expected no empty string, got one"),
        ({"thinking": {"type": "hard"}}, "thinking.type: expected 'enabled'"),
    ],
)
def test_wrong_values(
    anthropic_client: anthropic.Anthropic, fields: dict[str, Any], message: str
) -> None:
    ask = {"model": "pychat", "max_tokens": 5, "messages": SAID}
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(**{**ask, **fields})
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert message in body["error"]["message"]


def test_a_model_that_is_not_served(anthropic_client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        anthropic_client.messages.create(model="claude", max_tokens=5, messages=SAID)
    body: Any = caught.value.body
    assert body["error"]["type"] == "not_found_error"
