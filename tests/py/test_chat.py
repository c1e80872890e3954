"""Chat: what the model reads, and that turns can be taken back at the price of a state."""

from __future__ import annotations

import gc
import inspect
import re
import signal
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

from rwkv_py import (
    Chat,
    ChatFormat,
    InvalidArgumentError,
    Model,
    SamplingOptions,
    Session,
    Tokenizer,
    UnknownOptionError,
)
from rwkv_py.answer_reader import AnswerPart, AnswerReader
from rwkv_py.chat_format import CHAT_FORMATS
from rwkv_py.prompt import Prompt

NO_NEWLINE = {10: -1000.0}  # an empty line would end the answer
NO_END = {**NO_NEWLINE, 0: -1000.0}
SYSTEM = "You explain\n\n\nPython."


class Scripted(Session):
    """A session whose model says what it is told to say, and that remembers what it reads."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.script: list[bytes] = []
        self.read = b""

    def say(self, *texts: str) -> None:
        self.script = [text.encode() for text in texts]

    def _read(self, prompt):  # type: ignore[no-untyped-def]
        self.read += bytes(prompt.tokens.tolist())
        super()._read(prompt)

    def fork(self) -> Session:
        copy = super().fork()
        copy.read = self.read  # type: ignore[attr-defined]
        copy.script = []  # type: ignore[attr-defined]
        return copy

    def copy_from(self, other: Session) -> None:
        super().copy_from(other)
        self.read = other.read  # type: ignore[attr-defined]

    def stream(self, prompt, **options):  # type: ignore[no-untyped-def]
        stream = super().stream(prompt, **options)
        draw, rest = stream._writer.draw, iter(self.script.pop(0) + b"\0" if self.script else b"")

        def scripted() -> int:
            draw()
            return next(rest, 0)

        stream._writer.draw = scripted
        return stream


@pytest.fixture
def scripted(trained: Model) -> Scripted:
    return Scripted(trained)


def chat_of(session: Scripted, *texts: str, **options: object) -> Chat:
    chat = Chat(session, **options)  # type: ignore[arg-type]
    session.say(*texts)
    return chat


# ---- what the model reads


@pytest.mark.parametrize(
    ("format", "answers", "read"),
    [
        (
            "world",
            [" Fine.\n\nUser:", " Yes."],
            "System: Be kind.\n\nUser: How are\nyou?\n\nAssistant: Fine.\n\n"
            "User: Really?\n\nAssistant: Yes.",
        ),
        (
            "g1",
            [" One.\n\nTwo.\n\nUser: x", " Yes."],
            "System: Be kind.\n\nUser: How are\nyou?\n\nAssistant: One.\n\nTwo.\n\n"
            "User: Really?\n\nAssistant: Yes.",
        ),
        (
            "g1-think",
            [">\nHm.\n\nWell.\n</think>\nFine.\n\nUser: x", ">\nTrue?\n</think>\nYes."],
            "System: Be kind.\n\nUser: How are\nyou?\n\nAssistant: Fine.\n\n"
            "User: Really?\n\nAssistant: Yes.",
        ),
        (
            "g1-fast-think",
            [">\nFine.\n\nUser: x", ">\nYes."],
            "System: Be kind.\n\nUser: How are\nyou?\n\nAssistant: Fine.\n\n"
            "User: Really?\n\nAssistant: Yes.",
        ),
        (
            "instruct",
            [" Fine.\n\nInstruction: x", " Yes."],
            "Be kind.\n\nInstruction: How are\nyou?\n\nResponse: Fine.\n\n"
            "Instruction: Really?\n\nResponse: Yes.",
        ),
        (
            "raven",
            ["Fine.\n\n# Instruction:\nx", "Yes."],
            "Be kind.\n\n"
            "\nBelow is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n# Instruction:\nHow are\nyou?\n\n# Response:\nFine.\n\n"
            "\nBelow is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n# Instruction:\nReally?\n\n# Response:\nYes.",
        ),
        (
            "raven-chat",
            [" Fine.\n\nBob", " Yes."],
            "Be kind.\n\nBob: How are\nyou?\n\nAlice: Fine.\n\nBob: Really?\n\nAlice: Yes.",
        ),
    ],
)  # fmt: skip
def test_chat_reads_the_clean_history(
    scripted: Scripted, format: str, answers: list[str], read: str
) -> None:
    chat = chat_of(scripted, *answers, format=format, system="Be kind.")
    first, second = chat.ask(" How are\r\n\r\n\nyou?\n"), chat.ask("Really?")
    assert (first, second) == ("One.\n\nTwo." if format == "g1" else "Fine.", "Yes.")
    assert scripted.read.decode() == read + "\n\n"
    clean = Session(scripted.model)
    clean.feed(read + "\n\n")
    np.testing.assert_allclose(scripted.state, clean.state, rtol=0, atol=1e-3)


def test_opening_is_read_before_the_answer(scripted: Scripted) -> None:
    chat = chat_of(scripted, ">\n", format="g1-think")
    reply = chat.stream("Hi")
    assert next(reply, None) is None
    assert scripted.read.endswith(b"Assistant:\n\n")  # no answer: nothing after the name
    assert chat.messages[-1].content == ""
    world = Tokenizer.world()
    for chat_format in CHAT_FORMATS.values():  # an opening may be read apart from what it follows
        whole = chat_format.write_user("Hi") + chat_format.opening
        cut = world.encode(chat_format.write_user("Hi")) + world.encode(chat_format.opening)
        assert world.encode(whole) == cut


def test_input_of_an_instruction(scripted: Scripted) -> None:
    chat = chat_of(scripted, " A.", format="instruct")
    chat.ask("Sum up.", input="A\n\nB")
    assert scripted.read.startswith(b"Instruction: Sum up.\n\nInput: A\nB\n\nResponse: A.")
    with pytest.raises(InvalidArgumentError, match="input: expected none in the format world"):
        Chat(scripted).ask("Sum up.", input="A")


def test_custom_format(scripted: Scripted) -> None:
    mine = ChatFormat(name="mine", user="Q: {}\nA:", end="\n", stop=("\n",))
    chat = chat_of(scripted, " {4}\n", format=mine)
    assert chat.ask("2 + 2 = {}?") == "{4}"
    assert scripted.read == b"Q: 2 + 2 = {}?\nA: {4}\n"


def test_stop_strings_besides_those_of_the_format(scripted: Scripted) -> None:
    chat = chat_of(scripted, " One. ### Two.", " A. [b] ###\n\nUser: x", " Yes.", stop="###")
    assert chat.ask("First?") == "One."
    assert chat.ask("Second?", stop=["[", b"]"]) == "A."
    assert chat.ask("Third?") == "Yes."
    assert scripted.read.decode() == (
        "User: First?\n\nAssistant: One.\n\nUser: Second?\n\nAssistant: A.\n\n"
        "User: Third?\n\nAssistant: Yes.\n\n"
    )
    scripted.say(" No!", " a ### b\n\nUser: x")
    assert chat.retry(stop="!").read() == "No"
    assert chat.edit("Third?", stop=()).read() == "a ### b"
    with pytest.raises(InvalidArgumentError, match="stop: expected no empty string"):
        chat.stream("x", stop="")
    with pytest.raises(InvalidArgumentError, match="stop: expected no empty string"):
        Chat(scripted, stop=[""])


# ---- reasoning


def test_parts_and_pieces(scripted: Scripted) -> None:
    chat = chat_of(scripted, "> Hm, so\n</think>\n\nYes </b> no \n\nUser:", format="g1-think")
    reply = chat.stream("Hi")
    parts = list(reply.parts())
    assert all(part.text for part in parts)
    assert "".join(p.text for p in parts if p.kind == "thinking") == reply.thinking == "Hm, so"
    assert "".join(p.text for p in parts if p.kind == "answer") == reply.text == "Yes </b> no"
    assert chat.messages[-1].thinking == "Hm, so"
    assert reply.finish_reason == "stop"


def test_unasked_reasoning_is_not_an_answer(scripted: Scripted) -> None:
    chat = chat_of(scripted, " <think>Hm.</think> Yes.", format="g1")
    assert list(chat.stream("Hi")) == [*"Yes."]
    assert chat.messages[-1].thinking == "Hm."


@pytest.mark.parametrize(
    ("opening", "text", "thinking", "answer"),
    [
        ("", "plain", "", "plain"),
        ("", " <thin", "", "<thin"),
        ("", "<b>", "", "<b>"),
        ("", "", "", ""),
        (" <think", "", "", ""),
        (" <think", ">endless </thin", "endless </thin", ""),
        (" <think", "ing</think>", "", "<thinking</think>"),
        ("", "<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ],
)
def test_splitter(opening: str, text: str, thinking: str, answer: str) -> None:
    for size in (1, 3, 100):
        splitter = AnswerReader(opening)
        parts: list[AnswerPart] = []
        for at in range(0, len(text), size):
            parts += splitter.push(text[at : at + size])
        parts += splitter.finish()
        assert "".join(p.text for p in parts if p.kind == "thinking") == thinking
        assert "".join(p.text for p in parts if p.kind == "answer") == answer


# ---- taking back


@pytest.fixture
def chat(trained: Model) -> Chat:
    return Chat(trained, system=SYSTEM, max_tokens=25, seed=3, logit_bias=NO_NEWLINE)


def test_retry(chat: Chat) -> None:
    chat.ask("What is json?")
    before = chat.messages
    again = chat.retry().read()
    assert chat.messages == before
    assert again == before[-1].content
    assert chat.retry(seed=4).read() != again
    assert len(chat.messages) == 3


def test_undo_is_as_if_never_said(chat: Chat) -> None:
    chat.ask("What is json?")
    chat._settle()
    state, messages = chat.session.state, chat.messages
    chat.ask("And os?")
    chat.ask("And sys?")
    chat.undo(2)
    assert np.array_equal(chat.session.state, state)
    assert chat.messages == messages
    chat.undo()
    fresh = Chat(chat.session.model, system=SYSTEM)
    assert np.array_equal(chat.session.state, fresh.session.state)
    with pytest.raises(InvalidArgumentError, match="expected one to go back to, got none"):
        chat.undo()


def test_edit(chat: Chat, trained: Model) -> None:
    chat.ask("What is json?")
    chat.edit("What is os?").read()
    other = Chat(trained, system=SYSTEM, max_tokens=25, seed=3, logit_bias=NO_NEWLINE)
    other.ask("What is os?")
    assert chat.messages == other.messages
    before = chat.messages
    for bad in ({"text": " \n"}, {"text": "x", "temperature": -1.0}):
        with pytest.raises(InvalidArgumentError):
            chat.edit(**bad)  # type: ignore[arg-type]
        assert chat.messages == before
    chat._settle()
    other._settle()
    assert np.array_equal(chat.session.state, other.session.state)


def test_reset(chat: Chat) -> None:
    first = chat.ask("What is json?")
    chat.reset()
    assert [message.role for message in chat.messages] == ["system"]
    assert chat.ask("What is json?") == first


def test_reply_left_early(chat: Chat) -> None:
    reply = chat.stream("What is json?")
    begun = next(reply) + next(reply)
    chat.ask("And os?")
    assert chat.messages[2].content == begun.strip() == reply.text.strip()
    assert next(reply, None) is None
    assert reply.finish_reason is None


def test_nothing_changes_when_refused(chat: Chat) -> None:
    chat.ask("What is json?")
    chat._settle()
    state, messages = chat.session.state, chat.messages
    for bad in ({"text": ""}, {"text": "x", "top_p": 2.0}, {"text": "x", "max_tokens": -1}):
        with pytest.raises(InvalidArgumentError):
            chat.stream(**bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError):
        chat.retry(temperature=-1.0)
    assert np.array_equal(chat.session.state, state)
    assert chat.messages == messages


def test_ctrl_c_while_a_reply_is_written(chat: Chat) -> None:
    reply = chat.stream("What is json?", max_tokens=1_000_000, temperature=0, logit_bias=NO_END)
    next(reply)
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        reply.read()
    reply.close()
    assert chat.messages[-1].content == reply.text != ""
    clean = Session(chat.session.model)
    clean.feed("System: You explain\nPython.\n\n")
    clean.feed("User: What is json?\n\nAssistant:")
    clean.feed(f" {reply.text}\n\n")
    assert np.array_equal(chat.session.state, clean.state)


def test_arguments(trained: Model) -> None:
    with pytest.raises(InvalidArgumentError, match=r"format: expected one of world, g1.*alpaca"):
        Chat(trained, format="alpaca")
    with pytest.raises(InvalidArgumentError, match="undo_turns: expected 1 or more, got 0"):
        Chat(trained, undo_turns=0)
    with pytest.raises(InvalidArgumentError, match="temperature"):
        Chat(trained, temperature=-1)
    with pytest.raises(InvalidArgumentError, match="expected one to go back to"):
        Chat(trained).retry()
    with pytest.raises(InvalidArgumentError, match=r"format: expected one of world.*got 3"):
        Chat(trained, format=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="system: expected str, got int"):
        Chat(trained, system=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("say", [Chat.ask, Chat.stream, Chat.edit])
def test_what_cannot_be_said(say: Any, chat: Chat) -> None:
    chat.ask("What is json?")
    before, state = chat.messages, chat.session.state
    for text in (3, None, b"bytes", ["a list"]):
        with pytest.raises(InvalidArgumentError, match=r"text: expected str, got \w+$"):
            say(chat, text)
    with pytest.raises(InvalidArgumentError, match=r"text: .*lone surrogate '.ud800' at 1$"):
        say(chat, "a\ud800")
    with pytest.raises(InvalidArgumentError, match="input: expected none in the format world"):
        say(chat, "x", input="y")
    assert chat.messages == before
    chat.undo()
    assert not np.array_equal(chat.session.state, state)


@pytest.mark.parametrize("method", ["ask", "stream", "retry", "edit", "check"])
def test_options_of_a_reply_are_shown_and_refused_by_name(method: str, chat: Chat) -> None:
    shown = inspect.signature(getattr(Chat, method)).parameters
    assert {"max_tokens", "stop", *SamplingOptions.__annotations__} <= shown.keys()
    assert {"max_tokens", *SamplingOptions.__annotations__} <= inspect.signature(
        Chat
    ).parameters.keys()
    text = () if method in ("retry", "check") else ("Hi",)
    with pytest.raises(UnknownOptionError, match=r"got 'temprature'\. Try temperature"):
        getattr(chat, method)(*text, temprature=1)
    with pytest.raises(UnknownOptionError, match=r"got 'max_new_tokens'\. Try max_tokens"):
        getattr(chat, method)(*text, max_new_tokens=1)
    with pytest.raises(UnknownOptionError, match=r"got 'temprature'\. Try temperature"):
        Chat(chat.session.model, temprature=1)  # type: ignore[call-arg]
    chat.ask("Hi", max_tokens=None, stop=None)  # type: ignore[arg-type]


def test_a_reply_that_is_left_frees_the_session(chat: Chat) -> None:
    reply = chat.stream("What is json?")
    next(reply)
    chat.reset()
    assert reply.ended
    assert chat.session.generate("import ", max_tokens=3)
    reply = chat.stream("What is json?")
    next(reply)
    reply.close()
    assert chat.session.generate("import ", max_tokens=3)


def test_input_is_text(scripted: Scripted) -> None:
    with pytest.raises(InvalidArgumentError, match="input: expected str, got int"):
        Chat(scripted, format="instruct").ask("x", input=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": 3}, "name: expected str, got int"),
        ({"user": "no place"}, r"user: expected a text with {}, got 'no place'. Try {{ and }}"),
        ({"user": "{"}, "user: expected a text with {}, got '{'"),
        ({"user": "{0} {1}"}, "user: expected a text with {}"),
        ({"user": "{x.y}"}, "user: expected a text with {}"),
        ({"user": "{} {}"}, "user: expected a text with {}"),
        ({"user": ""}, "user: expected a text with one {}, got ''"),
        ({"system": "System:"}, "system: expected a text with {}"),
        ({"user_with_input": "{}"}, "user_with_input: expected a text with {} and {}, got"),
        ({"stop": "\n"}, "stop: expected strings in a tuple, got"),
        ({"stop": (3,)}, "stop: expected strings in a tuple, got"),
    ],
)
def test_a_format_that_cannot_be_written(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(complaint).replace(r"\.\ ", ". ")):
        ChatFormat(**{"name": "mine", **fields})


def test_reprs(chat: Chat) -> None:
    assert repr(ChatFormat.named("raven-chat")) == "<ChatFormat raven-chat: 'Bob: {}\\n\\nAlice:'>"
    assert repr(chat).startswith("<Chat in the format world, 0 turns: <Session of <Model ")
    reply = chat.stream("What is json?", max_tokens=3)
    assert repr(reply) == "<Reply: 0 tokens, being written>"
    reply.read()
    assert repr(reply) == "<Reply: 3 tokens, finish_reason 'length'>"
    assert reply.ended
    reply = chat.stream("And os?")
    assert not reply.ended
    reply.close()
    assert repr(reply) == "<Reply: 0 tokens, left early>"
    assert reply.ended
    assert ", 2 turns: " in repr(chat)


# ---- long chats


def test_200_turns_cost_the_same(trained: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant work: the model never reads a turn again."""
    read = 0
    read_prompt = Session._read

    def counting(session: Session, prompt: Prompt) -> None:
        nonlocal read
        read += prompt.tokens.size
        read_prompt(session, prompt)

    monkeypatch.setattr(Session, "_read", counting)
    chat = Chat(trained, max_tokens=12, undo_turns=3, seed=1)
    work = []
    for turn in range(200):
        before = read
        chat.ask(f"Question {turn:03d}?")
        work.append(read - before)  # tokens that the model read in this turn
    # A turn is the question, its frame and at most 12 bytes drawn, which may be read once more.
    assert max(work[1:]) <= len("User: Question 000?\n\nAssistant:") + 2 * (12 + len(" \n\n"))
    assert min(work) > len("User: Question 000?")
    chat.undo(3)
    chat.undo()  # further back than states are kept: what is left is read again
    assert len(chat.messages) == 2 * 196


