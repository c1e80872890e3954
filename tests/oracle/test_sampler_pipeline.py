"""The sampler against `rwkv.utils.PIPELINE`: the same logits and random numbers, the same tokens.

PIPELINE draws with `np.random.choice`, the sampler by going along the probabilities in the order of
tokens until they exceed a random number. Here `choice` does that too, with the sampler's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rwkv.utils import PIPELINE, PIPELINE_ARGS

from rwkv_py import Model, Sampler, Session, Tokenizer
from twin import ggmf, synth

N_VOCAB = 1024
N_DRAWS = 1000  # of each of the ten cases
MASK = 2**64 - 1
# What PIPELINE's penalties do not count: World's tokens for parts of this text.
UNCOUNTED = " \t0123456789"


def uniforms(seed: int) -> Iterator[float]:
    """SplitMix64: numbers from 0 up to 1."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield ((z ^ (z >> 31)) >> 11) * 2.0**-53


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`choose(seed)` lets `np.random.choice` draw with the sampler's random numbers."""

    def with_seed(seed: int) -> None:
        numbers = uniforms(seed)

        def choice(a: int, p: NDArray[np.floating]) -> int:
            sums = np.cumsum(p, dtype=np.float64)
            return int(np.searchsorted(sums, next(numbers) * sums[-1], side="right"))

        monkeypatch.setattr(np.random, "choice", choice)

    return with_seed


@pytest.fixture(scope="module")
def pipeline() -> PIPELINE:
    return PIPELINE(None, "rwkv_vocab_v20230424")


class Replay:
    """A model that answers with given logits, and notes the tokens that it is fed."""

    def __init__(self, rows: NDArray[np.float32]):
        self._rows = iter(rows)
        self.tokens: list[int] = []

    def forward(self, tokens: Sequence[int], state: Any) -> tuple[torch.Tensor, Any]:
        self.tokens += tokens
        return torch.from_numpy(next(self._rows).copy()), state


CASES = {
    "defaults": {},
    "greedy": {"temperature": 0.0},
    "greedy, strong penalties": {
        "temperature": 0.0,
        "alpha_presence": 1.5,
        "alpha_frequency": 0.7,
        "alpha_decay": 0.95,
    },
    "no penalties": {"alpha_presence": 0.0, "alpha_frequency": 0.0},
    "hot": {"temperature": 1.7, "top_p": 0.95},
    "cold": {"temperature": 0.3, "top_p": 0.5},
    "top-k": {"top_k": 20, "top_p": 0.9},
    "top-k, cool": {"top_k": 100, "temperature": 0.8, "top_p": 0.8},
    "bans": {"token_ban": [0, 11, 34, 261, 999]},
    "rewards": {"alpha_presence": -0.3, "alpha_frequency": -0.1, "alpha_decay": 0.9},
}


def tokens_of_pipeline(
    pipeline: PIPELINE, rows: NDArray[np.float32], args: PIPELINE_ARGS
) -> list[int]:
    """What PIPELINE draws from each row of logits (n_rows, n_vocab), the last excepted."""
    pipeline.model = Replay(rows)
    pipeline.generate("a", token_count=len(rows), args=args)
    return pipeline.model.tokens[1:]  # after the prompt


def sampler_like(args: PIPELINE_ARGS, n_vocab: int, seed: int) -> Sampler:
    """The sampler that draws what PIPELINE draws."""
    sampler = Sampler(
        n_vocab,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        presence_penalty=args.alpha_presence,
        frequency_penalty=args.alpha_frequency,
        penalty_decay=args.alpha_decay,
        banned_tokens=args.token_ban,
        seed=seed,
    )
    world = Tokenizer.world()
    for token in range(1, min(n_vocab, world.n_vocab)):
        if world.decode_bytes([token]) in UNCOUNTED.encode():
            sampler.weigh(token, 0)
    return sampler


def random_logits(random: np.random.Generator, n_rows: int, n_vocab: int) -> NDArray[np.float32]:
    """Peaked logits and flat ones."""
    spread = random.uniform(0.5, 5, (n_rows, 1))
    return (random.normal(size=(n_rows, n_vocab)) * spread).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_pipeline(
    case: str, pipeline: PIPELINE, choose: Callable[[int], None]
) -> None:
    seed = 1 + list(CASES).index(case)
    rows = random_logits(np.random.default_rng(seed), N_DRAWS + 1, N_VOCAB)
    args = PIPELINE_ARGS(**CASES[case])
    choose(seed)
    expected = tokens_of_pipeline(pipeline, rows, args)
    assert len(expected) == N_DRAWS
    sampler = sampler_like(args, N_VOCAB, seed)
    for step, (row, token) in enumerate(zip(rows, expected, strict=False)):
        assert sampler.sample(row) == token, step
        sampler.accept(token)


