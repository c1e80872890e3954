from __future__ import annotations

import copy
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts import PROMPT
from rwkv_py import (
    InvalidArgumentError,
    Model,
    NoTokenizerError,
    PrefixCache,
    Sampler,
    Session,
    StateMismatchError,
    Tokenizer,
    TokenOutOfRangeError,
    _core,
)
from rwkv_py.prompt import PIECE_TOKENS, pieces
from rwkv_py.sequence import Sequence

LONG = [*b"A long prompt, longer than one piece of it. "] * 20


def test_feed_returns_a_new_array(session: Session) -> None:
    first = session.feed("a")
    kept = first.copy()
    second = session.feed("b")
    assert first.dtype == np.float32
    assert first.shape == (256,)
    assert first.flags.owndata
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    first[:] = 0  # the caller's own: what is generated does not depend on it
    second[:] = 0
    text = session.generate("", max_tokens=5, temperature=0)
    again = Session(session.model)
    again.feed("ab")
    assert again.generate("", max_tokens=5, temperature=0) == text


def test_feed_expected_logits(converted: Callable[[str], Path], repo: Path) -> None:
    with np.load(repo / "tests/golden/rwkv7-pydoc.npz") as golden:
        tokens, expected = golden["tokens"], golden["logits"]
    session = Session(converted("fp32"))
    for token, row in zip(tokens, expected, strict=True):
        np.testing.assert_allclose(session.feed([token]), row, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "prompt", [PROMPT, PROMPT.encode(), [*PROMPT.encode()], np.array([*PROMPT.encode()], np.uint16)]
)
def test_feed_takes_text_and_tokens(session: Session, prompt: object) -> None:
    expected = Session(session.model).feed(PROMPT)
    assert np.array_equal(session.feed(prompt), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("", InvalidArgumentError, "expected at least one"),
        ([], InvalidArgumentError, "expected at least one"),
        ([256], TokenOutOfRangeError, "expected one of the vocabulary, 0 to 255, got 256"),
        (
            [1, -1],
            TokenOutOfRangeError,
            r"tokens\[1\]: expected one of the vocabulary, 0 to 255, got -1",
        ),
        ([1, 2**40], TokenOutOfRangeError, rf"tokens\[1\]: expected .*, got {2**40}"),
        ([0.5], InvalidArgumentError, "tokens: expected a flat sequence of integers"),
        ([*LONG, 256], TokenOutOfRangeError, "expected one of the vocabulary, 0 to 255, got 256"),
        ("a\ud800", InvalidArgumentError, "lone surrogate"),
    ],
)
def test_feed_refused_changes_nothing(
    session: Session, prompt: object, error: type[Exception], message: str
) -> None:
    session.feed(PROMPT)
    before = session.state
    with pytest.raises(error, match=message):
        session.feed(prompt)  # type: ignore[arg-type]
    assert np.array_equal(session.state, before)


def test_feed_in_pieces_is_one_native_step(trained: Model) -> None:
    """The pieces in which Session feeds a prompt are where the library cuts it."""
    pieces, whole = Session(trained), Session(trained)
    (logits,) = trained.step([(whole, LONG)])
    assert np.array_equal(pieces.feed(LONG), logits)
    assert np.array_equal(pieces.state, whole.state)


def test_feed_interrupted_changes_nothing(session: Session) -> None:
    session.feed(PROMPT)
    before = session.state
    tokens = np.full(2_000_000, 65, np.int32)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        session.feed(tokens)
    assert time.monotonic() - began < 10
    assert np.array_equal(session.state, before)
    assert session.generate("", max_tokens=3)


def test_feed_lets_other_threads_run(trained: Model) -> None:
    """The GIL is released: Python goes on counting while a session reads."""
    finished = threading.Event()

    def read() -> None:
        Session(trained).feed([65] * 4000)
        finished.set()

    thread = threading.Thread(target=read)
    thread.start()
    count = 0
    while not finished.is_set():
        count += 1
    thread.join()
    assert count > 1000


def test_two_threads_on_one_session_are_refused(session: Session) -> None:
    thread = threading.Thread(target=session.feed, args=([65] * 30_000,))
    thread.start()
    with pytest.raises(InvalidArgumentError, match="in use by another thread") as error:
        while thread.is_alive():
            _ = session.state
    assert error.value.message.endswith("expected one thread at a time")
    assert error.value.remedy == "Try a session for each thread: fork() makes one"
    thread.join()


def test_sessions_of_one_model_in_threads(trained: Model) -> None:
    prompts = [f"import {name}\n" for name in ("json", "os", "sys", "re")]

    def write(prompt: str) -> str:
        return Session(trained).generate(prompt, max_tokens=30, temperature=0)

    alone = [write(prompt) for prompt in prompts]
    together: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda p=prompt: together.update({p: write(p)}))
        for prompt in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[prompt] for prompt in prompts] == alone


