"""Absurd values are refused where they are given, each with an error that names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rwkv_py
from rwkv_py import (
    Engine,
    InvalidArgumentError,
    Model,
    ModelFileError,
    PrefixCache,
    Sampler,
    Session,
    StateFileError,
    StateMismatchError,
)


@pytest.mark.parametrize("prompt", [None, 3, 2.5, True, {1, 2}, {"a": 1}, object(), [[1], [2, 3]]])
def test_prompts_that_are_none_are_refused(session: Session, prompt: Any) -> None:
    for call in (session.feed, session.generate, session.stream):
        with pytest.raises(InvalidArgumentError, match=r"(prompt|tokens): expected .*, got "):
            call(prompt)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "4", 2**70, np.array([1, 2])])
def test_thread_counts_that_are_none_are_refused(
    threads: Any, converted: Callable[[str], Path]
) -> None:
    with pytest.raises(InvalidArgumentError, match="threads: expected"):
        Session(converted("q4_0"), threads=threads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model: expected a Model or the path of a model file, got int: 3"),
        ({"model": None}, "model: expected .*, got NoneType"),
        ({"ln_x_eps": "1e-5"}, "ln_x_eps: expected a number, got '1e-5'"),
        ({"ln_x_eps": True}, "ln_x_eps: expected a number, got True"),
        ({"tokenizer": 20}, "tokenizer: expected a Tokenizer, 'world', .* got int: 20"),
        ({"cache": {}}, r"cache: expected a PrefixCache, got dict: {}"),
    ],
)
def test_opening_arguments_of_the_wrong_kind(
    arguments: dict[str, Any], message: str, converted: Callable[[str], Path]
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Session(**{"model": converted("q4_0"), **arguments})


def test_paths_of_bytes_and_surrogates(
    session: Session, tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    link = tmp_path / "m\udcff.bin"
    link.symlink_to(converted("q4_0"))
    for path in (os.fsencode(link), str(link), link):
        model = Model(path)  # type: ignore[arg-type]
        assert model.path == str(link)
    session.save_state(os.fsencode(tmp_path / "s\udcfe.state"))  # type: ignore[arg-type]
    session.load_state(tmp_path / "s\udcfe.state")
    for act in (session.load_state, session.save_state, Model):
        with pytest.raises(InvalidArgumentError, match="path: expected no zero character"):
            act("a\0b")
        with pytest.raises(
            InvalidArgumentError, match=r"path: expected str or os\.PathLike, got int"
        ):
            act(3)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="path: expected characters"):
            act("\ud800")


@pytest.mark.parametrize("state", [None, "abc", [[1.0], [2.0, 3.0]], object(), 10**400])
def test_states_that_are_none_are_refused(session: Session, state: Any) -> None:
    with pytest.raises(StateMismatchError, match="state: expected"):
        session.state = state


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: Model(m.path, threads=10**9), "threads: expected 1 to 1024, got 1000000000"),
        (lambda m: m.step(5), "work: expected several, got 5"),
        (lambda m: m.step([5]), r"work: expected pairs \(session, tokens\), got 5"),
        (lambda m: m.step([(5, [1])]), r"work: expected pairs .*, got \(5, \[1\]\)"),
        (lambda m: m.step([(Session(m), None)]), "tokens: expected .*, got NoneType: None"),
        (lambda m: m.step([(Session(m), [1])], logits=5), "logits: expected several, got 5"),
        (lambda m: PrefixCache("x"), "model: expected a Model, got str: 'x'"),
        (lambda m: PrefixCache(m, budget=1.5), r"budget: expected a whole number, got 1\.5"),
        (lambda m: Sampler(2**70), "n_vocab: expected 1 to 16777216, got "),
        (lambda m: Sampler(4).sample("abc"), "logits: expected numbers .*, got str: 'abc'"),
        (lambda m: Sampler(4, temperature=None), "temperature: expected a number, got None"),
        (lambda m: Engine(m).submit("a", session=5), "session: expected a Session, got int: 5"),
        (lambda m: Engine(m).generate_batch(5), "prompts: expected a list of them, got one: 5"),
        (lambda m: Engine(m).submit("a").result("x"), "timeout: expected a number, got 'x'"),
        (lambda m: rwkv_py.evaluate.lambada(m, "a b"), "texts: expected a list of str, got 'a b'"),
        (lambda m: rwkv_py.evaluate.lambada(m, [3]), r"texts: expected a list of str, got \[3\]"),
        (lambda m: rwkv_py.evaluate.perplexity(m, None), "text: expected str or bytes"),
        (lambda m: rwkv_py.evaluate.read_lambada(3), "path: expected str or os"),
        (lambda m: rwkv_py.evaluate.read_lambada("a\0b"), "path: expected no zero"),
    ],
)
def test_everything_else_of_the_wrong_kind(
    trained: Model, call: Callable[[Model], Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        call(trained)


@pytest.mark.parametrize("value", ["", "-1", "0", "abc", "9" * 30, "1.5"])
def test_rwkv_threads(trained: Model, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RWKV_THREADS", value)
    if value:
        with pytest.raises(InvalidArgumentError, match=f"RWKV_THREADS: expected .*'{value}'"):
            Model(trained.path)
    else:
        assert Model(trained.path).info.n_threads >= 1


def test_files_that_are_none(session: Session, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    session.feed("a")
    before = session.state
    for name in ("pipe", "folder", "empty", "missing"):
        with pytest.raises(StateFileError, match=name):
            session.load_state(tmp_path / name)
        with pytest.raises(ModelFileError, match=name) as caught:
            Session(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)
    assert np.array_equal(session.state, before)
