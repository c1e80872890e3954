"""Texts to vectors."""

from __future__ import annotations

import numpy as np
import pytest

from rwkv_py import InvalidArgumentError, Model, Session, embed

TEXTS = ["json", "x", "The :mod:`json` module " * 30, "né", "a" * 256, "b" * 257]


def test_last_is_the_hidden_state_of_a_session(trained: Model) -> None:
    vectors = embed(trained, TEXTS, pooling="last")
    for text, vector in zip(TEXTS, vectors, strict=True):
        session = Session(trained)
        session.feed(text)
        np.testing.assert_array_equal(vector, session.hidden)


def test_mean_is_over_all_tokens(trained: Model) -> None:
    for text, vector in zip(TEXTS, embed(trained, TEXTS), strict=True):
        session, hidden = Session(trained), []
        for token in text.encode():
            session.feed([token])
            hidden.append(session.hidden)
        np.testing.assert_allclose(vector, np.mean(hidden, axis=0), atol=2e-4)


def test_a_text_gets_the_same_alone_and_in_company(trained: Model) -> None:
    together = embed(trained, TEXTS * 8)
    for i, text in enumerate(TEXTS):
        np.testing.assert_array_equal(embed(trained, [text])[0], together[i])


def test_tokens_and_progress(trained: Model) -> None:
    seen: list[tuple[int, int]] = []
    vectors = embed(trained, [[97, 98], b"ab"], progress=lambda *done: seen.append(done))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert seen[-1] == (4, 4)
    assert embed(trained, []).shape == (0, 256)


def test_progress_may_end_the_work(trained: Model) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(trained, ["a"], progress=stop)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ("text", {}, "prompts: expected a list of them, got one"),
        (["a", ""], {}, r"prompts\[1\]: expected at least one token, got none"),
        (["a"], {"pooling": "max"}, "pooling: expected 'mean' or 'last', got 'max'"),
    ],
)
def test_refused(trained: Model, prompts: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        embed(trained, prompts, **options)  # type: ignore[arg-type]
