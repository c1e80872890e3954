"""Chats as files: what is saved is there again, and what else is given is refused whole."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import (
    Chat,
    ChatFormat,
    InvalidArgumentError,
    Model,
    StateFileError,
    StateMismatchError,
)
from rwkv_py.chat_format import CHAT_FORMATS

NO_NEWLINE = {10: -1000.0}  # an empty line would end the answer
SYSTEM = "You explain\n\n\nPython."


@pytest.fixture
def chat(trained: Model) -> Chat:
    return Chat(trained, system=SYSTEM, max_tokens=25, seed=3, logit_bias=NO_NEWLINE)


@pytest.fixture
def good(chat: Chat, tmp_path: Path) -> bytes:
    """A chat of one turn, saved."""
    chat.ask("What is json?")
    chat.save(tmp_path / "good.chat")
    return (tmp_path / "good.chat").read_bytes()


@contextmanager
def unchanged(chat: Chat) -> Iterator[None]:
    """Expect that the chat is afterwards as it was before."""
    chat._settle()
    messages, state, format = chat.messages, chat.session.state, chat.format
    yield
    assert chat.messages == messages
    assert chat.format is format
    assert np.array_equal(chat.session.state, state)


def with_json(good: bytes, said: Any) -> bytes:
    """The same file with another chat.json."""
    new = io.BytesIO()
    text = said if isinstance(said, str | bytes) else json.dumps(said)
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, text if name == "chat.json" else old.read(name))
    return new.getvalue()


def with_bytes(good: bytes, at: tuple[int, int], value: int) -> bytes:
    """The same file with another two-byte number at places in the local and central headers."""
    damaged = bytearray(good)
    struct.pack_into("<H", damaged, at[0], value)
    struct.pack_into("<H", damaged, good.find(b"PK\x01\x02") + at[1], value)
    return bytes(damaged)


def refused(chat: Chat, content: bytes, tmp_path: Path, complaint: str) -> None:
    path = tmp_path / "bad.chat"
    path.write_bytes(content)
    with unchanged(chat), pytest.raises((StateFileError, StateMismatchError), match=complaint) as e:
        chat.load(path)
    assert e.value.message.startswith(f"{path}: ")
    assert not e.value.message.endswith(".")


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_save_and_load(chat: Chat, trained: Model, tmp_path: Path, dtype: str) -> None:
    chat.ask("What is json?")
    answer = chat.ask("And os?")
    path = tmp_path / "a.chat"
    chat.save(path, dtype=dtype)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["a.chat"]
    other = Chat(trained, max_tokens=25, seed=3, format="g1", system="Something else.")
    other._options["logit_bias"] = NO_NEWLINE
    other.load(path)
    assert other.messages == chat.messages
    assert other.format is chat.format
    if dtype == "fp32":
        assert np.array_equal(other.session.state, chat.session.state)
        assert other.retry().read() == answer
        assert other.ask("And sys?") == chat.ask("And sys?")
        other.undo(2)
        other.undo()  # its state was not saved: what is left is read again
        assert other.messages == chat.messages[:1]
    other.reset()
    assert [message.content for message in other.messages] == [SYSTEM]


def test_save_an_empty_chat(chat: Chat, trained: Model, tmp_path: Path) -> None:
    chat.save(tmp_path / "a.chat")
    other = Chat(trained, max_tokens=25, seed=3, logit_bias=NO_NEWLINE)
    other.load(tmp_path / "a.chat")
    assert other.messages == chat.messages
    assert other.ask("Hi") == chat.ask("Hi")


def test_refused(chat: Chat, converted: Callable[[str], Path], tmp_path: Path) -> None:
    chat.ask("What is json?")
    chat.save(tmp_path / "a.chat")
    with pytest.raises(StateMismatchError, match=r"/a\.chat: start\.state: a state of another"):
        Chat(converted("q8_0")).load(tmp_path / "a.chat")
    with unchanged(chat):
        with pytest.raises(StateFileError, match="No such file"):
            chat.load(tmp_path / "b.chat")
        with pytest.raises(StateFileError, match=r"folder\.chat: cannot be written: No such file"):
            chat.save(tmp_path / "no" / "folder.chat")


def test_damaged(chat: Chat, good: bytes, tmp_path: Path) -> None:
    for content in (b"", b"text", good[:-30], good[: len(good) // 2] + good[:-1]):
        refused(chat, content, tmp_path, "expected a chat that was saved, got")
    flags, method = (6, 8), (8, 10)  # where they stand in the two headers
    refused(chat, with_bytes(good, flags, 1), tmp_path, "got: .*encrypted")
    for number in (97, 8, 12, 14):  # unknown, and three that could grow
        refused(chat, with_bytes(good, method, number), tmp_path, "got: chat.json compressed")


def test_bombs(chat: Chat, good: bytes, tmp_path: Path) -> None:
    """What would grow, or grew already, is refused before it is read."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("chat.json", "start.state", "now.state"):
            archive.writestr(name, bytes(1 << 26))
    refused(chat, bomb.getvalue(), tmp_path, "got: chat.json compressed, expected it stored")
    huge = tmp_path / "huge.chat"
    huge.write_bytes(good)
    os.truncate(huge, 1 << 40)  # a hole
    with unchanged(chat), pytest.raises(StateMismatchError, match=r"expected at most \d+ bytes"):
        chat.load(huge)


