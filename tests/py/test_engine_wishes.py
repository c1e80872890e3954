"""What a request may want besides its text, and whose turn it is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from prompts import ENDLESS, PROMPT, first_piece
from rwkv_py import Engine, Model, PrefixCache, Session
from rwkv_py.probabilities import log_softmax, probability_of


def test_an_opening_is_read_as_by_itself(trained: Model) -> None:
    session = Session(trained)
    session.feed(PROMPT)
    alone = session.generate("is <", max_tokens=30, seed=3)
    with Engine(trained) as engine:
        request = engine.submit(PROMPT, opening="is <", max_tokens=30, seed=3)
        assert request.result() == alone
    assert request.n_prompt_tokens == len(PROMPT) + len("is <")


def test_the_state_before_an_opening_is_kept(trained: Model) -> None:
    """The next prompt, which has something else there, costs only what is new in it."""
    prompt = "The module json knows how to encode and decode. "
    cache = PrefixCache(trained)
    with Engine(trained, cache=cache) as engine:
        engine.submit(prompt, opening="<think", max_tokens=5, seed=1).result()
        request = engine.submit(prompt + "It is", max_tokens=20, seed=1)
        text = request.result()
    assert request.n_cached_tokens == len(prompt)
    session = Session(trained)
    session.feed(prompt)
    assert text == session.generate("It is", max_tokens=20, seed=1)


@pytest.mark.parametrize("n_tokens", [1, 2, 256, 300])
def test_prompt_logprobs(trained: Model, n_tokens: int) -> None:
    tokens = [(7 * i) % 90 + 32 for i in range(n_tokens)]
    with Engine(trained, cache=PrefixCache(trained)) as engine:
        for _ in range(2):  # the second time the cache has it
            request = engine.submit(tokens, max_tokens=1, prompt_logprobs=3, banned_tokens=[0])
            request.result()
            found = request.prompt_logprobs
            assert len(found) == n_tokens
            assert found[0] is None
            session = Session(trained)
            for before, token, probability in zip(tokens, tokens[1:], found[1:], strict=False):
                log_p = log_softmax(session.feed([before]))
                assert probability is not None
                assert probability.token == token
                assert probability.logprob == pytest.approx(log_p[token], abs=1e-4)
                assert [each for each, _ in probability.top] == np.argsort(-log_p)[:3].tolist()


def test_prompt_logprobs_after_a_session(trained: Model) -> None:
    """The first token follows what the session has read."""
    session = Session(trained)
    log_p = log_softmax(session.feed(PROMPT))
    with Engine(trained) as engine:
        request = engine.submit("is", session=session, max_tokens=0, prompt_logprobs=0)
        request.result()
    first = request.prompt_logprobs[0]
    assert first is not None
    assert first.logprob == pytest.approx(log_p[ord("i")], abs=1e-6)


def test_the_token_that_ended_the_text_is_told(trained: Model) -> None:
    with Engine(trained) as engine:
        request = engine.submit(PROMPT, max_tokens=9, logprobs=1, logit_bias={0: 1000.0})
        assert request.result() == ""
        assert request.ending is not None and request.ending.token == 0
        assert request.logprobs == []
        request = engine.submit(PROMPT, max_tokens=9, logprobs=1, banned_tokens=[0])
        request.result()
        assert request.ending is None


def test_which_stop_ended_the_text(trained: Model) -> None:
    whole = Session(trained).generate(PROMPT, max_tokens=60, temperature=0)
    long, short = whole[20:24], whole[20:22]
    assert whole.index(short) == whole.index(long)
    with Engine(trained) as engine:
        request = engine.submit(PROMPT, max_tokens=60, temperature=0, stop=["\0never", long])
        request.result()
        assert request.stopped_by == long.encode()
        both = engine.submit(PROMPT, max_tokens=60, temperature=0, stop=[long, short])
        both.result()
        assert both.stopped_by == short.encode()  # it was complete first
        unstopped = engine.submit(PROMPT, max_tokens=3, temperature=0, stop=[long])
        unstopped.result()
        assert unstopped.stopped_by is None


def test_of_equals_the_first_are_the_most_probable() -> None:
    logits = np.array([1, 3, 2, 3, 3, 0], np.float32)
    assert [token for token, _ in probability_of(logits, 0, 2).top] == [1, 3]
    assert [token for token, _ in probability_of(logits, 0, 9).top] == [1, 3, 4, 2, 0, 5]
    assert probability_of(logits, 0, 0).top == ()


def test_who_waits_with_least_at_work_is_next(trained: Model) -> None:
    """One who asks for much does not keep another waiting until all of it is done."""
    with Engine(trained, max_running=2) as engine:
        running = [engine.submit(PROMPT, share="many", **ENDLESS) for _ in range(2)]
        for request in running:
            first_piece(request)
        many = [engine.submit(PROMPT, share="many", **ENDLESS) for _ in range(5)]
        one = engine.submit(PROMPT, share="one", max_tokens=3)
        running[0].cancel()
        assert one.result(timeout=60) is not None
        assert all(request.started_at is None or request.started_at > one.started_at
                   for request in many)  # fmt: skip
        deadline = time.monotonic() + 60
        while not any(request.started_at for request in many):  # and then it is theirs again
            assert time.monotonic() < deadline
            time.sleep(0.01)
        engine.close(cancel=True)
