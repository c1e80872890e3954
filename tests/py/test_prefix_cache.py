"""PrefixCache: nothing but time changes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import (
    Chat,
    InvalidArgumentError,
    Model,
    OutOfMemoryError,
    PrefixCache,
    Session,
    TokenOutOfRangeError,
)
from rwkv_py.prompt import PIECE_TOKENS

LONG = [*b"A long prompt, longer than one piece of it. "] * 20


@pytest.mark.parametrize("budget", [0, 1_500_000, 1 << 30])
@pytest.mark.parametrize("version", ["4", "7"])
def test_results_are_the_same_to_the_bit(
    version: str, budget: int, model_file: Callable[..., Path]
) -> None:
    """Random feeds of random beginnings, in sessions that reset, fork and copy each other."""
    model = Model(model_file(version, n_vocab=64))
    cache = PrefixCache(model, budget=budget)
    choice = random.Random(1)
    texts = [[choice.randrange(64) for _ in range(700)] for _ in range(2)]
    for _ in range(40):
        cached, plain = Session(model, cache=cache), Session(model)
        for _ in range(choice.randrange(1, 4)):
            tokens = choice.choice(texts)[: choice.choice([1, 31, 32, 100, 256, 257, 512, 700])]
            assert np.array_equal(cached.feed(tokens), plain.feed(tokens))
            if choice.random() < 0.2:
                cached = cached.fork()
            if choice.random() < 0.2:
                cached.reset()
                plain.reset()
        assert np.array_equal(cached.state, plain.state)
        assert cache.n_bytes <= budget
    assert (cache.tokens_found > 0) == (budget > 0)
    assert (len(cache) > 0) == (budget > 0)


def test_long_beginnings_share_whole_pieces(trained: Model) -> None:
    cache = PrefixCache(trained)
    Session(trained, cache=cache).feed([*LONG, 1])
    assert (cache.tokens_found, cache.tokens_read) == (0, len(LONG) + 1)
    Session(trained, cache=cache).feed([*LONG, 2])
    assert cache.tokens_found == len(LONG) // PIECE_TOKENS * PIECE_TOKENS
    Session(trained, cache=cache).feed([*LONG, 1])  # all of it, logits too
    assert cache.tokens_found == len(LONG) // PIECE_TOKENS * PIECE_TOKENS + len(LONG) + 1


def test_a_prompt_that_ends_where_another_goes_on(trained: Model) -> None:
    """The state there knows its last token, so the logits can be had of it."""
    cache = PrefixCache(trained)
    Session(trained, cache=cache).feed(LONG[:600])
    logits = Session(trained, cache=cache).feed(LONG[: 2 * PIECE_TOKENS])
    assert np.array_equal(logits, Session(trained).feed(LONG[: 2 * PIECE_TOKENS]))
    assert cache.tokens_found == 2 * PIECE_TOKENS


def test_the_longest_unused_go_first(trained: Model) -> None:
    one = 4 * (trained.state_size + trained.n_vocab)
    cache = PrefixCache(trained, budget=2 * one)
    first, second, third = LONG[:40], LONG[1:41], LONG[2:42]
    for tokens in (first, second, first, third):
        Session(trained, cache=cache).feed(tokens)
    assert (len(cache), cache.n_bytes, cache.tokens_found) == (2, 2 * one, 40)
    Session(trained, cache=cache).feed(first)
    assert cache.tokens_found == 80
    Session(trained, cache=cache).feed(second)  # went for the third
    assert cache.tokens_found == 80
    cache.clear()
    assert (len(cache), cache.n_bytes) == (0, 0)


def test_a_state_from_elsewhere_is_not_mistaken(trained: Model) -> None:
    cache = PrefixCache(trained)
    Session(trained, cache=cache).feed(LONG[:40])
    other = Session(trained)
    other.feed("something else")
    for change in ("set", "step", "copy"):
        session = Session(trained, cache=cache)
        expected = other.fork()
        if change == "set":
            session.state = other.state
        elif change == "step":
            trained.step([(session, [*b"something else"])])
        else:
            session.copy_from(other)
        assert np.array_equal(session.feed(LONG[:40]), expected.feed(LONG[:40]))
        # A copy has read what the one that was moved by a step has read.
        assert cache.tokens_found == (40 if change == "copy" else 0)


def test_refused_tokens_change_nothing(trained: Model) -> None:
    cache = PrefixCache(trained)
    Session(trained, cache=cache).feed(LONG)
    session = Session(trained, cache=cache)
    before = session.state
    with pytest.raises(TokenOutOfRangeError):
        session.feed([*LONG, 256])
    assert np.array_equal(session.state, before)


def test_chats_share_a_system_prompt(trained: Model) -> None:
    system = "You explain the Python standard library in few words."
    cache = PrefixCache(trained)

    def answer(cache: PrefixCache | None, question: str) -> str:
        session = Session(trained, cache=cache)
        return Chat(session, system=system, format="g1", max_tokens=20, seed=1).ask(question)

    for question in ("What is json?", "What is os?"):
        assert answer(cache, question) == answer(None, question)
    assert cache.tokens_found == len(f"System: {system}\n\n")


def test_threads_share_a_cache(trained: Model) -> None:
    cache = PrefixCache(trained, budget=3_000_000)
    expected = Session(trained).feed(LONG)
    wrong: list[int] = []

    def read(i: int) -> None:
        for _ in range(5):
            if not np.array_equal(Session(trained, cache=cache).feed(LONG), expected):
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.tokens_found + cache.tokens_read == 20 * len(LONG)


def test_without_memory_for_a_state_nothing_fails(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(trained)
    session = Session(trained, cache=cache)

    class Core:
        """A native session that cannot be copied any more."""

        def __init__(self, core: Any):
            self._core = core
            self.n_forks = 0

        def fork(self) -> Any:
            self.n_forks += 1
            if self.n_forks > 1:  # the first is what to go back to
                raise OutOfMemoryError("no room for a state")
            return self._core.fork()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._core, name)

    session._sequence._core = Core(session._sequence.core)  # type: ignore[assignment]
    assert np.array_equal(session.feed(LONG[:40]), Session(trained).feed(LONG[:40]))
    assert (len(cache), cache.n_bytes) == (0, 0)


def test_arguments(trained: Model, converted: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="budget: expected 0 or more, got -1"):
        PrefixCache(trained, budget=-1)
    with pytest.raises(InvalidArgumentError, match=r"Try Session\(cache\.model, cache=cache\)"):
        Session(converted("q4_0"), cache=PrefixCache(trained))
