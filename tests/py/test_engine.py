"""Many requests at once: each gets what it would get alone."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts import ENDLESS, PROMPT, first_piece
from rwkv_py import (
    Engine,
    EngineClosedError,
    InvalidArgumentError,
    Model,
    NoTokenizerError,
    PrefixCache,
    Request,
    Session,
    Tokenizer,
    TokenOutOfRangeError,
)
from rwkv_py._arguments import TokenSequence
from rwkv_py.prompt import PIECE_TOKENS


@pytest.fixture(scope="module")
def prompts(examples: Path) -> list[bytes]:
    """Pieces of documentation of 1 to 700 bytes: less and more than a piece of a prompt."""
    text = (examples / "heldout_a.txt").read_bytes()
    choose = random.Random(1)
    places = [choose.randrange(len(text) - 700) for _ in range(64)]
    return [text[place : place + choose.choice([1, 5, 40, 300, 700])] for place in places]


def test_requests_joining_and_leaving_at_random_get_what_they_get_alone(
    trained: Model, prompts: list[bytes]
) -> None:
    """Four threads submit 64 requests while others finish; some are cancelled on the way."""
    choose = random.Random(2)
    sizes = [choose.randrange(1, 60) for _ in prompts]
    alone = [
        Session(trained).generate(prompt, max_tokens=size, temperature=0)
        for prompt, size in zip(prompts, sizes, strict=True)
    ]
    together: dict[int, str] = {}
    cancelled: dict[int, Request] = {}
    with Engine(trained, max_running=20) as engine:

        def ask(numbers: range, chance: random.Random) -> None:
            requests = {}
            for i in numbers:
                requests[i] = engine.submit(prompts[i], max_tokens=sizes[i], temperature=0)
                if chance.random() < 0.3:
                    extra = engine.submit(prompts[i], **ENDLESS)
                    threading.Timer(chance.random() / 5, extra.cancel).start()
                    cancelled[i] = extra
                time.sleep(chance.random() / 50)
            together.update({i: request.result() for i, request in requests.items()})

        threads = [
            threading.Thread(target=ask, args=(range(i, 64, 4), random.Random(i))) for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [together[i] for i in range(64)] == alone
    assert cancelled
    assert all(request.finish_reason == "cancelled" for request in cancelled.values())


@pytest.mark.parametrize("version", ["4", "5.1", "5.2", "6", "7"])
def test_every_version_in_company(version: str, model_file: Callable[..., Path]) -> None:
    model = Model(model_file(version, n_vocab=256))
    prompts = [[1, 2, 3], [*range(1, 256), *range(1, 60)], [7], [*range(1, 41)]]
    alone = []
    for prompt in prompts:
        stream = Session(model).stream(prompt, max_tokens=20, seed=5)
        _ = list(stream)
        alone.append(stream.tokens)
    with Engine(model) as engine:
        requests = [engine.submit(prompt, max_tokens=20, seed=5) for prompt in prompts]
        for request in requests:
            request.result()
    assert [request.tokens for request in requests] == alone


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3, "temperature": 0.8, "top_p": 0.9},
        {"seed": 4, "presence_penalty": 0.4, "frequency_penalty": 0.4, "top_k": 20},
        {"seed": 5, "mirostat_tau": 3.0},
        {"temperature": 0, "stop": ["``", "\n\n"]},
        {"temperature": 0, "stop_tokens": [ord(".")]},
        {"temperature": 0, "logit_bias": {ord("e"): -5.0}, "banned_tokens": iter([ord("a")])},
        {"max_tokens": 0},
    ],
)
def test_every_option_as_in_a_session(engine: Engine, options: dict[str, Any]) -> None:
    options = {"max_tokens": 60, **options}
    banned = list(options.pop("banned_tokens", []))
    stream = Session(engine.model).stream(PROMPT, banned_tokens=banned, **options)
    text = "".join(stream)
    request = engine.submit(PROMPT, banned_tokens=iter(banned), **options)
    assert request.result() == text
    assert request.tokens == stream.tokens
    assert request.finish_reason == stream.finish_reason


def test_pieces_make_the_text_and_are_whole_characters(engine: Engine) -> None:
    request = engine.submit(PROMPT, max_tokens=60, seed=9, temperature=3.0, top_p=1.0)
    pieces = list(request)
    assert all(pieces)
    assert "".join(pieces) == request.result()
    assert list(request) == pieces  # each iteration begins with the first
    expected = Session(engine.model).generate(
        PROMPT, max_tokens=60, seed=9, temperature=3.0, top_p=1.0
    )
    assert request.result() == expected


def test_text_comes_while_it_is_written(engine: Engine) -> None:
    request = engine.submit(PROMPT, **ENDLESS)
    assert first_piece(request)
    assert not request.done
    assert request.finish_reason is None


def test_empty_prompt_begins_a_document(engine: Engine) -> None:
    expected = Session(engine.model).generate("", max_tokens=20, temperature=0)
    assert engine.submit("", max_tokens=20, temperature=0).result() == expected


def test_going_on_from_a_session(engine: Engine, session: Session) -> None:
    session.feed(PROMPT)
    before = session.state
    requests = [
        engine.submit(prompt, session=session, max_tokens=20, temperature=0)
        for prompt in ("", "can ", b"import ")
    ]
    session.feed("what the session reads later does not matter")
    texts = [request.result() for request in requests]
    session.state = before
    for prompt, text in zip(("", "can ", b"import "), texts, strict=True):
        alone = Session(engine.model)
        alone.feed(PROMPT)
        assert alone.generate(prompt, max_tokens=20, temperature=0) == text


def test_sessions_that_cannot_go_on_are_refused(engine: Engine, converted: Any) -> None:
    other = Session(converted("q8_0"))
    with pytest.raises(InvalidArgumentError, match=r"session: expected one of .*q4_0.*q8_0"):
        engine.submit("a", session=other)
    blank = Session(engine.model)
    blank.state = blank.state
    with pytest.raises(InvalidArgumentError, match="expected at least one token"):
        engine.submit("", session=blank)


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        (
            [1, 2, 256],
            {},
            TokenOutOfRangeError,
            r"tokens\[2\]: expected one of the vocabulary, 0 to 255, got 256",
        ),
        ([0.5], {}, InvalidArgumentError, "tokens: expected"),
        ("a", {"temperature": -1.0}, InvalidArgumentError, "temperature: expected"),
        ("a", {"max_tokens": -1}, InvalidArgumentError, "max_tokens: expected 0 or more"),
        ("a", {"stop": [""]}, InvalidArgumentError, "stop: expected no empty"),
        ("a", {"seed": -1}, InvalidArgumentError, "seed: expected"),
        ("a", {"banned_tokens": [256]}, TokenOutOfRangeError, "256"),
        ("a", {"banned_tokens": 5}, InvalidArgumentError, "banned_tokens: expected"),
        ("a", {"stop_tokens": 0}, InvalidArgumentError, "stop_tokens: expected"),
    ],
)
def test_bad_requests_are_refused_at_once(
    engine: Engine, prompt: Any, options: Any, error: type[Exception], message: str
) -> None:
    good = engine.submit(PROMPT, max_tokens=10, temperature=0)
    with pytest.raises(error, match=message):
        engine.submit(prompt, **options)
    assert good.result() == Session(engine.model).generate(PROMPT, max_tokens=10, temperature=0)


def test_engine_arguments(trained: Model, model_file: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="max_running: expected 1 or more, got 0"):
        Engine(trained, max_running=0)
    with pytest.raises(InvalidArgumentError, match="expected with a path only"):
        Engine(trained, threads=1)
    path = model_file("7", n_vocab=64)
    with pytest.raises(NoTokenizerError, match="64 tokens"):
        Engine(path)
    with Engine(path, threads=1, tokenizer=Tokenizer.bytewise()) as engine:
        assert engine.model.info.n_threads == 1
        assert engine.tokenizer is Tokenizer.bytewise()
        assert len(engine.submit([1, 2], max_tokens=5, stop_tokens=[]).result()) == 5


class Recorder:
    """Notes how many tokens each sequence of each step reads.

    The first step is made when so many requests are there: how fast they come does not matter.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_requests: int = 1):
        self.steps: list[dict[int, int]] = []
        step, join, all_there = Model._step, Engine._join, threading.Semaphore(0)

        def joined(engine: Engine, *task: Any, **how: Any) -> None:
            join(engine, *task, **how)
            all_there.release()

        def recorded(model: Model, work: Any, *wanted: Any, **how: Any) -> Any:
            if not self.steps:
                assert all(all_there.acquire(timeout=60) for _ in range(n_requests))
            work = list(work)
            self.steps.append({id(session): len(tokens) for session, tokens in work})
            return step(model, work, *wanted, **how)

        monkeypatch.setattr(Model, "_step", recorded)
        monkeypatch.setattr(Engine, "_join", joined)


