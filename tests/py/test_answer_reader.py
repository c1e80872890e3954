"""Answers taken apart: wherever their text is cut into pieces, the result is the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_py.answer_reader import AnswerPart, AnswerReader
from rwkv_py.tools import ToolCall

TOOLS = ("get_weather", "now")
CALL = '{"name": "get_weather", "arguments": {"city": "Rome \\"}{\\" ```"}}'
ARGUMENTS = '{"city": "Rome \\"}{\\" ```"}'
FENCED = f"```json\n{CALL}\n```"
PRETTY = json.dumps(json.loads(CALL), indent=2)

Told = tuple[str, str, list[tuple[str, str]]]


def told(pieces: Iterable[str], opening: str = "", **options: object) -> Told:
    """What is reasoned, what is said, and the calls."""
    reader = AnswerReader(opening, **{"tools": TOOLS, **options})  # type: ignore[arg-type]
    parts: list[AnswerPart] = []
    for piece in filter(None, pieces):
        parts += reader.push(piece)
    parts += reader.finish()
    assert all(part.text for part in parts)
    calls: list[tuple[str, str]] = []
    for part in parts:
        if part.kind == "call":
            assert part.index == len(calls)
            calls.append((part.text, ""))
        elif part.kind == "arguments":
            assert part.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    assert reader.calls == [ToolCall(name=name, arguments=text) for name, text in calls]
    joined = {
        kind: "".join(p.text for p in parts if p.kind == kind) for kind in ("thinking", "answer")
    }
    return joined["thinking"], joined["answer"], calls


WEATHER = ("get_weather", ARGUMENTS)
ANSWERS = {
    "said": ("", " Just text, with `code` and ``` fences.\n```python\nx\n```", None, []),
    "fence": ("", f" {FENCED}", "", [WEATHER]),
    "said before": ("", f"Let me see.\n{FENCED}\n", "Let me see.", [WEATHER]),
    "reasoned before": (" <think", f">Hm.</think>\n{FENCED}", "", [WEATHER]),
    "several fences": ("", f"{FENCED}\n{FENCED}", "", [WEATHER, WEATHER]),
    "a list": ("", f'```json\n[{CALL}, {{"name": "now"}}]\n```', "", [WEATHER, ("now", "{}")]),
    "a list that is bare": ("", f" [{CALL},{CALL}]", "", [WEATHER, WEATHER]),
    "bare": ("", f" {CALL}", "", [WEATHER]),
    "bare, then said": ("", f"{CALL}\n\nDone.", "Done.", [WEATHER]),
    "sections": ("", f"**Tool Call:**\n{FENCED}\n**Tool Call:**\n{FENCED}", "", [WEATHER, WEATHER]),
    "sections, no language": ("", f"**Tool Call:** ```\n{CALL}\n```", "", [WEATHER]),
    "sections, no fence": ("", f"**Tool Call:**\n{CALL}\n", "", [WEATHER]),
    "opened": ("```json\n", f"{CALL}\n```", "", [WEATHER]),
    "indented": (
        "",
        f"```json\n{PRETTY}\n```",
        "",
        [("get_weather", '{\n    "city": "Rome \\"}{\\" ```"\n  }')],
    ),
    "the other way round": (
        "",
        '```json\n{"type": "function", "parameters": {"a": [1]}, "x": null, "name": "now"}\n```',
        "",
        [("now", '{"a": [1]}')],
    ),
    "arguments as text": (
        "",
        '```json\n{"name": "now", "arguments": "{\\"a\\": 1}"}\n```',
        "",
        [("now", '{"a": 1}')],
    ),
    "no arguments": ("", '```json\n{"name": "now", "arguments": null}\n```', "", [("now", "{}")]),
    "no such tool": ("", '```json\n{"name": "never", "arguments": {}}\n```', None, []),
    "no tool at all": ("", '```json\n{"a": 1}\n```\nThat is it.', None, []),
    "an answer in JSON": ("", '{"a": {"b": [1, 2]}}', None, []),
    "a name that is no text": ("", '```json\n{"name": 5}\n```', None, []),
    "a fence that is no call, and one that is": (
        "",
        f"```json\n[1]\n```\n{FENCED}",
        "```json\n[1]\n```",
        [WEATHER],
    ),
    "a mark in a mark": (
        "",
        f"**Tool Call:** **Tool Call:**\n{FENCED}",
        "**Tool Call:**",
        [WEATHER],
    ),
    "no more than a mark": ("", "What ```json", None, []),
    "no more than half of one": ("", "What **Tool", None, []),
    "half a call": ("", '```json\n{"name": "get_w', None, []),
    "a call whose arguments are cut": (
        "",
        '```json\n{"name": "now", "arguments": {"a": "b',
        "",
        [("now", '{"a": "b')],
    ),
    "a call and then nonsense": (
        "",
        '```json\n{"name": "now", "arguments": {}} x',
        "x",
        [("now", "{}")],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_wherever_it_is_cut(name: str) -> None:
    opening, text, said, calls = ANSWERS[name]
    thinking = "Hm." if "Hm." in text else ""
    expected = (thinking, text.strip() if said is None else said, calls)
    assert told([text], opening) == expected
    assert told(text, opening) == expected
    for cut in range(len(text) + 1):
        assert told([text[:cut], text[cut:]], opening) == expected, cut


@given(
    st.lists(
        st.sampled_from(
            [
                "```json",
                "```",
                "**Tool",
                " Call:**",
                "\n",
                " ",
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                '"',
                "\\",
                '"name"',
                '"now"',
                '"arguments"',
                '{"name": "now", "arguments": ',
                "a",
                "1",
                "<think>",
                "</think>",
                "</thi",
                "ö",
            ]
        ),
        max_size=25,
    ),
    st.lists(st.integers(0, 80), max_size=4),
    st.sampled_from(["", " <think", "```json\n", "<think></think"]),
    st.booleans(),
)
def test_any_text_wherever_it_is_cut(
    pieces: list[str], cuts: list[int], opening: str, only_calls: bool
) -> None:
    text = "".join(pieces)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    cut = [text[a:b] for a, b in itertools.pairwise(places)]
    expected = told([text], opening, only_calls=only_calls)
    assert told(cut, opening, only_calls=only_calls) == expected
    assert told(text, opening, only_calls=only_calls) == expected
    if not expected[2] and not only_calls and not opening and "<think>" not in text:
        assert expected[1] == text.strip()  # nothing is lost


def test_arguments_come_as_they_are_written() -> None:
    reader = AnswerReader(tools=TOOLS)
    assert reader.push('Well. ```json\n{"name": "now", ') == [
        AnswerPart("answer", "Well."),
        AnswerPart("call", "now"),
    ]
    assert reader.push('"arguments": {"a"') == [AnswerPart("arguments", '{"a"')]
    assert reader.push(": 1") == [AnswerPart("arguments", ": 1")]
    assert reader.push("}}\n``") == [AnswerPart("arguments", "}")]
    assert reader.push("`") == reader.finish() == []


def test_where_only_calls_are_possible_half_a_mark_is_no_answer() -> None:
    text = f"{FENCED}\n```json\n{{"
    for cut in range(len(text)):
        thinking, said, calls = told([text[:cut]], only_calls=True)
        assert (thinking, said) == ("", "")
        assert len(calls) <= 1


def test_without_tools_a_fence_is_text() -> None:
    assert told([FENCED], tools=()) == ("", FENCED, [])


def test_an_answer_that_is_gone_on_with() -> None:
    assert told(["x</think> y"], place="thinking", tools=()) == ("x", "y", [])
    assert told(["<think>x</think> y"], place="answer", tools=()) == ("", "<think>x</think> y", [])
