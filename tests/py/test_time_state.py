"""Initial states from state tuning, wherever a new sequence begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convert.checkpoint_writers import views, write_pth, write_safetensors
from prompts import PROMPT
from rwkv_py import (
    Chat,
    Engine,
    InvalidArgumentError,
    Model,
    PrefixCache,
    Session,
    StateFileError,
    StateMismatchError,
    read_time_state,
)
from rwkv_py.time_state import TimeState
from twin import ggmf, synth
from twin.model import load

VERSIONS = ["5.1", "5.2", "6", "7"]
SIZES: dict[str, int] = {"n_layer": 6, "n_embd": 256, "head_size": 64}  # of the shipped checkpoint
LONG = [*b"A long prompt, longer than one piece of it. "] * 20

ModelFile = Callable[..., Path]


@pytest.fixture
def tuned() -> dict[str, NDArray[np.float32]]:
    """An initial state for the shipped checkpoint, which must not be taken for another."""
    return synth.time_state(**SIZES, std=20.0)


@pytest.fixture
def tuned_file(tuned: dict[str, NDArray[np.float32]], tmp_path: Path) -> Path:
    return write_pth(tmp_path / "tuned.pth", views(tuned, "fp32"))


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_against_the_twin(version: str, embedded: bool, tmp_path: Path) -> None:
    checkpoint, state = synth.checkpoint(version), synth.time_state()
    ggmf.write(tmp_path / "tuned.bin", ggmf.convert_reference({**checkpoint, **state}))
    ggmf.write(tmp_path / "plain.bin", ggmf.convert_reference(checkpoint))
    twin = load(tmp_path / "tuned.bin")
    tokens = [*range(1, 60)]
    if embedded:
        session = Session(tmp_path / "tuned.bin")
    else:
        session = Session(tmp_path / "plain.bin", time_state=state)
    assert session.model.info.has_time_state == embedded
    assert np.array_equal(session.state, twin.new_state())
    expected = twin.forward(tokens)[-1]
    np.testing.assert_allclose(session.feed(tokens), expected, rtol=0, atol=5e-5)
    blank = load(tmp_path / "plain.bin").forward(tokens)[-1]
    assert np.abs(blank - expected).max() > 0.1  # the test would see one that is left out
    session.reset()
    assert np.array_equal(session.state, twin.new_state())


def test_every_form(trained: Model, tuned: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    layers = [tuned[f"blocks.{i}.att.time_state"] for i in range(6)]
    pth = write_pth(tmp_path / "tuned.pth", views(tuned, "fp32"))
    forms: list[TimeState] = [
        pth,
        str(write_safetensors(tmp_path / "tuned.st", tuned, "fp32")),
        {**tuned, "something.else": np.zeros(3)},
        layers,
        np.stack(layers),
        np.stack(layers).astype(np.float64),
        read_time_state(pth),
    ]
    expected = Session(trained, time_state=tuned).state
    assert expected.any()
    for form in forms:
        assert np.array_equal(Session(trained, time_state=form).state, expected)


def test_reset_and_fork_keep_it(trained: Model, tuned_file: Path) -> None:
    session = Session(trained, time_state=tuned_file)
    fresh = session.state
    first = session.feed(PROMPT)
    fork = session.fork()
    for other in (session, fork):
        other.reset()
        assert np.array_equal(other.state, fresh)
        assert np.array_equal(other.feed(PROMPT), first)
    plain = Session(trained)
    assert not np.array_equal(plain.feed(PROMPT), first)
    plain.copy_from(session)
    assert np.array_equal(plain.state, session.state)
    plain.reset()  # to what it began with itself
    assert not plain.state.any()


def test_a_state_that_is_loaded_takes_its_place(
    trained: Model, tuned_file: Path, tmp_path: Path
) -> None:
    """It is of the same model, whatever it began with."""
    session = Session(trained, time_state=tuned_file)
    session.feed(PROMPT)
    session.save_state(tmp_path / "saved.state")
    plain = Session(trained)
    plain.load_state(tmp_path / "saved.state")
    assert np.array_equal(plain.feed("dumps"), session.feed("dumps"))


def test_the_model_with_the_state_in_its_file_is_another_model(
    model_file: ModelFile, tmp_path: Path
) -> None:
    checkpoint = {**synth.checkpoint("7", n_layer=2), **synth.time_state(n_layer=2)}
    ggmf.write(tmp_path / "tuned.bin", ggmf.convert_reference(checkpoint))
    session = Session(tmp_path / "tuned.bin")
    session.save_state(tmp_path / "saved.state")
    with pytest.raises(StateMismatchError, match="another model"):
        Session(model_file("7")).load_state(tmp_path / "saved.state")
    given = Session(tmp_path / "tuned.bin", time_state=synth.time_state(n_layer=2, seed=5))
    assert not np.array_equal(given.state, session.state)  # comes before the file's
    given.load_state(tmp_path / "saved.state")
    assert np.array_equal(given.state, session.state)


def test_prefix_cache_tells_beginnings_apart(
    trained: Model, tuned: dict[str, NDArray[np.float32]]
) -> None:
    cache = PrefixCache(trained)
    other = synth.time_state(**SIZES, std=20.0, seed=1)
    for time_state in (None, tuned, other):
        alone = Session(trained, time_state=time_state).feed(LONG)
        for n_found in (0, len(LONG), 2 * len(LONG)):
            before = cache.tokens_found
            session = Session(trained, cache=cache, time_state=time_state)
            assert np.array_equal(session.feed(LONG), alone)
            session.reset()
            assert np.array_equal(session.feed(LONG), alone)
            found = cache.tokens_found - before
            assert found == (len(LONG) if n_found == 0 else 2 * len(LONG))


def test_batches_begin_with_it(trained: Model, tuned_file: Path) -> None:
    options = {"max_tokens": 30, "seed": 1}
    expected = Session(trained, time_state=tuned_file).generate(PROMPT, **options)  # type: ignore[arg-type]
    assert expected != Session(trained).generate(PROMPT, **options)  # type: ignore[arg-type]
    with Engine(trained, time_state=tuned_file) as engine:
        assert engine.generate_batch([PROMPT] * 2, **options) == [expected] * 2  # type: ignore[arg-type]
        assert engine.submit(PROMPT, **options).result() == expected  # type: ignore[arg-type]
        plain = engine.submit(PROMPT, session=Session(trained), **options)  # type: ignore[arg-type]
        assert plain.result() != expected
    with Engine(trained) as engine:  # one text of many
        own = Session(trained, time_state=tuned_file)
        assert engine.submit(PROMPT, session=own, **options).result() == expected  # type: ignore[arg-type]


def test_chat_begins_with_it(trained: Model, tuned_file: Path) -> None:
    def answer(chat: Chat) -> str:
        newlines = [ord("\n")]  # two of which end an answer
        question = "What does json.loads do?"
        return chat.ask(question, max_tokens=20, seed=1, banned_tokens=newlines)

    chat = Chat(trained, time_state=tuned_file)
    first = answer(chat)
    assert first == answer(Chat(Session(trained, time_state=tuned_file)))
    assert first != answer(Chat(trained))
    chat.reset()
    assert answer(chat) == first
    with pytest.raises(InvalidArgumentError, match="time_state: expected with a model only"):
        Chat(Session(trained), time_state=tuned_file)


# ---- refused


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((5, 4, 64, 64)), StateMismatchError, r"\(6, 4, 64, 64\) .* got \(5, 4, 64, 64\)"),
        (np.zeros((6, 8, 32, 32)), StateMismatchError, r"got \(6, 8, 32, 32\). Try the initial"),
        (np.zeros(6 * 4 * 64 * 64), StateMismatchError, r"got \(98304,\)"),
        (np.full((6, 4, 64, 64), np.nan), InvalidArgumentError, "time_state: expected finite"),
        ({}, StateMismatchError, "time_state: expected 'blocks.0.att.time_state', got ''"),
        (
            {"blocks.0.att.time_state": np.zeros(3), "blocks.1.att.time_state": np.zeros(4)},
            StateMismatchError,
            "layers of one shape",
        ),
        ({1: 2, "a": 3}, StateMismatchError, "expected 'blocks.0.att.time_state', got '1, a'"),
        (
            {"blocks.0.att.time_state": [[1.0], [2.0, 3.0]]},
            StateMismatchError,
            "time_state: blocks.0.att.time_state: expected numbers, in layers of one shape",
        ),
        (
            [np.zeros((4, 64, 64))] * 5 + [np.zeros((8, 32, 32))],
            StateMismatchError,
            "time_state: expected numbers, in layers of one shape, got others: ",
        ),
        (["a"], StateMismatchError, "time_state: expected numbers, .* 'a'"),
        ([{}], StateMismatchError, "time_state: expected numbers"),
        ([10**400], StateMismatchError, "time_state: expected numbers"),
        ("missing.pth", StateFileError, r"missing\.pth: cannot be opened"),
    ],
)
def test_what_is_no_state_for_the_model_is_refused(
    trained: Model, given: TimeState, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Session(trained, time_state=given)


def test_version_4_has_no_heads(model_file: ModelFile, tuned_file: Path) -> None:
    with pytest.raises(StateMismatchError, match=r"tuned\.pth: .* version 4, which has no heads"):
        Session(model_file("4"), time_state=tuned_file)


def test_damaged_file_is_refused(trained: Model, tuned_file: Path) -> None:
    tuned_file.write_bytes(tuned_file.read_bytes()[:1000])
    with pytest.raises(StateFileError, match=r"tuned\.pth"):
        Session(trained, time_state=tuned_file)


def test_without_rwkv_convert_the_error_says_what_to_do(
    trained: Model, tuned_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rwkv_convert", None)
    with pytest.raises(
        StateFileError, match=r"tuned\.pth: .*pip install rwkv-py\[states\].*--time"
    ):
        Session(trained, time_state=tuned_file)
