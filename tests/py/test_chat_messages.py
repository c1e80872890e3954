"""Chats from given messages, answers gone on with, turns that are changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import Chat, InvalidArgumentError, Message, Model, Session

GREEDY: dict[str, Any] = {
    "temperature": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {10: -1000.0},  # an empty line would end the answer
}
SAID = [
    {"role": "system", "content": "You explain Python."},
    {"role": "user", "content": "What is json?"},
    {"role": "assistant", "content": "A module."},
    {"role": "user", "content": "And os?"},
    {"role": "assistant", "content": "Another."},
]


@pytest.fixture
def chat(trained: Model) -> Chat:
    return Chat(trained, max_tokens=12, **GREEDY)


def read_by(model: Model, text: str) -> Any:
    session = Session(model)
    session.feed(text)
    return session.state


def test_messages_are_read_as_if_they_had_been_said(trained: Model) -> None:
    chat = Chat(trained, messages=SAID, **GREEDY)
    text = (
        "System: You explain Python.\n\nUser: What is json?\n\nAssistant: A module.\n\n"
        "User: And os?\n\nAssistant: Another.\n\n"
    )
    np.testing.assert_allclose(chat.session.state, read_by(trained, text), atol=2e-3)
    assert [(m.role, m.content) for m in chat.messages] == [(m["role"], m["content"]) for m in SAID]
    again = Chat(trained, messages=chat.messages, **GREEDY)
    assert again.ask("And sys?", max_tokens=9) == chat.ask("And sys?", max_tokens=9)
    chat.undo(3)
    assert len(chat.messages) == 1


def test_a_question_that_is_the_last_is_answered(trained: Model) -> None:
    asked = Chat(trained, messages=SAID[:4], max_tokens=12, **GREEDY)
    assert asked.messages[-1].role == "user"
    said = Chat(trained, messages=SAID[:3], max_tokens=12, **GREEDY)
    expected = said.ask("And os?")
    assert asked.continue_().read() == expected
    assert asked.messages == said.messages


def test_a_question_without_an_answer_is_kept(trained: Model, tmp_path: Path) -> None:
    chat = Chat(trained, messages=SAID[:4], max_tokens=5, **GREEDY)
    chat.save(tmp_path / "a.chat")
    other = Chat(trained, max_tokens=5, **GREEDY)
    other.load(tmp_path / "a.chat")
    assert other.messages == chat.messages
    assert other.continue_().read() == chat.continue_().read()
    other.load(tmp_path / "a.chat")
    other.ask("And sys?")  # the other question stays without one
    assert [m.content for m in other.messages[3:6]] == ["And os?", "", "And sys?"]


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        (5, "messages: expected several, got 5"),
        ([5], r"messages\[0\]: expected a Message or a dict, got int: 5"),
        ([{"role": "user"}], r"messages\[0\]: expected role and content, and perhaps thinking"),
        ([{**SAID[1], "x": 1}], r"messages\[0\]: expected role and content.* got content, role, x"),
        ([SAID[2]], r"messages\[0\].role: expected user, got assistant"),
        ([SAID[1], SAID[1]], r"messages\[1\].role: expected assistant, got user"),
        ([SAID[1], SAID[2], SAID[0]], r"messages\[2\].role: expected user, got system"),
        ([{"role": "user", "content": 5}], r"messages\[0\].content: expected str, got int"),
        ([{"role": "user", "content": " "}], "text: expected something to say, got nothing"),
    ],
)
def test_messages_that_do_not_take_turns(trained: Model, messages: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Chat(trained, messages=messages)
    with pytest.raises(InvalidArgumentError, match="system: expected none with messages"):
        Chat(trained, messages=messages, system="Be brief.")


def test_going_on_with_a_cut_answer_is_as_if_it_had_not_been_cut(chat: Chat) -> None:
    whole = chat.ask("What is json?", max_tokens=36)
    chat.undo()
    chat.ask("What is json?")
    for _ in range(2):
        reply = chat.continue_()
        new = "".join(reply)
        assert reply.is_cut
        assert reply.text.endswith(new) and len(new) < len(reply.text)
    assert chat.messages[-1].content == whole
    # What the model remembers is one answer, too.
    follow = chat.ask("And os?")
    chat.reset()
    chat.ask("What is json?", max_tokens=36)
    assert chat.ask("And os?") == follow


def test_going_on_with_an_answer_that_was_cut_within_a_character(trained: Model) -> None:
    """What was begun of it is left out, and the answer read again without it."""
    chat = Chat(trained, **GREEDY)
    options: dict[str, Any] = {"regex": " é{3}", "max_tokens": 4}  # a byte is a token
    assert chat.ask("What is json?", **options) == "é"
    chat.continue_(max_tokens=5).read()
    assert "�" not in chat.messages[-1].content
    assert chat.messages[-1].content.startswith("é")


def test_going_on_with_reasoning(trained: Model) -> None:
    options: dict[str, Any] = {"format": "g1-think", **GREEDY}
    whole = Chat(trained, **options)
    whole.ask("Why?", max_tokens=40, regex="yes")  # which makes the model reason at all
    chat = Chat(trained, **options)
    reply = chat.stream("Why?", max_tokens=16, regex="yes")
    reply.read()
    assert reply.thinking and not reply.text
    chat.continue_(max_tokens=24, regex="yes").read()
    assert chat.messages == whole.messages


def test_going_on_from_a_beginning_that_is_given(chat: Chat) -> None:
    chat.ask("What is json?")
    reply = chat.continue_("The module json ", max_tokens=8)
    new = "".join(reply)
    assert reply.read() == chat.messages[-1].content
    assert chat.messages[-1].content.startswith("The module json")
    assert new and new in chat.messages[-1].content
    assert len(chat.messages) == 2
    cut = Chat(chat.session.model, messages=chat.messages, max_tokens=4, **GREEDY)
    assert cut.continue_().read().startswith(chat.messages[-1].content)


def test_going_on_with_nothing(chat: Chat) -> None:
    with pytest.raises(InvalidArgumentError, match="expected one to go back to, got none"):
        chat.continue_()
    chat.ask("What is json?", max_tokens=0)
    with pytest.raises(InvalidArgumentError, match="text: expected str, got int"):
        chat.continue_(5)  # type: ignore[arg-type]
    assert chat.continue_().read()


def test_any_turn_is_edited(trained: Model, chat: Chat) -> None:
    for question in ("One?", "Two?", "Three?"):
        chat.ask(question)
    state, messages = chat.session.state, chat.messages
    for wrong in (3, -4):
        with pytest.raises(InvalidArgumentError, match=r"turn: expected -3 to 2, got"):
            chat.edit("Four?", turn=wrong)
    with pytest.raises(InvalidArgumentError, match="expected something to say"):
        chat.edit(" ", turn=0)
    with pytest.raises(InvalidArgumentError, match="top_p"):
        chat.edit("Four?", turn=0, top_p=9)
    chat._settle()
    assert np.array_equal(chat.session.state, state) and chat.messages == messages
    edited = chat.edit("Four?", turn=1).read()
    assert [m.content for m in chat.messages[::2]] == ["One?", "Four?"]
    other = Chat(trained, max_tokens=12, **GREEDY)
    other.ask("One?")
    assert other.ask("Four?") == edited


def test_a_turn_is_edited_whose_state_is_not_kept(trained: Model) -> None:
    chat = Chat(trained, max_tokens=6, undo_turns=1, **GREEDY)
    for question in ("One?", "Two?", "Three?", "Four?"):
        chat.ask(question)
    other = Chat(trained, messages=chat.messages[:2], max_tokens=6, **GREEDY)
    assert chat.edit("Five?", turn=1).read() == other.ask("Five?")
    assert chat.edit("Six?", turn=0).read() == Chat(trained, max_tokens=6, **GREEDY).ask("Six?")


@pytest.mark.parametrize("format", ["world", "g1", "g1-think", "g1-fast-think", "g1-tools"])
def test_answers_fit_after_the_reasoning(trained: Model, format: str) -> None:
    chat = Chat(trained, format=format, temperature=1.2, top_p=1)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    answers = set()
    for seed in range(3):
        reply = chat.stream("Is it?", json_schema=schema, seed=seed, max_tokens=120)
        answers.add(reply.read().replace(" ", ""))
        if reply.is_cut:  # while it reasoned
            assert format == "g1-think" and not reply.text
    assert answers <= {'{"a":true}', '{"a":false}', ""}
    if format == "g1-think":
        reply = chat.continue_(regex="(yes|no)", max_tokens=3)
        reply.read()
    else:
        assert "" not in answers
    if format != "g1-think":  # what ends an answer elsewhere may stand in one that fits
        told = chat.ask("And so?", regex="[0-9]{2}\n\n[a-z]")
        assert re.fullmatch("[0-9]{2}\n\n[a-z]", told)


def test_going_on_with_an_answer_that_must_fit(chat: Chat) -> None:
    schema = {"enum": ["abcdefghij"]}
    chat.ask("What is json?", json_schema=schema, max_tokens=5)
    assert chat.continue_(json_schema=schema).read() == '"abcdefghij"'
    chat.ask("And os?", max_tokens=3)
    with pytest.raises(InvalidArgumentError, match="expected what a text can fit"):
        chat.continue_("hello", json_schema=schema)


def test_messages_with_an_input(trained: Model) -> None:
    said = [
        Message(role="user", content="Sum up.", input="A text."),
        Message(role="assistant", content="T"),
    ]
    chat = Chat(trained, messages=said, format="instruct", max_tokens=3, **GREEDY)
    assert chat.messages == said
    assert chat.session.fork().feed("x").shape == (256,)
