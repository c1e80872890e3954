"""Any bytes as the file of a chat: it is one, or is refused whole, at a price that is bounded.

More of them: `--hypothesis-profile=search`.
"""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_py import Chat, RwkvError, StateFileError
from rwkv_py.chat_file import SavedChat, write_chat
from rwkv_py.chat_format import Message

pytestmark = pytest.mark.slow

MEMBERS = ("chat.json", "start.state", "now.state", "before.state")


@pytest.fixture(scope="module")
def chat(model_file: Callable[..., Path]) -> Chat:
    """Of a small model, whose states are small."""
    return Chat(model_file("7", n_vocab=256, n_embd=64), max_tokens=5, seed=1, system="S")


class Members(dict[str, bytes]):
    """What an archive is made of, by name."""

    def __repr__(self) -> str:  # hypothesis shows it
        return f"<{', '.join(self)}>"


@pytest.fixture(scope="module")
def good(chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> Members:
    """The members of a file with one turn."""
    chat.ask("Hi")
    path = tmp_path_factory.mktemp("good") / "good.chat"
    chat.save(path)
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == set(MEMBERS)
        return Members({name: archive.read(name) for name in MEMBERS})


def archived(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


@contextmanager
def bounded(n_bytes: int) -> Iterator[None]:
    """Expect less than a second, and twice so many bytes and 64 MB at most."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        assert time.process_time() - began < 1
        assert tracemalloc.get_traced_memory()[1] <= 2 * n_bytes + (64 << 20)
    finally:
        tracemalloc.stop()


def load(chat: Chat, content: bytes, path: Path) -> str | None:
    """Load these bytes; the complaint, or None."""
    path.write_bytes(content)
    messages, state = chat.messages, chat.session.state
    try:
        with bounded(len(content)):
            chat.load(path)
    except RwkvError as error:
        assert chat.messages == messages
        assert np.array_equal(chat.session.state, state, equal_nan=True)
        complaint = error.message
        assert complaint.startswith(f"{path}: ") and complaint.isprintable()
        assert len(complaint) < 1000
        return complaint
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "any.chat"


def test_good_one(chat: Chat, good: Members, path: Path) -> None:
    assert load(chat, archived(good), path) is None


@given(st.binary(max_size=200))
def test_any_bytes(chat: Chat, path: Path, content: bytes) -> None:
    assert load(chat, content, path) is not None


@given(st.data())
def test_mutated(chat: Chat, good: Members, path: Path, data: st.DataObject) -> None:
    """Bytes that are others, gone, or there twice: in headers and text more than in states."""
    content = bytearray(archived(good))
    directory = content.find(b"PK\x01\x02")
    near = st.sampled_from([0, directory, len(content) - 22])
    for _ in range(data.draw(st.integers(1, 4))):
        at = min(data.draw(near) + data.draw(st.integers(0, 300)), len(content))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        n = data.draw(st.integers(1, 40))
        if kind == "set":
            some = data.draw(st.binary(min_size=1, max_size=4) | st.just(b"\xff\xff\xff\xff"))
            content[at : at + len(some)] = some
        elif kind == "cut":
            del content[at : at + n]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        else:
            content[at:at] = content[at : at + n]
    load(chat, bytes(content), path)


@given(st.data())
def test_members_of_any_kind(chat: Chat, good: Members, path: Path, data: st.DataObject) -> None:
    members = {
        name: data.draw(st.just(content) | st.sampled_from(list(good.values())) | st.binary())
        for name, content in good.items()
        if data.draw(st.integers(0, 9)) > 0
    }
    if data.draw(st.integers(0, 9)) == 0:
        members[data.draw(st.text(min_size=1, max_size=9))] = b"more"
    load(chat, archived(members), path)


KNOWN = ["world", "g1", "user", "assistant", "system", "\ud800"]
TEXTS = st.text(max_size=9) | st.sampled_from(KNOWN)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=9,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS | JSON},
    optional={"thinking": TEXTS | JSON, "input": TEXTS | JSON},
)
SAID = JSON | st.fixed_dictionaries(
    {
        "rwkv_chat": st.just(1) | JSON,
        "format": st.just("world") | JSON,
        "messages": st.lists(MESSAGES | JSON, max_size=5) | JSON,
    }
)


@given(SAID)
def test_texts_of_any_kind(chat: Chat, good: Members, path: Path, said: Any) -> None:
    load(chat, archived({**good, "chat.json": json.dumps(said).encode()}), path)


def repeated(begin: bytes, part: bytes, end: bytes, size: int) -> bytes:
    return begin + part * (size // len(part)) + end


@pytest.mark.parametrize("size", [(1 << 19) - 100, (1 << 22) - 100])
@pytest.mark.parametrize("part", [b"[],", b"{},", b'{"":0},', b"[", b'"ab",', b'"\\"",'])
def test_many_objects(part: bytes, size: int, chat: Chat, good: Members, path: Path) -> None:
    """What a small text becomes in memory."""
    for begin, end in ((b'{"rwkv_chat":1,"format":"world","messages":[', b"0]}"), (b'["', b'"]')):
        text = repeated(begin, part, end, size)
        assert load(chat, archived({**good, "chat.json": text}), path) is not None


@pytest.mark.parametrize("tail", ["", "\U0001f600"])
def test_long_texts(tail: str, chat: Chat, good: Members, path: Path) -> None:
    said = json.loads(good["chat.json"])
    said["messages"][-1]["content"] = "x" * ((4 << 20) - 2000) + tail
    text = json.dumps(said, ensure_ascii=False).encode()
    assert load(chat, archived({**good, "chat.json": text}), path) is None
    complaint = load(chat, archived({**good, "chat.json": text + b" " * 3000}), path)
    assert "bytes of text, expected at most 4194304" in str(complaint)


def test_other_encodings(chat: Chat, good: Members, path: Path) -> None:
    """In which quotes cannot be told from other bytes."""
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        text = good["chat.json"].decode().encode(encoding)
        assert load(chat, archived({**good, "chat.json": text}), path) is not None


def test_large_directories(chat: Chat, good: Members, path: Path) -> None:
    """Whose entries are all read before one of them can be refused; in the longer form too."""
    entry = b"PK\x01\x02" + bytes(42)
    directory = entry * ((3 << 20) // len(entry))
    n = len(directory)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, n, 0, 0)
    assert "bytes of a directory" in str(load(chat, directory + end, path))
    with_comment = end[:-2] + b"\x04\x00PK\x05\x06"
    assert load(chat, directory + with_comment, path) is not None
    long = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, n // 46, n // 46, n, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, n, 1)
    small = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    assert load(chat, directory + long + locator + small, path) is not None


@pytest.mark.parametrize(
    ("turns", "content", "complaint"),
    [(9000, "x", r"\d+ bytes beside its strings, expected at most 524288"),
     (1, "x" * (4 << 20), r"\d+ bytes of text, expected at most 4194304")],
)  # fmt: skip
def test_a_chat_that_could_not_be_read_is_not_written(
    turns: int, content: str, complaint: str, chat: Chat, tmp_path: Path
) -> None:
    messages = [Message(role="user", content=content), Message(role="assistant", content="y")]
    states = {"start": chat.session, "now": chat.session}
    saved = SavedChat(format="world", messages=messages * turns, states=states)
    with pytest.raises(StateFileError, match=f": not written: a chat of {complaint}$"):
        write_chat(tmp_path / "a.chat", saved, dtype="fp32")
    assert list(tmp_path.iterdir()) == []