UNDO_TURNS = 3
STATES = 2 * UNDO_TURNS + 2  # before and after each question, at the start, and the present one


def live_sessions(model: Model) -> int:
    """How many sessions, each with a state, there are of a model."""
    gc.collect()
    found = (o for o in gc.get_objects() if issubclass(type(o), Session))
    return sum(session.model is model for session in found)


@pytest.mark.slow
def test_200_turns_keep_the_number_of_states(trained: Model) -> None:
    elsewhere = live_sessions(trained)
    chat = Chat(trained, max_tokens=12, undo_turns=UNDO_TURNS, seed=1)
    states, n_cut = [], 0
    for turn in range(200):  # in each third, the states are counted, which takes long
        chat.ask(f"Question {turn:03d}?")
        if turn % 4 == 1:
            chat.retry().read()
        if turn % 4 == 3:
            chat.edit(f"Question {turn:03d}, again?").read()
        # Where the last answer was cut it has one more, to go on from.
        is_cut = chat._turns[-1].cut is not None
        n_cut += is_cut
        if turn >= UNDO_TURNS and turn % 3 == 0:
            states.append(live_sessions(trained) - elsewhere - is_cut)
    assert set(states) == {STATES}
    assert 0 < n_cut < 200


def test_200_turns_keep_no_memory_but_what_was_said(trained: Model) -> None:
    """What Python and numpy hold grows by the text of a turn: less than 1 kB, logits included."""
    chat = Chat(trained, max_tokens=12, undo_turns=UNDO_TURNS, seed=1)
    held = {}
    tracemalloc.start()
    try:
        for turn in range(200):
            chat.ask(f"Question {turn:03d}?")
            if turn in (49, 199):
                gc.collect()
                held[turn], _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    per_turn = (held[199] - held[49]) / 150
    assert 0 < per_turn < 1000  # 256 logits are 1024 bytes