# ---- generate and stream


def test_generate_seed(session: Session) -> None:
    def write(seed: int) -> str:
        session.reset()
        return session.generate(PROMPT, max_tokens=40, seed=seed)

    assert write(1) == write(1)
    assert write(1) != write(2)


def test_generate_greedy_is_argmax(session: Session) -> None:
    text = session.generate(PROMPT, max_tokens=40, temperature=0)
    other = Session(session.model)
    logits, tokens = other.feed(PROMPT), []
    for _ in range(40):
        tokens.append(int(logits.argmax()))
        logits = other.feed(tokens[-1:])
    assert text.encode() == bytes(tokens)


def test_stream_pieces_make_the_text(session: Session) -> None:
    text = session.fork().generate(PROMPT, max_tokens=60, seed=3)
    pieces = list(session.stream(PROMPT, max_tokens=60, seed=3))
    assert "".join(pieces) == text
    assert len(pieces) > 20
    assert all(pieces)


def test_stream_leaves_the_session_after_what_was_written(session: Session) -> None:
    stream = session.stream(PROMPT, max_tokens=20, seed=3)
    text = "".join(stream)
    assert stream.finish_reason == "length"
    assert bytes(stream.tokens).decode() == text
    other = Session(session.model)
    other.feed(PROMPT)
    for token in stream.tokens:
        other.feed([token])
    assert np.array_equal(session.state, other.state)


def test_stream_left_early(session: Session) -> None:
    stream = session.stream(PROMPT, max_tokens=50, seed=3)
    begin = next(stream) + next(stream)
    stream.close()
    assert list(stream) == []
    rest = session.generate("", max_tokens=10, temperature=0)
    other = Session(session.model)
    other.feed(PROMPT)
    for token in begin.encode():
        other.feed([token])
    assert other.generate("", max_tokens=10, temperature=0) == rest


def test_stream_is_lazy_but_checks_at_once(session: Session) -> None:
    fresh = session.state
    stream = session.stream(PROMPT, max_tokens=5, seed=1)
    assert np.array_equal(session.state, fresh)
    next(stream)
    assert not np.array_equal(session.state, fresh)
    with pytest.raises(ValueError, match="temperature"):
        session.stream(PROMPT, temperature=-1)
    with pytest.raises(ValueError, match="max_tokens"):
        session.stream(PROMPT, max_tokens=-1)
    with pytest.raises(ValueError, match="stop"):
        session.stream(PROMPT, stop="")
    with pytest.raises(TypeError, match="nonsense"):
        session.stream(PROMPT, nonsense=1)  # type: ignore[call-arg]


def test_stop_strings(session: Session) -> None:
    whole = session.fork().generate(PROMPT, max_tokens=200, seed=5)
    stop = whole[50:53]
    stream = session.stream(PROMPT, max_tokens=200, seed=5, stop=[stop, "never \x01"])
    text = "".join(stream)
    assert text == whole[: whole.index(stop)]
    assert stream.finish_reason == "stop"


def test_token_0_ends(session: Session) -> None:
    stream = session.stream(PROMPT, max_tokens=9, logit_bias={0: 1000.0})
    assert list(stream) == []
    assert stream.finish_reason == "end"


def test_empty_prompt_begins_a_document(session: Session) -> None:
    text = session.generate("", max_tokens=20, temperature=0)
    session.reset()
    session.feed([0])
    assert session.generate([], max_tokens=20, temperature=0) == text


def test_penalties_do_not_count_spaces_and_digits(session: Session) -> None:
    """With a penalty that forbids every counted token at its second use, only those come again."""
    penalty = {"frequency_penalty": 1e6, "penalty_decay": 1.0}
    stream = session.stream(PROMPT, max_tokens=60, stop_tokens=[], seed=1, **penalty)
    text = "".join(stream)
    again = {c for c in text if text.count(c) > 1}
    assert again
    assert again <= set(" \t0123456789")


# ---- state


def test_state_copy_and_set(session: Session) -> None:
    session.feed(PROMPT)
    before = session.state
    kept = copy.deepcopy(before)
    expected = session.feed("x")
    assert before.dtype == np.float32
    assert before.shape == (session.model.state_size,)
    assert np.array_equal(before, kept)
    session.state = before
    assert np.array_equal(session.feed("x"), expected)
    other = Session(session.model)
    other.state = before
    with pytest.raises(InvalidArgumentError, match="got an empty prompt"):
        other.generate("")
    assert np.array_equal(other.feed("x"), expected)


def test_state_of_another_size_is_refused(session: Session) -> None:
    session.feed(PROMPT)
    before = session.state
    with pytest.raises(StateMismatchError, match=r"state: expected shape \(\d+,\) for .*, got"):
        session.state = np.zeros(5, np.float32)
    with pytest.raises(ValueError):
        session.state = before.reshape(1, -1)
    assert np.array_equal(session.state, before)


