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


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_pipeline(
    case: str, pipeline: PIPELINE, choose: Callable[[int], None]
) -> None:
    arguments = CASES[case]
    seed = 1 + list(CASES).index(case)
    # Peaked logits and flat ones.
    random = np.random.default_rng(seed)
    spread = random.uniform(0.5, 5, (N_DRAWS + 1, 1))
    rows = (random.normal(size=(N_DRAWS + 1, N_VOCAB)) * spread).astype(np.float32)

    args = PIPELINE_ARGS(**arguments)
    choose(seed)
    pipeline.model = Replay(rows)
    pipeline.generate("a", token_count=N_DRAWS + 1, args=args)
    expected = pipeline.model.tokens[1:]  # after the prompt
    assert len(expected) == N_DRAWS

    sampler = Sampler(
        N_VOCAB,
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
    for token in range(1, N_VOCAB):
        if world.decode_bytes([token]) in UNCOUNTED.encode():
            sampler.weigh(token, 0)
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
