"""Conversations of every kind as a model reads them; and that calls that are forced can be made."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jsonschema
import pytest

from rwkv_py import Chat, Engine, InvalidArgumentError, Model, Session, Tokenizer
from rwkv_py.answer_reader import AnswerReader
from rwkv_py.chat_format import CHAT_FORMATS, Message
from rwkv_py.conversation import Written, answer_options, write_conversation, write_history
from rwkv_py.grammar import grammar_of
from rwkv_py.tools import Tool, ToolCall
from whim import write

WEATHER = Tool(
    name="get_weather",
    description="The weather\nof a city.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "unit": {"enum": ["c", "f"]},
            "days": {
                "type": "array",
                "items": {"type": "integer", "format": "int32"},
                "maxItems": 2,
            },
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOW = Tool(name="now", parameters={"properties": {}, "additionalProperties": False})


def said(*pairs: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=text) for role, text in pairs]  # type: ignore[arg-type]


CALLED = [
    *said(("system", "Be brief."), ("user", "How is\n\n\nRome?")),
    Message(
        role="assistant",
        content="<think>Hm.</think>Let me see.",
        tool_calls=(
            ToolCall(name="get_weather", arguments='{"city":"Rome"}', id="1"),
            ToolCall(name="now", arguments="{}", id="2"),
        ),
    ),
    *said(("tool", '{"t": 20}'), ("tool", "12:00")),
]


def test_a_list_of_tools() -> None:
    written = write_conversation(CHAT_FORMATS["world"], CALLED, tools=[WEATHER, NOW])
    assert written.parts == (
        "System: Be brief.\nTools:\n"
        '- get_weather(city: string, unit?: "c"|"f", days?: array of integer): The weather of a '
        "city.\n- now()\n"
        "Return only a JSON function call, or answer in words if none is needed.\n\n",
        "User: How is\nRome?\n\nAssistant:",
        ' Let me see.\n```json\n{"name": "get_weather", "arguments": {"city":"Rome"}}\n```\n'
        '```json\n{"name": "now", "arguments": {}}\n```\n\n',
        "",
        'User: Function output:\n{"t": 20}\nFunction output:\n12:00\n\nAssistant:',
    )
    assert written.prompt == "".join(written.parts)
    assert written.options == {"stop": ("\n\n",)}
    forced = write_conversation(
        CHAT_FORMATS["world"], CALLED, tools=[WEATHER, NOW], tool_choice="required"
    )
    assert "\nReturn only a JSON function call.\n\n" in forced.parts[0]
    assert forced.opening == " ```json\n"


def test_sections() -> None:
    written = write_conversation(CHAT_FORMATS["g1-tools"], CALLED, tools=[NOW])
    schema = '{\n  "type": "object",\n  "properties": {},\n  "additionalProperties": false\n}'
    assert written.prompt == (
        "### System\nBe brief.\n### `now`\n**Parameters:**\n```json\n" + schema + "\n```\n"
        "To call one of these tools, write exactly this format:\n**Tool Call:**\n```json\n"
        '{"name": "tool_name", "arguments": {"key": "value"}}\n```\n'
        "Do not invent tool call IDs or write tool outputs yourself.\n"
        "### User\nHow is\nRome?\n### Assistant\nLet me see.\n"
        '**Tool Call:**\n```json\n{"name": "get_weather", "arguments": {"city":"Rome"}}\n```\n'
        '**Tool Call:**\n```json\n{"name": "now", "arguments": {}}\n```\n'
        '### Tool Output\n```json\n{"t": 20}\n```\n### Tool Output\n```json\n12:00\n```\n'
        "### Assistant\n<think></think"
    )


@pytest.mark.parametrize("name", [name for name in CHAT_FORMATS if name != "raven"])
def test_a_chat_reads_the_same(trained: Model, name: str) -> None:
    chat_format = CHAT_FORMATS[name]
    pairs = [("system", "Explain."), ("user", "One?"), ("assistant", "1."), ("user", "Two?")]
    written = write_conversation(chat_format, said(*pairs))
    session = Session(trained)
    for part in filter(None, written.parts):
        session.feed(part)
    chat = Chat(trained, format=chat_format, messages=said(*pairs))
    assert abs(chat.session.state - session.state).max() < 2e-3
    # The parts of what was said before are the beginning of what is said later.
    later = write_conversation(chat_format, said(*pairs, ("assistant", "2."), ("user", "Three?")))
    assert later.parts[:4] == written.parts


@pytest.mark.parametrize(
    ("name", "pairs", "prompt"),
    [
        ("world", [("assistant", "a"), ("user", "b")], "Assistant: a\n\nUser: b\n\nAssistant:"),
        ("world", [("user", "a"), ("user", "b")], "User: a\nb\n\nAssistant:"),
        ("world", [("system", "s"), ("system", "t")], "System: s\nt\n\nAssistant:"),
        (
            "world",
            [("user", "a"), ("assistant", "b"), ("assistant", "c"), ("system", "d"), ("user", "e")],
            "User: a\n\nAssistant: b\n\nAssistant: c\n\nSystem: d\n\nUser: e\n\nAssistant:",
        ),
        ("world", [("system", " "), ("user", "a")], "User: a\n\nAssistant:"),
        ("world", [("user", "a"), ("assistant", "")], "User: a\n\nAssistant:"),
        ("g1-think", [("user", "a"), ("assistant", "")], "User: a\n\nAssistant: <think"),
        ("g1-think", [("user", "a"), ("assistant", "Once ")], "User: a\n\nAssistant: Once "),
        ("g1", [("user", "a"), ("assistant", "<think>So")], "User: a\n\nAssistant: <think>So"),
        (
            "g1",
            [("user", "a"), ("assistant", "<think>So</think> It")],
            "User: a\n\nAssistant: It",
        ),
        ("g1", [("tool", "5")], "User: Function output:\n5\n\nAssistant:"),
        ("g1-tools", [("tool", "5"), ("user", "a")], None),
    ],
)
def test_messages_in_any_order(name: str, pairs: list[tuple[str, str]], prompt: str | None) -> None:
    written = write_conversation(CHAT_FORMATS[name], said(*pairs))
    if prompt is None:
        prompt = "### Tool Output\n```json\n5\n```\n### User\na\n### Assistant\n<think></think"
    assert written.prompt == prompt
    assert len(written.parts) == len(pairs)


def test_a_format_without_a_system_prompt() -> None:
    from dataclasses import replace

    plain = replace(CHAT_FORMATS["world"], system="")
    for pairs in (
        [("system", "s"), ("user", "a")],
        [("user", "s"), ("system", "a")],
    ):
        assert write_conversation(plain, said(*pairs)).prompt == "User: s\na\n\nAssistant:"
    assert write_conversation(plain, said(("system", "s"))).prompt == "User: s\n\nAssistant:"
    assert (
        write_conversation(plain, said(("system", "s"), ("assistant", "a"), ("user", "b"))).prompt
        == "User: s\n\nAssistant: a\n\nUser: b\n\nAssistant:"
    )


@pytest.mark.parametrize(
    ("effort", "end"),
    [
        ("none", "User: Why?\n\nAssistant: <think>\n</think"),
        ("minimal", "User: Why?\n\nAssistant: <think>\n</think"),
        ("low", "User: Why? (think a bit)\n\nAssistant: <think"),
        ("medium", "User: Why? (think)\n\nAssistant: <think"),
        ("high", "User: Why? (think a lot)\n\nAssistant: <think"),
        ("xhigh", "User: Why? (think a lot)\n\nAssistant: <think"),
    ],
)
def test_effort(effort: Any, end: str) -> None:
    for name in ("g1", "g1-think", "g1-fast-think"):
        chat_format = CHAT_FORMATS[name].with_effort(effort)
        assert write_conversation(chat_format, said(("user", "Why?"))).prompt == end
    world = CHAT_FORMATS["world"]
    assert world.with_effort(effort) is world.with_effort(None) is world
    tools = CHAT_FORMATS["g1-tools"].with_effort(effort)
    assert tools.write_user("Why?") == "### User\nWhy?\n### Assistant\n"
    asked = write_conversation(CHAT_FORMATS["g1"].with_effort(effort), said(("tool", "5")))
    assert "think a" not in asked.parts[0]
    with pytest.raises(InvalidArgumentError, match="effort: expected one of none, minimal, low"):
        world.with_effort("extreme")  # type: ignore[arg-type]


def answer_of(written: Written, seed: int, **options: Any) -> Any:
    """Let a model answer that wants anything; return the reader that took it apart, and why."""
    merged: dict[str, Any] = {**written.options, **options}
    text, reason = write(Tokenizer.bytewise(), 256, seed, **merged)
    reader = written.reader()
    parts = [part for char in text for part in reader.push(char)] + reader.finish()
    return reader, parts, reason


@pytest.mark.parametrize("effort", [None, "none", "high"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", ["world", "g1", "g1-tools"])
def test_calls_that_are_forced_are_made(name: str, several: bool, effort: Any) -> None:
    written = write_conversation(
        CHAT_FORMATS[name].with_effort(effort),
        CALLED,
        tools=[WEATHER, NOW],
        tool_choice="required",
        parallel_tool_calls=several,
    )
    counts = set()
    for seed in range(6 if effort == "high" else 12):
        # Let reasoning come to its end: nobody else does here.
        short = {60: 6.0, 47: 3.0} if effort == "high" else {}
        reader, parts, reason = answer_of(written, seed, max_tokens=900, logit_bias=short)
        assert not any(part.kind == "answer" for part in parts)
        if reason == "length":
            continue
        counts.add(len(reader.calls))
        for call in reader.calls:
            tool = {"get_weather": WEATHER, "now": NOW}[call.name]
            jsonschema.validate(json.loads(call.arguments), tool.schema)
    if effort != "high":
        assert counts and 0 not in counts
        assert (max(counts) > 1) == several


def test_the_tool_that_is_named_is_called() -> None:
    written = write_conversation(
        CHAT_FORMATS["world"], CALLED, tools=[WEATHER, NOW], tool_choice="now"
    )
    assert "get_weather(" not in written.parts[0]
    reader, _, _ = answer_of(written, 1)
    assert {call.name for call in reader.calls} == {"now"}


def test_an_answer_that_must_fit_may_be_a_call_instead() -> None:
    schema = {"enum": ["yes", "no"]}
    written = write_conversation(CHAT_FORMATS["world"], CALLED, tools=[NOW], json_schema=schema)
    seen = set()
    for seed in range(30):
        reader, parts, reason = answer_of(written, seed, max_tokens=300)
        if reason != "length":
            seen.add("call" if reader.calls else "".join(part.text for part in parts))
    assert seen == {'"yes"', '"no"', "call"}
    none = write_conversation(
        CHAT_FORMATS["world"], CALLED, tools=[NOW], tool_choice="none", json_schema=schema
    )
    assert "Tools:" not in none.prompt
    assert {answer_of(none, seed)[1][0].text[0] for seed in range(4)} == {'"'}


def test_a_prefilled_answer_is_gone_on_with_so_that_it_fits() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    written = write_conversation(
        CHAT_FORMATS["world"], said(("user", "?"), ("assistant", '{"a": t')), json_schema=schema
    )
    _, parts, _ = answer_of(written, 1)
    assert "".join(part.text for part in parts) == "rue}"


def test_an_engine_writes_an_answer(trained: Model, engine: Engine) -> None:
    written = write_conversation(
        CHAT_FORMATS["g1"], CALLED, tools=[NOW], tool_choice="now", parallel_tool_calls=False
    )
    request = engine.submit(written.prompt, seed=1, max_tokens=60, **written.options)
    reader = written.reader()
    for piece in request:
        reader.push(piece)
    assert reader.calls == [ToolCall(name="now", arguments="{}")]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"messages": []}, "messages: expected at least one, got none"),
        ({"messages": 5}, "messages: expected messages, got 5"),
        ({"messages": [5]}, r"messages\[0\]: expected a Message, got int: 5"),
        ({"messages": said(("user", " "))}, r"messages\[0\].content: expected something to say"),
        ({"messages": said(("robot", "a"))}, r"messages\[0\].role: expected system, user, assist"),
        ({"messages": said(("user", "\ud800"))}, r"messages\[0\].content: expected Unicode"),
        ({"tools": [5]}, r"tools\[0\]: expected a Tool, got int: 5"),
        ({"tools": [NOW, NOW]}, "tools: expected each name once, got now again"),
        ({"tool_choice": "now"}, "tool_choice: expected one of auto, none, got 'now'"),
        ({"tool_choice": "required"}, "tool_choice: expected one of auto, none, got 'required'"),
        (
            {"tools": [NOW], "tool_choice": "x"},
            "expected one of auto, none, required, now, got 'x'",
        ),
        ({"tool_choice": 5}, "tool_choice: expected str, got int"),
        (
            {"tools": [NOW], "tool_choice": "now", "regex": "a"},
            "tool_choice: expected auto or none with regex, got now",
        ),
        (
            {"tools": [NOW], "tool_choice": "now", "messages": said(("assistant", "a"))},
            "tool_choice: expected auto or none to go on with an answer, got now",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], complaint: str) -> None:
    options = {"messages": said(("user", "a")), **options}
    with pytest.raises(InvalidArgumentError, match=complaint):
        write_conversation(CHAT_FORMATS["world"], **options)


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"name": "a b"}, "name: expected letters, digits"),
        ({"name": "a\n"}, "name: expected letters, digits"),
        ({"name": ""}, "name: expected letters, digits"),
        ({"name": "a" * 129}, "name: expected letters, digits"),
        ({"name": 5}, "name: expected str, got int"),
        ({"name": "a", "description": None}, "description: expected str"),
        ({"name": "a", "parameters": []}, "parameters: expected a JSON schema, got list"),
        ({"name": "a", "parameters": {"a": {1}}}, "parameters: expected JSON, got: Object of type"),
    ],
)
def test_tools_that_are_refused(attributes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Tool(**attributes)


def test_types_of_arguments() -> None:
    properties = {
        "a": {"type": ["string", "null"]},
        "b": {"anyOf": [{"type": "integer"}, {"enum": ["x"]}]},
        "c": True,
        "d\n\n": {},
        "e": {"type": "array"},
    }
    tool = Tool(name="f", parameters={"properties": properties, "required": ["b"]})
    written = write_conversation(CHAT_FORMATS["world"], said(("user", "a")), tools=[tool])
    line = '- f(a?: string|null, b: integer|"x", c?: any, d?: any, e?: array of any)'
    assert line in written.parts[0].splitlines()
    assert len(written.parts) == 1


@pytest.mark.parametrize("half", ["<", "</", "</th", "</think"])
def test_reasoning_that_was_cut_within_its_end(half: str) -> None:
    """What is to come is the rest of the mark, or more reasoning and a whole one."""
    grammar = grammar_of(regex="yes")
    options = answer_options(
        CHAT_FORMATS["g1"], grammar, opening=f" <think>Hm.{half}", place="thinking"
    )
    rest = "</think>"[len(half) :]
    for seed in range(6):
        want = {ord(char): 9.0 for char in rest}
        text, reason = write(
            Tokenizer.bytewise(), 256, seed, logit_bias=want, max_tokens=300, **options
        )
        reader = AnswerReader(f" <think>Hm.{half}")
        parts = reader.push(text) + reader.finish()
        answer = "".join(part.text for part in parts if part.kind == "answer")
        assert reason == "length" or answer == "yes"
        assert "think>" not in answer


@pytest.mark.parametrize("name", CHAT_FORMATS)
@pytest.mark.parametrize("tools", [(), (NOW,)])
def test_a_conversation_in_two_parts_is_the_whole(name: str, tools: tuple[Tool, ...]) -> None:
    """Cut after any answer; what begins a conversation, and tools, are written once."""
    chat_format = dataclasses.replace(CHAT_FORMATS[name], begin="Begin.\n\n")
    call = ToolCall(name="now", arguments="{}")
    messages = [
        *said(("system", "Be brief."), ("user", "One?"), ("assistant", "<think>Hm.</think>1.")),
        *said(("user", "Now?")), Message(role="assistant", content="", tool_calls=(call,)),
        *said(("tool", "noon"), ("assistant", "Noon."), ("user", "More?")),
    ]  # fmt: skip
    for begin in (0, 1):
        every = messages[begin:]
        whole = write_conversation(chat_format, every, tools=tools)
        for cut in range(1, len(every)):
            if every[cut - 1].role != "assistant":
                continue
            history, told = write_history(chat_format, every[:cut], tools=tools)
            rest = write_conversation(chat_format, every[cut:], tools=tools, after=told)
            assert history + rest.prompt == whole.prompt
            assert rest.told == told == whole.told
            # One more part.
            middle, same = write_history(chat_format, every[cut:-1], tools=tools, after=told) if (
                cut < len(every) - 1) else ("", told)  # fmt: skip
            last = write_conversation(chat_format, every[-1:], tools=tools, after=same)
            assert history + middle + last.prompt == whole.prompt
            if tools:  # others are told of
                other = write_conversation(chat_format, every[cut:], tools=[WEATHER], after=told)
                assert "get_weather" in other.prompt and other.told != told
            if tools and every[cut].role == "user":  # without, the model still knows of them
                without = write_conversation(chat_format, every[cut:], after=told)
                assert without.told == told


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_a_system_prompt_alone(name: str) -> None:
    chat_format = CHAT_FORMATS[name]
    system, user = said(("system", "Be brief."), ("user", "One?"))
    history, told = write_history(chat_format, [system])
    rest = write_conversation(chat_format, [user], after=told)
    assert history + rest.prompt == write_conversation(chat_format, [system, user]).prompt


@pytest.mark.parametrize("last", [[("user", "One?")], [("user", "One?"), ("system", "Brief.")]])
def test_a_user_has_not_the_last_word_of_what_is_over(last: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidArgumentError, match="messages: expected an answer of the assist"):
        write_history(CHAT_FORMATS["world"], said(*last))
    without = dataclasses.replace(CHAT_FORMATS["world"], system="")
    with pytest.raises(InvalidArgumentError, match="the format world has a place for"):
        write_history(without, said(("system", "Be brief.")))