def test_reset(session: Session) -> None:
    fresh = session.state
    expected = session.feed("a")
    session.feed(PROMPT)
    session.reset()
    assert np.array_equal(session.state, fresh)
    assert np.array_equal(session.feed("a"), expected)


def test_fork_goes_its_own_way(session: Session) -> None:
    session.feed(PROMPT)
    fork = session.fork()
    before = session.state
    fork.feed("something else")
    assert np.array_equal(session.state, before)
    assert fork.model is session.model
    # Both know the logits from before the fork.
    assert session.fork().generate("", max_tokens=5, temperature=0) == session.generate(
        "", max_tokens=5, temperature=0
    )


def test_session_outlives_its_model(converted: Callable[[str], Path]) -> None:
    session = Session(Model(converted("q4_0")))
    assert session.feed("a").shape == (256,)


# ---- tokenizers


def test_tokenizer_is_chosen_by_size(session: Session, model_file: Callable[..., Path]) -> None:
    assert session.tokenizer is Tokenizer.bytewise()
    assert Session(model_file("7", n_vocab=65536)).tokenizer is Tokenizer.world()


def test_world_model_writes_text(model_file: Callable[..., Path]) -> None:
    session = Session(model_file("7", n_vocab=65536))
    biases = dict.fromkeys(range(65530, 65536), 1000.0)  # tokens that the vocabulary lacks
    stream = session.stream("Hello", max_tokens=5, seed=1, logit_bias=biases, stop_tokens=())
    assert "".join(stream)
    assert len(stream.tokens) == 5
    assert max(stream.tokens) < 65530


def test_unknown_size_works_with_tokens(model_file: Callable[..., Path]) -> None:
    session = Session(model_file("7", n_vocab=64))
    assert session.feed([1, 2, 3]).shape == (64,)
    for call in (session.feed, session.generate, session.stream):
        with pytest.raises(NoTokenizerError, match=r"has 64 tokens.*Session\(\.\.\., tokenizer="):
            call("text")


def test_tokenizer_given(model_file: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text("".join(f"{i} '{chr(96 + i)}' 1\n" for i in range(1, 27)))
    for tokenizer in (path, str(path), Tokenizer.open(path)):
        session = Session(model_file("7", n_vocab=64), tokenizer=tokenizer)
        assert np.array_equal(session.fork().feed("abc"), session.fork().feed([1, 2, 3]))
        text = session.generate("abc", max_tokens=20, seed=1, stop_tokens=())
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz")


# ---- opening


def test_session_opens_a_path(converted: Callable[[str], Path]) -> None:
    path = converted("q4_0")
    for given in (path, str(path)):
        session = Session(given, threads=1)
        assert session.model.info.n_threads == 1
        assert session.feed("a").shape == (256,)


def test_options_with_a_model_are_refused(trained: Model) -> None:
    for options in ({"threads": 1}, {"ln_x_eps": 1e-5}):
        with pytest.raises(InvalidArgumentError, match="expected with a path only"):
            Session(trained, **options)


def test_tokenizer_by_name(trained: Model) -> None:
    assert Session(trained, tokenizer="bytes").tokenizer is Tokenizer.bytewise()
    assert Session(trained, tokenizer="world").tokenizer is Tokenizer.world()


def test_tokenizer_of_another_model_is_named(trained: Model) -> None:
    session = Session(trained, tokenizer="world")
    for work in (session.feed, session.generate):
        with pytest.raises(TokenOutOfRangeError, match=r"tokenizer: expected tokens 0 to 255 for"):
            work("Hello, world!")
    session.generate([72, 105], max_tokens=2, temperature=0)  # digits beyond the model's tokens


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_tokens", 2.5),
        ("max_tokens", None),
        ("max_tokens", "5"),
        ("top_k", 2.5),
        ("seed", "a"),
        ("temperature", "0.8"),
        ("top_p", None),
    ],
)
def test_options_of_another_type_are_refused(session: Session, option: str, value: object) -> None:
    """Among them a fraction of a token, which no count of tokens ever equals."""
    with pytest.raises(InvalidArgumentError, match=rf"^{option}: expected a (whole )?number, got"):
        session.generate("x", **{option: value})  # type: ignore[arg-type]


def test_repr_tells_models_apart(trained: Model) -> None:
    assert repr(trained) == f"<Model {trained.path!r}: RWKV-7, {trained.info.data_type}>"
    assert repr(Session(trained)) == f"<Session of {trained!r}>"


# ---- what callers may write later


def test_a_callers_array_is_copied(trained: Model) -> None:
    good = np.frombuffer(b"The json module exposes an API. " * 10, np.uint8).astype(np.int32)
    expected = Session(trained).generate(good.copy(), max_tokens=10, temperature=0)
    buffer = good.copy()
    stream = Session(trained).stream(buffer, max_tokens=10, temperature=0)
    buffer[:] = 32
    assert "".join(stream) == expected


