"""A list of prompts at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts import PROMPT
from rwkv_py import (
    Engine,
    InvalidArgumentError,
    Model,
    NoTokenizerError,
    Session,
    Tokenizer,
    TokenOutOfRangeError,
)


def batch(model: Model, prompts: Any, **options: Any) -> list[str]:
    """`Engine.generate_batch`, with the options of the engine among its own."""
    names = ("tokenizer", "time_state", "max_running", "max_waiting")
    opening = {name: options.pop(name) for name in names if name in options}
    with Engine(model, **opening) as engine:
        return engine.generate_batch(prompts, **options)


@pytest.fixture(scope="module")
def prompts(examples: Path) -> list[bytes]:
    """Pieces of documentation of 1 to 700 bytes: less and more than a piece of a prompt."""
    text = (examples / "heldout_a.txt").read_bytes()
    choose = random.Random(1)
    places = [choose.randrange(len(text) - 700) for _ in range(64)]
    return [text[place : place + choose.choice([1, 5, 40, 300, 700])] for place in places]


def test_generate_batch(trained: Model, prompts: list[bytes]) -> None:
    counts = []
    texts = batch(
        trained,
        prompts[:10],
        max_tokens=20,
        seed=4,
        temperature=0.8,
        stop=(stop for stop in ["``"]),
        banned_tokens=iter([0]),
        max_running=4,
        progress=lambda done, total: counts.append((done, total)),
    )
    expected = [
        Session(trained).generate(
            prompt, max_tokens=20, seed=4, temperature=0.8, stop="``", banned_tokens=[0]
        )
        for prompt in prompts[:10]
    ]
    assert texts == expected
    assert counts == [(i, 10) for i in range(1, 11)]


def test_generate_batch_seeds(trained: Model) -> None:
    same = [PROMPT] * 3
    texts = batch(trained, same, max_tokens=20, seeds=[1, 2, 3])
    assert texts == [Session(trained).generate(PROMPT, max_tokens=20, seed=s) for s in (1, 2, 3)]
    assert len(set(texts)) == 3
    assert len(set(batch(trained, same, max_tokens=20, seed=1))) == 1
    assert len(set(batch(trained, same, max_tokens=20))) == 3
    with pytest.raises(InvalidArgumentError, match="expected one for each of 3 prompts, got 2"):
        batch(trained, same, seeds=[1, 2])


def test_generate_batch_nothing_and_errors(trained: Model, model_file: Callable[..., Path]) -> None:
    assert batch(trained, []) == []
    with pytest.raises(InvalidArgumentError, match="prompts: expected a list of them, got one"):
        batch(trained, "import ")
    with pytest.raises(TokenOutOfRangeError, match="256"):
        batch(trained, [[1], [256]])
    other = Model(model_file("7", n_vocab=64))
    with pytest.raises(NoTokenizerError):
        batch(other, [[1]])
    bytewise = Tokenizer.bytewise()
    texts = batch(other, [np.array([1, 2])], tokenizer=bytewise, max_tokens=3, seed=1)
    assert texts == [Session(other, tokenizer=bytewise).generate([1, 2], max_tokens=3, seed=1)]
