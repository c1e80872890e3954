"""What the official client of OpenAI does, it does here."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest

from rwkv_py import Chat, Model, embed
from server.conversations import ANSWER, LOOK_UP, PERSON, PLAIN, QUESTION

OURS = {"extra_body": {"top_k": 1}}


@pytest.fixture(scope="module")
def answers(pychat: Model) -> list[str]:
    """What `Chat` says to three questions."""
    chat = Chat(pychat, **PLAIN)
    return [chat.ask(question) for question in (QUESTION, "Tell me more.", "What is os.getcwd?")]


def test_models(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["pychat", "pydoc"]
    assert openai_client.models.retrieve("pydoc").owned_by == "rwkv"
    with pytest.raises(openai.NotFoundError, match="expected one of pychat, pydoc, got 'other'"):
        openai_client.models.retrieve("other")


def test_a_chat_is_that_of_chat(openai_client: openai.OpenAI, answers: list[str]) -> None:
    """Turn by turn, with all resent: each costs its own tokens only."""
    said: list[Any] = []
    read = 0
    for question, expected in zip(
        (QUESTION, "Tell me more.", "What is os.getcwd?"), answers, strict=True
    ):
        said.append({"role": "user", "content": question})
        answer = openai_client.chat.completions.create(model="pychat", messages=said, **PLAIN)
        (choice,) = answer.choices
        assert choice.message.content == expected
        assert choice.finish_reason == "stop"
        said.append({"role": "assistant", "content": expected})
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        if read:  # at most the last answer's end and the question
            new = answer.usage.prompt_tokens - (
                answer.usage.prompt_tokens_details.cached_tokens or 0
            )
            assert new <= len(f"\n\nUser: {question}\n\nAssistant:") + 1
        read = answer.usage.prompt_tokens
    assert answers[0] == ANSWER


def test_a_streamed_chat(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="pychat",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
        **PLAIN,
    )
    chunks = list(stream)
    first = chunks[0].choices[0].delta
    assert (first.role, first.content) == ("assistant", None)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


def test_developer_system_and_content_parts(openai_client: openai.OpenAI) -> None:
    """The same text, whatever the form."""
    forms: list[list[Any]] = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
    ]
    texts = [
        openai_client.chat.completions.create(model="pychat", messages=form, **PLAIN)
        .choices[0]
        .message.content
        for form in forms
    ]
    assert texts[0] == texts[1]


def test_several_answers(openai_client: openai.OpenAI) -> None:
    def ask(**fields: Any) -> list[str | None]:
        answer = openai_client.chat.completions.create(
            model="pychat",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            temperature=2,
            top_p=1,
            **fields,
        )
        assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
        return [choice.message.content for choice in answer.choices]

    three = ask(n=3, seed=5)
    assert three == [*ask(seed=5), *ask(seed=6), *ask(seed=7)]
    assert len(set(three)) > 1


def test_chat_logprobs(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="pychat",
        messages=[{"role": "user", "content": QUESTION}],
        logprobs=True,
        top_logprobs=2,
        **PLAIN,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    data = bytes(byte for token in logprobs.content for byte in token.bytes or ())
    assert data.decode().strip() == ANSWER
    for token in logprobs.content:
        assert token.top_logprobs[0].token == token.token  # greedy
        assert token.top_logprobs[0].logprob == token.logprob <= 0
        assert len(token.top_logprobs) == 2


def test_max_tokens_and_stop(openai_client: openai.OpenAI) -> None:
    def ask(**fields: Any) -> Any:
        return openai_client.chat.completions.create(
            model="pychat", messages=[{"role": "user", "content": QUESTION}], **PLAIN, **fields
        ).choices[0]

    for name in ("max_tokens", "max_completion_tokens"):
        cut = ask(**{name: 8})
        assert cut.finish_reason == "length"
        assert cut.message.content == ANSWER[:7]  # and a space before it
    stopped = ask(stop=["decode"])
    assert stopped.message.content == ANSWER[: ANSWER.index(" decode")]
    assert stopped.finish_reason == "stop"


def test_a_cut_answer_goes_on(openai_client: openai.OpenAI) -> None:
    said = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER[:20]},
    ]
    answer = openai_client.chat.completions.create(model="pychat", messages=said, **PLAIN)  # type: ignore[call-overload]
    assert ANSWER[:20] + answer.choices[0].message.content == ANSWER.replace("  ", " ")


def test_json_schema(openai_client: openai.OpenAI) -> None:
    said: list[Any] = [{"role": "user", "content": "Who is it?"}]
    schema: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = openai_client.chat.completions.create(
        model="pychat", messages=said, response_format=schema, seed=1, max_tokens=200
    )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), PERSON)
    answer = openai_client.chat.completions.create(
        model="pychat", messages=said, response_format={"type": "json_object"}, max_tokens=200,
        logit_bias={"125": 9}, seed=1,
    )  # fmt: skip
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_our_grammar_and_regex(openai_client: openai.OpenAI) -> None:
    said: list[Any] = [{"role": "user", "content": "How many?"}]
    for ours, texts in (
        ({"regex": "(one|two) of them"}, ["one of them", "two of them"]),
        ({"grammar": 'start: "yes" | "no"'}, ["yes", "no"]),
        ({"grammar": 'root ::= "ja" | "nein"'}, ["ja", "nein"]),
    ):
        answer = openai_client.chat.completions.create(
            model="pychat", messages=said, seed=1, extra_body=ours
        )
        assert answer.choices[0].message.content in texts


CHOICES: list[Any] = ["required", {"type": "function", "function": {"name": "look_up"}}]


@pytest.mark.parametrize("choice", CHOICES, ids=["required", "named"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_that_must_be_called(
    openai_client: openai.OpenAI, choice: Any, streamed: bool
) -> None:
    ask: dict[str, Any] = {
        "model": "pychat",
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [{"type": "function", "function": LOOK_UP}],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "seed": 3,
        "max_tokens": 300,
    }
    if streamed:
        with openai_client.chat.completions.stream(**ask) as stream:
            answer = stream.get_final_completion()
    else:
        answer = openai_client.chat.completions.create(**ask)
    (found,) = answer.choices
    assert found.finish_reason == "tool_calls"
    (call,) = found.message.tool_calls
    assert call.id.startswith("call_")
    assert call.function.name == "look_up"
    jsonschema.validate(json.loads(call.function.arguments), LOOK_UP["parameters"])


def test_what_a_tool_gave_is_read(openai_client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function",
            "function": {"name": "look_up", "arguments": '{"name": "json"}'}}  # fmt: skip
    said: list[Any] = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is about JSON."},
    ]
    tools: list[Any] = [{"type": "function", "function": LOOK_UP}]
    answer = openai_client.chat.completions.create(
        model="pychat", messages=said, tools=tools, max_tokens=20, **PLAIN
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > len("It is about JSON.") + len(QUESTION)
    assert answer.choices[0].message.content


def test_completions(openai_client: openai.OpenAI) -> None:
    text = openai_client.completions.create(
        model="pydoc", prompt="import ", max_tokens=9, temperature=0, **OURS
    )
    assert len(text.choices[0].text) == 9


def test_embeddings(openai_client: openai.OpenAI, pychat: Model) -> None:
    """The client asks for base64 if nobody says otherwise."""
    texts = ["json", "The module json."]
    for ask in ({}, {"encoding_format": "float"}):
        found = openai_client.embeddings.create(model="pychat", input=texts, **ask)  # type: ignore[arg-type]
        assert [each.index for each in found.data] == [0, 1]
        vectors = np.array([each.embedding for each in found.data], np.float32)
        np.testing.assert_array_equal(vectors, embed(pychat, texts))
        assert found.usage.prompt_tokens == sum(map(len, texts))
    last = openai_client.embeddings.create(
        model="pychat", input=list(b"json"), extra_body={"pooling": "last", "normalize": True}
    )
    expected = embed(pychat, ["json"], pooling="last")[0]
    np.testing.assert_allclose(
        last.data[0].embedding, expected / np.linalg.norm(expected), rtol=1e-5, atol=1e-7
    )


def test_responses(openai_client: openai.OpenAI, answers: list[str]) -> None:
    first = openai_client.responses.create(
        model="pychat", input=QUESTION, temperature=0, extra_body=PLAIN
    )
    assert first.output_text == answers[0]
    assert first.status == "completed"
    second = openai_client.responses.create(
        model="pychat", input="Tell me more.", previous_response_id=first.id, extra_body=PLAIN
    )
    assert second.output_text == answers[1]
    assert openai_client.responses.retrieve(first.id).output_text == answers[0]
    openai_client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="response_id: expected a response that is kept"):
        openai_client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError, match="previous_response_id: expected"):
        openai_client.responses.create(model="pychat", input="x", previous_response_id=first.id)


def test_responses_that_are_not_stored(openai_client: openai.OpenAI) -> None:
    passing = openai_client.responses.create(
        model="pychat", input=QUESTION, store=False, max_output_tokens=5, extra_body=PLAIN
    )
    assert passing.status == "incomplete"
    assert passing.incomplete_details is not None
    assert passing.incomplete_details.reason == "max_output_tokens"
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(passing.id)


def test_streamed_responses(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(
        model="pychat", input=QUESTION, instructions="Be brief.", extra_body=PLAIN
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == final.output_text
    assert final.usage is not None and final.usage.output_tokens > 0


def test_responses_call_tools(openai_client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {
        "model": "pychat",
        "tools": [{"type": "function", **LOOK_UP}, {"type": "web_search"}],
        "parallel_tool_calls": False,
        "max_output_tokens": 300,
        "extra_body": {"seed": 3},
    }
    said: list[Any] = [{"role": "user", "content": QUESTION}]
    first = openai_client.responses.create(input=said, tool_choice="required", **ask)
    (call,) = first.output
    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), LOOK_UP["parameters"])
    with openai_client.responses.stream(input=said, tool_choice="required", **ask) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_response().output[0]
    assert "response.function_call_arguments.delta" in kinds
    assert streamed.type == "function_call" and streamed.arguments == call.arguments
    said += [
        call.model_dump(include={"type", "call_id", "name", "arguments"}),
        {"type": "function_call_output", "call_id": call.call_id, "output": "About JSON."},
    ]
    second = openai_client.responses.create(input=said, **ask)
    assert second.usage is not None and first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_responses_fit_a_schema(openai_client: openai.OpenAI) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "person", "schema": PERSON}}
    found = openai_client.responses.create(
        model="pychat", input="Who?", text=text, extra_body={"seed": 1}
    )
    jsonschema.validate(json.loads(found.output_text), PERSON)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "messages: expected list should have at least 1 item"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role: expected 'system'"),
        (
            {"messages": [{"role": "user", "content": ""}]},
            "messages[0].content: expected something",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type: expected text, got image_url",
        ),
        ({"top_logprobs": 3}, "top_logprobs: expected none without logprobs, got some"),
        ({"n": 99}, "n: expected at most 16, got 99"),
        ({"tool_choice": "required"}, "tool_choice: expected one of auto, none, got 'required'"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name: ",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema: "),
        ({"response_format": {"type": "xml"}}, "response_format.type: expected 'text'"),
        ({"extra_body": {"regex": "("}}, "regex: "),
        ({"extra_body": {"grammar": "start: %"}}, "grammar: "),
        ({"extra_body": {"reasoning_effort": "most"}}, "reasoning_effort: expected 'none'"),
        ({"extra_body": {"mirostat_tau": -1}}, "mirostat_tau: expected a number"),
        ({"extra_body": {"top_k": 1.5}}, "top_k: expected a valid integer, got 1.5"),
    ],
)
def test_wrong_values(openai_client: openai.OpenAI, fields: dict[str, Any], message: str) -> None:
    ask: dict[str, Any] = {"model": "pychat", "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(**{**ask, **fields})
    assert message in str(caught.value)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == message.partition(": ")[0]