def test_tokens_changed_while_feed_waits_are_not_read(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its array is overwritten before the library has read it, as while another step is made.

    That the library does not read it later is tested in native/tests/test_turns.cpp.
    """
    buffer, read = np.full(8, 65, np.int32), Sequence.read

    def waiting(sequence: Sequence, piece: Any, **options: Any) -> None:
        buffer.fill(2**31 - 1)
        read(sequence, piece, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Sequence, "read", waiting)
        logits = session.feed(buffer)
    assert buffer[0] == 2**31 - 1
    assert np.array_equal(logits, Session(session.model).feed([65] * 8))


def test_logits_of_a_step_are_the_callers(trained: Model) -> None:
    session, other = Session(trained), Session(trained)
    expected = other.feed(PROMPT).argmax()
    for wanted in ("last", "all"):
        session.reset()
        (logits,) = trained.step([(session, [*PROMPT.encode()])], logits=wanted)  # type: ignore[arg-type]
        assert logits is not None
        logits[:] = -np.arange(256)
        session.generate("", max_tokens=1, temperature=0)
        assert session._sequence.logits is not None
        other.reset()
        other.feed([*PROMPT.encode(), int(expected)])
        assert np.array_equal(session.state, other.state)


def test_tokens_of_a_stream_are_a_copy(session: Session) -> None:
    stream = session.stream(PROMPT, max_tokens=5, banned_tokens=[0], seed=1)
    next(stream)
    stream.tokens.clear()
    assert len(stream.tokens) == 1


# ---- pieces, all or none


@pytest.mark.parametrize("n_tokens", [257, 300, 512, 700])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_fails_at_the_second_piece_changes_nothing(
    trained: Model,
    monkeypatch: pytest.MonkeyPatch,
    n_tokens: int,
    cached: bool,
    error: type[BaseException],
) -> None:
    session = Session(trained, cache=PrefixCache(trained) if cached else None)
    session.feed(PROMPT)
    before, expected = session.state, session.fork().generate("", max_tokens=5, temperature=0)
    read, sizes = Sequence.read, []

    def failing(sequence: Sequence, piece: Any, **options: Any) -> None:
        sizes.append(piece.size)
        if len(sizes) == 2:
            raise error
        read(sequence, piece, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Sequence, "read", failing)
        with pytest.raises(error):
            session.feed([65] * n_tokens)
    assert sizes == [256, min(n_tokens - 256, 256)]
    assert np.array_equal(session.state, before)
    assert session.generate("", max_tokens=5, temperature=0) == expected


def test_prompts_are_cut_where_the_library_cuts() -> None:
    assert PIECE_TOKENS == _core.session_piece_size() == 256
    sizes = [piece.size for piece in pieces(np.arange(600, dtype=np.int32))]
    assert sizes == [256, 256, 88]
    assert pieces(np.arange(0, dtype=np.int32)) == []


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT * 20, ""])
def test_without_tokens_to_write_the_prompt_is_read(session: Session, prompt: str) -> None:
    assert session.generate(prompt, max_tokens=0) == ""
    other = Session(session.model)
    other.feed(prompt or [0])
    assert np.array_equal(session.state, other.state)
    assert session.generate("", max_tokens=5, temperature=0) == other.generate(
        "", max_tokens=5, temperature=0
    )


# ---- copies know what was read


def test_a_copy_knows_whether_anything_was_read(trained: Model) -> None:
    fresh, moved = Session(trained), Session(trained)
    moved.state = moved.state
    session = Session(trained)
    session.feed(PROMPT)
    session.copy_from(fresh)
    document = Session(trained).generate("", max_tokens=5, temperature=0)
    assert session.generate("", max_tokens=5, temperature=0) == document
    session.copy_from(moved)
    with pytest.raises(InvalidArgumentError, match="got an empty prompt"):
        session.generate("")
    with pytest.raises(InvalidArgumentError, match="other: expected a Session, got int: 3"):
        session.copy_from(3)  # type: ignore[arg-type]


# ---- reprs


def test_reprs(session: Session) -> None:
    assert re.fullmatch(r"<Session of <Model '.*': RWKV-7, q4_0>>", repr(session))
    stream = session.stream(PROMPT, max_tokens=2, banned_tokens=[0], seed=1)
    next(stream)
    assert repr(stream) == "<TextStream: 1 tokens, writing>"
    stream.close()
    assert repr(stream) == "<TextStream: 1 tokens, closed>"
    sampler = Sampler(256, temperature=0.8, top_k=5, seed=3)
    assert repr(sampler) == "Sampler(256, temperature=0.8, top_k=5, seed=3)"
