"""Requests that hand back the session that wrote them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prompts import ENDLESS, PROMPT, first_piece
from rwkv_py import (
    Engine,
    InvalidArgumentError,
    Session,
)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_tokens": 40}, "length"),
        ({"max_tokens": 1}, "length"),
        ({"max_tokens": 400, "stop": ["e"]}, "stop"),
        ({"max_tokens": 400, "stop_tokens": [ord(" ")]}, "end"),
    ],
)
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT * 30, ""])
def test_kept_session_is_where_a_session_would_be(
    engine: Engine, prompt: str, options: dict[str, Any], reason: str
) -> None:
    """To the bit, and it knows the logits: an empty prompt goes on."""
    alone = Session(engine.model)
    stream = alone.stream(prompt, seed=3, banned_tokens=[0], **options)
    text = "".join(stream)
    kept, plain = (
        engine.submit(prompt, seed=3, banned_tokens=[0], keep_session=keep, **options)
        for keep in (True, False)
    )
    for request in (kept, plain):
        assert (request.result(), request.tokens) == (text, stream.tokens)
        assert request.finish_reason == stream.finish_reason == reason
    assert np.array_equal(kept.session.state, alone.state)
    assert kept.session.generate("", max_tokens=9, seed=4) == alone.generate(
        "", max_tokens=9, seed=4
    )


def test_kept_session_without_a_text_has_read_the_prompt(engine: Engine) -> None:
    alone = Session(engine.model)
    logits = alone.feed(PROMPT)
    request = engine.submit(PROMPT, max_tokens=0, keep_session=True)
    assert (request.result(), request.finish_reason) == ("", "length")
    assert np.array_equal(request.session.state, alone.state)
    assert request.session._sequence.logits is not None
    assert np.array_equal(request.session._sequence.logits, logits)
    again = engine.submit("", session=request.session, max_tokens=0, keep_session=True)
    assert again.result() == ""  # nothing to read
    assert np.array_equal(again.session.state, alone.state)


def test_conversations_go_on_from_kept_sessions(engine: Engine) -> None:
    """Several at once, turn by turn, as each alone."""
    questions = ["The :mod:`json` module ", "\n\n.. function:: ", "\n\nSee also "]
    options: dict[str, Any] = {"max_tokens": 25, "temperature": 0.8}
    alone = [Session(engine.model) for _ in range(4)]
    together: list[Session | None] = [None] * 4
    for turn, question in enumerate(questions):
        expected = [
            session.generate(question, seed=10 * i + turn, **options)
            for i, session in enumerate(alone)
        ]
        requests = [
            engine.submit(
                question, session=session, seed=10 * i + turn, keep_session=True, **options
            )
            for i, session in enumerate(together)
        ]
        assert [request.result() for request in requests] == expected
        together = [request.session for request in requests]


def test_kept_session_is_free_while_others_go_on(engine: Engine) -> None:
    other = engine.submit(PROMPT, **ENDLESS)
    request = engine.submit(PROMPT, max_tokens=5, keep_session=True)
    request.result()
    before = request.session.state
    request.session.feed("more")  # the engine does not use it any more
    assert request.session is request.session
    assert not np.array_equal(request.session.state, before)
    assert not other.done
    other.cancel()


def test_session_that_was_not_kept_is_refused(engine: Engine) -> None:
    plain = engine.submit(PROMPT, max_tokens=2, banned_tokens=[0])
    endless = engine.submit(PROMPT, keep_session=True, **ENDLESS)
    first_piece(endless)
    with pytest.raises(InvalidArgumentError, match=r"keep_session=True .* finish_reason None"):
        _ = endless.session
    endless.cancel()
    with pytest.raises(InvalidArgumentError, match="finish_reason 'cancelled'"):
        _ = endless.session
    plain.result()
    with pytest.raises(InvalidArgumentError, match="finish_reason 'length'"):
        _ = plain.session
