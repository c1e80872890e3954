"""Absurd values are refused where they are given, each with an error that names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import (
    InvalidArgumentError,
    Model,
    Session,
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