def test_members(chat: Chat, good: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(good)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    for names in (["chat.json"], [*members, "chat.json"], [*members, "now.state"], [*members, "x"],
                  ["chat.json", "start.state", "before.state"]):  # fmt: skip
        new = io.BytesIO()
        with zipfile.ZipFile(new, "w") as archive, pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)  # of a name that is there already
            for name in names:
                archive.writestr(name, members.get(name, b""))
        refused(chat, new.getvalue(), tmp_path, "expected a chat that was saved, got: members")


GOOD = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([], "a chat.json without rwkv_chat"),
        ({}, "a chat.json without rwkv_chat"),
        ("[" * 100_000, "recursion"),
        ("{" + '"a":{' * 100_000, "recursion"),
        ("1" * 10_000, "integer string conversion"),
        (b"\xff\xfe\xfd", "codec can't decode"),
        ({"rwkv_chat": 2}, "version 2, expected 1"),
        ({"rwkv_chat": "x" * 1000}, "version 'xxxx"),
        ({"format": 3}, "whose format is no text"),
        ({"format": "nonsense"}, "format: expected one of world, .*, got 'nonsense'. Try Chat"),
        ({"messages": {}}, "whose messages are no list"),
        ({"messages": [3]}, r"messages\[0\] that is no message"),
        ({"messages": [{}]}, r"messages\[0\] of the role None"),
        ({"messages": [{**GOOD[0], "role": "tool"}]}, "of the role 'tool'"),
        ({"messages": [{**GOOD[0], "role": ["user"]}]}, "of the role"),
        ({"messages": [{**GOOD[0], "more": 1}]}, "that is no message"),
        ({"messages": [{"role": "user"}]}, "that is no text"),
        ({"messages": [{**GOOD[0], "content": 1}]}, "that is no text"),
        ({"messages": [{**GOOD[0], "content": None}]}, "that is no text"),
        ({"messages": [{**GOOD[0], "input": 7}, GOOD[1]]}, "that is no text"),
        ({"messages": [GOOD[0], {**GOOD[1], "thinking": []}]}, r"messages\[1\] that is no text"),
        ({"messages": [{**GOOD[0], "content": "a\ud800"}, GOOD[1]]}, "surrogates not allowed"),
        ({"messages": [{**GOOD[0], "content": " "}, GOOD[1]]}, "expected something to say"),
        ({"messages": [{**GOOD[0], "input": "z"}, GOOD[1]]}, "input: expected none in the format"),
        ({"messages": [GOOD[1], GOOD[0]]}, "not of user and assistant in turn"),
        ({"messages": [GOOD[0], GOOD[0]]}, "not of user and assistant in turn"),
        ({"messages": [GOOD[1], GOOD[1]]}, "not of user and assistant in turn"),
        ({"messages": [*GOOD, {**GOOD[0], "role": "system"}, GOOD[1]]}, "in turn"),
        ({"messages": [{**GOOD[0], "role": "system"}] * 2}, "in turn"),
    ],
)
def test_what_was_said_is_checked(
    said: Any, complaint: str, chat: Chat, good: bytes, tmp_path: Path
) -> None:
    if isinstance(said, dict) and said:
        said = {"rwkv_chat": 1, "format": "world", "messages": [], **said}
    refused(
        chat, with_json(good, said), tmp_path, f"expected a chat that was saved, got: .*{complaint}"
    )