def test_10_000_logits_and_all_of_the_order(
    pipeline: PIPELINE, choose: Callable[[int], None]
) -> None:
    """Ban, penalties, softmax, top-p, top-k and temperature together: 100 settings, 100 draws each.

    The settings are such that every step matters: without it some draws of most would be others.
    """
    n_settings, n_draws = 100, 100
    matters = dict.fromkeys(("token_ban", "alpha", "top_p", "top_k", "temperature"), 0)
    off: dict[str, dict[str, Any]] = {
        "token_ban": {"token_ban": []},
        "alpha": {"alpha_presence": 0.0, "alpha_frequency": 0.0},
        "top_p": {"top_p": 1.0},
        "top_k": {"top_k": 0},
        "temperature": {"temperature": 1.0},
    }
    n_compared = 0
    for seed in range(n_settings):
        random = np.random.default_rng(seed)
        rows = random_logits(random, n_draws + 1, N_VOCAB)
        favoured = random.choice(N_VOCAB, 40, replace=False)
        rows[:, favoured] += 8  # so that tokens come again, and banned ones would
        settings: dict[str, Any] = {
            "token_ban": favoured[:4].tolist(),
            "alpha_presence": random.uniform(0.1, 2),
            "alpha_frequency": random.uniform(0.1, 2),
            "alpha_decay": random.uniform(0.9, 0.999),
            "top_p": random.uniform(0.5, 0.95),
            "top_k": int(random.integers(2, 10)),
            "temperature": random.choice([0.5, 0.8, 1.3, 2.0]),
        }
        args = PIPELINE_ARGS(**settings)
        choose(seed)
        expected = tokens_of_pipeline(pipeline, rows, args)
        sampler = sampler_like(args, N_VOCAB, seed)
        for step, (row, token) in enumerate(zip(rows, expected, strict=False)):
            assert sampler.sample(row) == token, (seed, step)
            sampler.accept(token)
            n_compared += 1
        for name, without in off.items():
            sampler = sampler_like(PIPELINE_ARGS(**{**settings, **without}), N_VOCAB, seed)
            for row, token in zip(rows, expected, strict=False):
                if sampler.sample(row) != token:
                    matters[name] += 1
                    break
                sampler.accept(token)
    assert n_compared == 10_000
    assert all(count >= 0.75 * n_settings for count in matters.values()), matters


def test_tokens_of_a_whole_vocabulary(pipeline: PIPELINE, choose: Callable[[int], None]) -> None:
    """65536 logits, as World models have."""
    n_vocab = 65536
    rows = random_logits(np.random.default_rng(1), 101, n_vocab)
    args = PIPELINE_ARGS(top_p=0.7, top_k=500, temperature=0.9, token_ban=[0])
    choose(1)
    expected = tokens_of_pipeline(pipeline, rows, args)
    sampler = sampler_like(args, n_vocab, 1)
    for step, (row, token) in enumerate(zip(rows, expected, strict=False)):
        assert sampler.sample(row) == token, step
        sampler.accept(token)


class Wrapped:
    """Our own model, as PIPELINE wants one."""

    def __init__(self, model: Model):
        self._session = Session(model)

    def forward(self, tokens: Sequence[int], state: Any) -> tuple[torch.Tensor, Any]:
        return torch.from_numpy(self._session.feed(tokens)), state


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generated_text_is_pipelines(
    temperature: float, pipeline: PIPELINE, choose: Callable[[int], None], tmp_path: Path
) -> None:
    """Session.generate from end to end: tokenizer, penalties that skip spaces and digits, text."""
    checkpoint = synth.checkpoint("7", n_layer=1, n_embd=64, n_vocab=65536, seed=3)
    # Make digits, spaces and some words likely, so that what is not counted matters.
    head = checkpoint["head.weight"]
    head[[33, 49, 50, 51, 261, 4811, 45, 11]] *= 6
    ggmf.write(tmp_path / "world.bin", ggmf.convert_reference(checkpoint))
    model = Model(tmp_path / "world.bin")

    choose(5)
    pipeline.model = Wrapped(model)
    args = PIPELINE_ARGS(temperature=temperature, top_p=0.8, token_ban=[0, *range(65530, 65536)])
    expected = pipeline.generate("In 1984, ", token_count=120, args=args)

    text = Session(model).generate(
        "In 1984, ",
        max_tokens=120,
        temperature=temperature,
        top_p=0.8,
        presence_penalty=0.2,
        frequency_penalty=0.2,
        banned_tokens=[0],
        stop_tokens=(),
        seed=5,
    )
    # PIPELINE gives out nothing more once bytes have come that are not UTF-8.
    assert len(expected) > 20
    assert text.startswith(expected)
