"""States as files, from Python. Every kind of damage: native/tests/test_state_file.cpp."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prompts import PROMPT
from rwkv_py import (
    InvalidArgumentError,
    Model,
    ModelFileError,
    Session,
    StateFileError,
    StateMismatchError,
)

MASK = 2**64 - 1


def hash64(chunks: list[bytes]) -> int:
    """The hash of docs/formats.md, from its words alone."""
    h = 0
    for chunk in chunks:
        padded = chunk + bytes(-len(chunk) % 8)
        for word in (*struct.unpack(f"<{len(padded) // 8}Q", padded), len(chunk)):
            h = (h ^ word) * 0x9E3779B97F4A7C15 & MASK
            h ^= h >> 32
    return h


@pytest.mark.parametrize("version", ["4", "5.1", "5.2", "6", "7"])
def test_state_file_layout(version: str, model_file: Callable[..., Path], tmp_path: Path) -> None:
    """A file is what docs/formats.md says, and nothing else."""
    session = Session(model_file(version, n_vocab=64))
    session.feed([1, 2, 3])
    session.save_state(tmp_path / "a.state")
    got = (tmp_path / "a.state").read_bytes()
    info = session.model.info
    expected = b"rwkvstat" + struct.pack(
        "<IIQ8sIIIIQII", 2, 0, info.fingerprint, version.encode(),
        info.n_layer, info.n_embd, info.n_head, info.head_size, info.state_size, info.n_embd, 0,
    ) + session.state.tobytes() + session.hidden.tobytes()  # fmt: skip
    assert got == expected + struct.pack("<Q", hash64([expected]))


def test_fingerprint_is_as_documented(trained: Model, converted: Callable[[str], Path]) -> None:
    data = converted("q4_0").read_bytes()
    types = {0: 0, 1: 1, 2: 2, 3: 3, 7: 4, 8: 5, 9: 6}
    bytes_per_block = {0: (4, 1), 1: (2, 1), 2: (18, 32), 9: (34, 32)}
    chunks = [struct.pack("<Q", n) for n in struct.unpack_from("<3i", data, 8)]
    at = 24
    while at < len(data):
        n_dims, n_name, kind = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{n_dims}i", data, at + 12)[::-1]
        at += 12 + 4 * n_dims
        chunks += [data[at : at + n_name], struct.pack("<Q", types[kind])]
        chunks += [struct.pack("<Q", n) for n in shape]
        at += n_name
        size, values = bytes_per_block[kind]
        n_bytes = int(np.prod(shape)) // values * size
        tensor = data[at : at + n_bytes]
        at += n_bytes
        step = (n_bytes - 1024) // 3
        chunks += [tensor] if n_bytes <= 4096 else [tensor[i * step :][:1024] for i in range(4)]
    assert trained.info.fingerprint == hash64(chunks)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_state_file_goes_on(converted: Callable[[str], Path], tmp_path: Path, dtype: str) -> None:
    session = Session(converted("fp32"))
    session.feed(PROMPT)
    path = tmp_path / "a.state"
    session.save_state(path, dtype=dtype)  # type: ignore[arg-type]
    other = Session(session.model)
    other.load_state(str(path))
    expected, got = session.feed("x"), other.feed("x")
    if dtype == "fp32":
        assert np.array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=0.05)
        n_bytes = 64 + 2 * session.model.state_size + 4 * session.model.info.n_embd + 8
        assert path.stat().st_size == n_bytes


def test_a_text_goes_on_after_loading(session: Session, tmp_path: Path) -> None:
    """The file knows the last token, so an empty prompt will do; numbers alone do not know it."""
    session.feed(PROMPT)
    session.save_state(tmp_path / "a.state")
    other = Session(session.model)
    other.load_state(tmp_path / "a.state")
    assert np.array_equal(other.logits, session.logits)
    assert np.array_equal(other.hidden, session.hidden)
    expected = session.generate("", max_tokens=20, seed=3)
    assert other.generate("", max_tokens=20, seed=3) == expected
    other.state = session.state
    with pytest.raises(InvalidArgumentError, match="at least one token after the numbers"):
        other.generate("", max_tokens=20)
    for wanted in ("logits", "hidden"):
        with pytest.raises(InvalidArgumentError, match="has read a token"):
            getattr(other, wanted)
    other.save_state(tmp_path / "b.state")
    session.load_state(tmp_path / "b.state")
    with pytest.raises(InvalidArgumentError, match="at least one token"):
        session.generate("", max_tokens=20)


def test_state_file_of_another_model(
    session: Session, converted: Callable[[str], Path], tmp_path: Path
) -> None:
    session.feed(PROMPT)
    session.save_state(tmp_path / "a.state")
    other = Session(converted("q8_0"))
    with pytest.raises(StateMismatchError, match=r"a\.state: a state of another model"):
        other.load_state(tmp_path / "a.state")


def test_state_file_errors(session: Session, tmp_path: Path) -> None:
    session.feed(PROMPT)
    before = session.state
    path = tmp_path / "a.state"
    with pytest.raises(StateFileError, match="No such file"):
        session.load_state(path)
    with pytest.raises(StateFileError, match="folder"):
        session.load_state(tmp_path)
    path.write_bytes(b"<html>")
    with pytest.raises(StateFileError, match="not a state file"):
        session.load_state(path)
    session.save_state(path)
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StateFileError, match="checksum"):
        session.load_state(path)
    path.write_bytes(damaged[:-1])
    with pytest.raises(StateFileError, match="truncated"):
        session.load_state(path)
    with pytest.raises(StateFileError, match="cannot be written"):
        session.save_state(tmp_path / "no" / "folder.state")
    with pytest.raises(InvalidArgumentError, match="dtype: expected 'fp32' or 'fp16', got 'q4_0'"):
        session.save_state(path, dtype="q4_0")  # type: ignore[arg-type]
    assert np.array_equal(session.state, before)
    assert not issubclass(StateFileError, ModelFileError)


def test_state_file_leaves_nothing_beside_it(session: Session, tmp_path: Path) -> None:
    session.feed(PROMPT)
    session.state = np.full(session.model.state_size, 1e30, np.float32)
    session.save_state(tmp_path / "a.state")
    with pytest.raises(
        StateFileError, match=r"expected at most 65504 in fp16, got 1e\+30. Try fp32"
    ):
        session.save_state(tmp_path / "a.state", dtype="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["a.state"]