def test_whatever_is_damaged_is_refused_whole(chat: Chat, good: bytes, tmp_path: Path) -> None:
    """One to four bytes of headers and text are others: either it is refused, or it is no worse."""
    chance = random.Random(1)
    path = tmp_path / "bad.chat"
    central = good.find(b"PK\x01\x02")
    n_refused = 0
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            near = chance.choice([0, central, len(good) - 22])
            at = min(near + chance.randrange(300), len(good) - 1)
            damaged[at] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
        path.write_bytes(damaged)
        try:
            with unchanged(chat):
                chat.load(path)
        except (StateFileError, StateMismatchError):
            n_refused += 1
    assert n_refused > 200


def test_a_turn_of_a_loaded_chat_is_answered_or_left_whole(
    chat: Chat, trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last turn's text is read again for it: if that fails, nothing has changed."""
    chat.ask("What is json?")
    chat.save(tmp_path / "a.chat")
    other = Chat(trained, max_tokens=5, logit_bias=NO_NEWLINE)
    other.load(tmp_path / "a.chat")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with unchanged(other), monkeypatch.context() as patch:
        patch.setattr(type(other.session), "feed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            other.retry()
    assert other.retry(temperature=0).read() == chat.retry(temperature=0, max_tokens=5).read()


def test_format_of_ones_own(trained: Model, tmp_path: Path) -> None:
    mine = ChatFormat(name="mine", user="Q: {}\nA:", end="\n", stop=("\n",))
    chat = Chat(trained, format=mine, max_tokens=5)
    chat.ask("Hi")
    chat.save(tmp_path / "a.chat")
    assert "mine" not in CHAT_FORMATS
    with pytest.raises(StateFileError, match=r"got 'mine'. Try Chat\(..., format=\)"):
        Chat(trained).load(tmp_path / "a.chat")
    other = Chat(trained, format=mine)
    other.load(tmp_path / "a.chat")
    assert other.messages == chat.messages


# ---- files


@pytest.mark.parametrize("name", ["a", "x" * 255, "字" * 85, "\udcff"])
def test_every_legal_name(name: str, chat: Chat, trained: Model, tmp_path: Path) -> None:
    """A name of 255 bytes too: the temporary one is not made of it."""
    chat.ask("What is json?")
    chat.save(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    other = Chat(trained)
    other.load(tmp_path / name)
    assert other.messages == chat.messages


def test_a_failed_save_names_the_file_and_leaves_the_older_one(
    chat: Chat, good: bytes, tmp_path: Path
) -> None:
    state = chat.session.state
    state[:] = 1e6
    chat.session.state = state
    with pytest.raises(StateFileError, match="at most 65504 in fp16") as error:
        chat.save(tmp_path / "good.chat", dtype="fp16")
    assert error.value.message.startswith(f"{tmp_path}/good.chat: now.state: ")
    assert str(tmp_path) not in error.value.message.removeprefix(f"{tmp_path}/good.chat")
    assert (tmp_path / "good.chat").read_bytes() == good
    assert os.listdir(tmp_path) == ["good.chat"]


def test_no_room(chat: Chat, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, unchanged(chat):
        patch.setattr(zipfile.ZipFile, "write", full)
        with pytest.raises(StateFileError, match=r"good\.chat: cannot be written: No space left"):
            chat.save(tmp_path / "good.chat")
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StateFileError, match=r"good\.chat: start\.state cannot be unpacked"):
            chat.load(tmp_path / "good.chat")
    assert os.listdir(tmp_path) == ["good.chat"]
    assert (tmp_path / "good.chat").read_bytes() == good


def test_what_is_no_file(chat: Chat, tmp_path: Path) -> None:
    """A pipe is not waited for, and nothing but a file is replaced: a device least of all."""
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "fifo", "a named pipe")):
        with pytest.raises(StateFileError, match=f": expected a file, got {kind}$"):
            chat.load(path)
        with pytest.raises(StateFileError, match=f"expected a file or nothing, got {kind}"):
            chat.save(path)
        assert not path.is_file()
    with pytest.raises(StateFileError, match=r": expected a file, got a device$"):
        chat.load("/dev/zero")
    for call in (chat.load, chat.save):
        with pytest.raises(InvalidArgumentError, match="zero character"):
            call("a\0b")


def test_the_right_of_others_is_as_of_any_file(chat: Chat, tmp_path: Path) -> None:
    """Temporary files are often private; what comes of them is a file like others."""
    (tmp_path / "plain").touch()
    chat.save(tmp_path / "a.chat")
    assert (tmp_path / "a.chat").stat().st_mode == (tmp_path / "plain").stat().st_mode