def test_a_long_prompt_does_not_stall_the_others(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    with Engine(trained) as engine:
        writing = engine.submit(PROMPT, **ENDLESS)
        first_piece(writing)
        n_before = len(recorder.steps)
        (writer,) = recorder.steps[-1]
        long = [65] * (PIECE_TOKENS * 20)
        reading = [engine.submit(long, max_tokens=1) for _ in range(2)]
        short = engine.submit("short", max_tokens=1)
        for request in (short, *reading):
            request.result()
        writing.cancel()
    assert short.finished_at is not None
    assert all(request.finished_at > short.finished_at for request in reading)  # type: ignore[operator]
    during = [step for step in recorder.steps[n_before:] if len(step) > 1]
    assert len(during) >= 40
    for step in during:
        assert step[writer] == 1
        assert sum(step.values()) - step[writer] <= PIECE_TOKENS


def test_prompts_take_turns(trained: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, n_requests=3)
    with Engine(trained) as engine:
        requests = [engine.submit([65] * (20 * PIECE_TOKENS), max_tokens=1) for _ in range(3)]
        for request in requests:
            request.result()
    readers = [next(iter(step)) for step in recorder.steps]
    assert len(readers) == 60
    # The first may be alone in the first step; then there are three, then two.
    assert max(len(list(group)) for _, group in itertools.groupby(readers[1:55])) == 1


def test_prompts_are_cut_where_a_session_cuts_them(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    prompt = [65] * (2 * PIECE_TOKENS + 44)
    with Engine(trained) as engine:
        engine.submit(prompt, max_tokens=2).result()
    sizes = [size for step in recorder.steps for size in step.values()]
    assert sizes == [PIECE_TOKENS, PIECE_TOKENS, 44, 1]


def test_at_most_max_running_at_once(trained: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    with Engine(trained, max_running=3) as engine:
        requests = [engine.submit("ab", max_tokens=5, temperature=0) for _ in range(10)]
        texts = {request.result() for request in requests}
    assert texts == {Session(trained).generate("ab", max_tokens=5, temperature=0)}
    assert max(len(step) for step in recorder.steps) == 3


def test_cancel(trained: Model) -> None:
    with Engine(trained, max_running=1) as engine:
        running = engine.submit(PROMPT, **ENDLESS)
        waiting = engine.submit(PROMPT, **ENDLESS)
        last = engine.submit(PROMPT, max_tokens=10, temperature=0)
        piece = first_piece(running)
        assert waiting.cancel()
        assert running.cancel()
        assert not running.cancel()
        assert waiting.finish_reason == running.finish_reason == "cancelled"
        assert waiting.result() == ""
        assert waiting.tokens == []
        assert running.result().startswith(piece)
        assert running.result() == bytes(running.tokens).decode("utf-8", "ignore")
        assert last.result() == Session(trained).generate(PROMPT, max_tokens=10, temperature=0)
        assert not last.cancel()


def test_result_with_a_timeout(engine: Engine) -> None:
    request = engine.submit(PROMPT, **ENDLESS)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        request.result(timeout=0.05)
    assert not request.done


class Brittle(Tokenizer):
    """Bytes, but it breaks at a question mark."""

    @property
    def n_vocab(self) -> int:
        return 256

    def encode(self, text: str | bytes) -> list[int]:
        return Tokenizer.bytewise().encode(text)

    def decode_bytes(self, tokens: TokenSequence) -> bytes:
        if ord("?") in tokens:
            raise ZeroDivisionError("a fault in somebody's tokenizer")
        return bytes(tokens)


def test_what_fails_for_one_hurts_no_other(trained: Model) -> None:
    force = {ord("?"): 1000.0}
    with Engine(trained, tokenizer=Brittle()) as engine:
        good = engine.submit(PROMPT, max_tokens=50, temperature=0)
        unlucky = engine.submit(PROMPT, max_tokens=50, logit_bias=force)
        nothing_left = engine.submit(PROMPT, banned_tokens=range(256))
        with pytest.raises(ZeroDivisionError, match="somebody's"):
            unlucky.result()
        with pytest.raises(ZeroDivisionError):
            list(unlucky)
        with pytest.raises(InvalidArgumentError, match="ban"):
            nothing_left.result()
        assert unlucky.finish_reason == nothing_left.finish_reason == "error"
        assert good.result() == Session(trained).generate(PROMPT, max_tokens=50, temperature=0)


def test_a_step_that_fails_ends_its_requests_only(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, failures = Model._step, [MemoryError("no room")]

    def sometimes(model: Model, work: Any, *wanted: Any, **how: Any) -> Any:
        if failures:
            raise failures.pop()
        return step(model, work, *wanted, **how)

    monkeypatch.setattr(Model, "_step", sometimes)
    with Engine(trained, max_running=1) as engine:
        bad = engine.submit(PROMPT, max_tokens=5)
        good = engine.submit(PROMPT, max_tokens=5, temperature=0)
        with pytest.raises(MemoryError, match="no room"):
            bad.result()
        assert good.result() == Session(trained).generate(PROMPT, max_tokens=5, temperature=0)


def test_close_waits_and_refuses(trained: Model) -> None:
    engine = Engine(trained)
    requests = [engine.submit(PROMPT, max_tokens=30, banned_tokens=[0]) for _ in range(3)]
    engine.close()
    assert all(request.finish_reason == "length" for request in requests)
    with pytest.raises(EngineClosedError, match="closed"):
        engine.submit(PROMPT)
    engine.close()


def test_an_exception_in_the_block_cancels(trained: Model) -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), Engine(trained, max_running=1) as engine:
        requests = [engine.submit(PROMPT, **ENDLESS) for _ in range(3)]
        raise ZeroDivisionError
    assert {request.finish_reason for request in requests} == {"cancelled"}
    assert time.monotonic() - began < 30


def test_no_thread_is_left_when_there_is_no_work(trained: Model) -> None:
    engine = Engine(trained)
    for _ in range(3):
        engine.submit(PROMPT, max_tokens=2).result()
        deadline = time.monotonic() + 60
        while engine._thread is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine._thread is None


def test_python_exits_though_nobody_closed_the_engine(converted: Callable[[str], Path]) -> None:
    program = """
        import sys
        from rwkv_py import Engine
        engine = Engine(sys.argv[1])
        options = {"max_tokens": 10**9, "banned_tokens": [0], "seed": 1}
        requests = [engine.submit("a", **options) for _ in range(3)]
        print(len(next(iter(requests[0]))))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(converted("q4_0"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_requests_together_need_fewer_steps(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch, n_requests=16)
    with Engine(trained) as engine:
        engine.generate_batch([PROMPT] * 16, max_tokens=32, banned_tokens=[0], seed=1)
    assert len(recorder.steps) < 16 * 32 / 4


# ---- what callers may write later


def test_everything_is_copied_when_it_is_submitted(trained: Model) -> None:
    good = np.frombuffer(b"The json module exposes an API. " * 30, np.uint8).astype(np.int32)
    alone = Session(trained)
    expected = alone.generate(
        good.copy(), max_tokens=20, temperature=0, logit_bias={ord("e"): -3.0}, stop=["\n\n"]
    )
    with Engine(trained, max_running=1) as engine:
        blocking = engine.submit(PROMPT, **ENDLESS)  # the rest waits in line
        first_piece(blocking)
        buffer, bias, stop = good.copy(), {ord("e"): -3.0}, ["\n\n"]
        ends, banned = [0], [0]
        request = engine.submit(
            buffer, max_tokens=20, temperature=0, logit_bias=bias, stop=stop, stop_tokens=ends
        )
        other = engine.submit("a", max_tokens=5, banned_tokens=banned, seed=1)
        buffer[:] = 2**31 - 1
        bias[ord(" ")] = 100.0
        stop.append("e")
        ends.append(ord("e"))
        banned.extend(range(256))
        blocking.cancel()
        assert request.result() == expected
        assert len(other.result()) == 5


def test_a_bad_sequence_fails_alone(trained: Model) -> None:
    """Though the caller overwrites its array with nonsense while the prompt is read."""
    good = np.frombuffer(b"The json module exposes an API. " * 60, np.uint8).astype(np.int32)
    with Engine(trained) as engine:
        victim = engine.submit(good.copy(), max_tokens=200, temperature=0, stop_tokens=())
        first_piece(victim)
        buffer = good.copy()
        request = engine.submit(buffer, max_tokens=5, temperature=0)
        buffer[:] = 2**31 - 1
        assert request.result() == Session(trained).generate(good, max_tokens=5, temperature=0)
        assert len(victim.result()) == 200


def test_a_step_that_fails_is_made_again_for_each(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Model._step

    def failing(model: Model, work: Any, *wanted: Any, **how: Any) -> Any:
        work = list(work)
        if any(63 in tokens for _, tokens in work):
            raise MemoryError("no room for a question")
        return step(model, work, *wanted, **how)

    monkeypatch.setattr(Model, "_step", failing)
    with Engine(trained) as engine:
        good = [engine.submit(PROMPT, max_tokens=20, temperature=0) for _ in range(3)]
        bad = engine.submit("why?", max_tokens=5)
        with pytest.raises(MemoryError, match="question"):
            bad.result()
        expected = Session(trained).generate(PROMPT, max_tokens=20, temperature=0)
        assert [request.result() for request in good] == [expected] * 3


def test_the_session_of_a_request_begins_as_the_one_given(trained: Model) -> None:
    own = Session(trained, tokenizer=Brittle())
    with Engine(trained) as engine:
        kept = engine.submit(PROMPT, session=own, max_tokens=3, keep_session=True)
        kept.result()
        assert kept.session.tokenizer is own.tokenizer


def test_without_tokens_to_write_the_prompt_is_read(trained: Model) -> None:
    cache = PrefixCache(trained)
    with Engine(trained, cache=cache) as engine:
        assert engine.submit([65] * 600, max_tokens=0).result() == ""
        assert cache.tokens_read == 600
        assert engine.generate_batch(["a" * 40, ""], max_tokens=0) == ["", ""]
        assert cache.tokens_read == 640
