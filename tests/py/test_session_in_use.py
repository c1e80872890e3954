"""One session does one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts import PROMPT
from rwkv_py import (
    InvalidArgumentError,
    Session,
)
from rwkv_py.sequence import Sequence


def disturb(session: Session, tmp_path: Path) -> dict[str, Callable[[], Any]]:
    other = Session(session.model)
    other.save_state(tmp_path / "other.state")
    return {
        "feed": lambda: session.feed("a"),
        "generate": lambda: session.generate("a"),
        "stream": lambda: next(session.stream("a")),
        "reset": session.reset,
        "load_state": lambda: session.load_state(tmp_path / "other.state"),
        "copy_from": lambda: session.copy_from(other),
        "state": lambda: setattr(session, "state", other.state),
        "step": lambda: session.model.step([(session, [1])]),
    }


def test_what_moves_a_session_is_refused_while_a_stream_writes(
    session: Session, tmp_path: Path
) -> None:
    expected = session.fork().generate(PROMPT, max_tokens=30, seed=2, banned_tokens=[0])
    pieces = []
    acts = disturb(session, tmp_path)
    for piece in session.stream(PROMPT, max_tokens=30, seed=2, banned_tokens=[0]):
        pieces.append(piece)
        if len(pieces) == 30:
            break
        for act in acts.values():
            with pytest.raises(
                InvalidArgumentError, match=r"session: a stream is writing .* close\(\) .* fork\(\)"
            ):
                act()
    assert "".join(pieces) == expected
    for act in acts.values():
        act()


def test_what_only_looks_at_a_session_is_allowed_while_a_stream_writes(
    session: Session, tmp_path: Path
) -> None:
    expected = session.fork().generate(PROMPT, max_tokens=9, seed=2, banned_tokens=[0])
    text, so_far = "", Session(session.model)
    so_far.feed(PROMPT)
    for piece in session.stream(PROMPT, max_tokens=9, seed=2, banned_tokens=[0]):
        text += piece
        so_far.feed(piece)
        assert np.array_equal(session.state, so_far.state)
        assert np.array_equal(session.fork().state, so_far.state)
        session.save_state(tmp_path / "now.state")
        Session(session.model).copy_from(session)
        session.fork().generate("something else", max_tokens=2)
    assert text == expected


@pytest.mark.parametrize("way", ["end", "close", "with", "break", "forget", "error"])
def test_a_stream_that_is_left_frees_the_session(session: Session, way: str) -> None:
    if way == "break":
        for _ in session.stream(PROMPT, max_tokens=50, banned_tokens=[0]):
            break
    elif way == "with":
        with session.stream(PROMPT, max_tokens=50, banned_tokens=[0], seed=1) as stream:
            next(stream)
    else:
        stream = session.stream(PROMPT, max_tokens=5, banned_tokens=[0], seed=1)
        next(stream)
        if way == "end":
            while stream.finish_reason is None:  # the last piece, not StopIteration
                next(stream)
        elif way == "close":
            stream.close()
            stream.close()
            assert stream.finish_reason is None
            assert next(stream, None) is None
        elif way == "forget":
            del stream
        else:
            stream._writer.draw = lambda: 1 // 0  # type: ignore[method-assign]
            with pytest.raises(ZeroDivisionError):
                next(stream)
            assert list(stream) == []
    session.feed("a")


def test_a_stream_that_was_refused_frees_nothing(session: Session) -> None:
    writing = session.stream(PROMPT, max_tokens=50, banned_tokens=[0], seed=1)
    next(writing)
    refused = session.stream("another")
    with pytest.raises(InvalidArgumentError, match="a stream is writing"):
        next(refused)
    refused.close()
    with pytest.raises(InvalidArgumentError, match="a stream is writing"):
        session.feed("a")
    assert next(writing)


def test_a_stream_that_has_not_begun_holds_nothing(session: Session) -> None:
    stream = session.stream(PROMPT, max_tokens=3, temperature=0)
    session.feed("Before. ")
    other = Session(session.model)
    assert "".join(stream) == other.generate("Before. " + PROMPT, max_tokens=3, temperature=0)


def test_a_second_thread_is_refused_between_two_pieces(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, errors = Sequence.read, []

    def reading(sequence: Sequence, piece: Any, **options: Any) -> None:
        read(sequence, piece, **options)
        for act in (lambda: session.feed("from elsewhere"), session.reset):
            try:
                act()
            except InvalidArgumentError as error:
                errors.append(str(error))

    monkeypatch.setattr(Sequence, "read", reading)
    session.feed([65] * 600)
    assert len(errors) == 6
    assert all("in use by another thread" in error for error in errors)
