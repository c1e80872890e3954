"""The Python side of the sampler; what it computes is tested in native/tests and tests/oracle."""

from __future__ import annotations

import inspect
from typing import Any, cast

import numpy as np
import pytest

from rwkv_py import InvalidArgumentError, Sampler, SamplingOptions, TokenOutOfRangeError, _core

LOGITS = np.random.default_rng(1).normal(0, 2, 500).astype(np.float32)


def test_sampling_options_are_the_samplers_arguments() -> None:
    arguments = list(inspect.signature(Sampler).parameters)
    assert arguments[0] == "n_vocab"
    assert set(arguments[1:]) == set(SamplingOptions.__annotations__)


def test_defaults_are_the_librarys() -> None:
    native = _core.SamplerOptions()
    for name, parameter in inspect.signature(Sampler).parameters.items():
        if name not in ("n_vocab", "logit_bias", "banned_tokens", "seed"):
            assert getattr(native, name) == parameter.default, name


def draws(sampler: Sampler, n: int = 30) -> list[int]:
    return [sampler.sample(LOGITS) for _ in range(n)]


def test_seed() -> None:
    assert draws(Sampler(500, seed=7)) == draws(Sampler(500, seed=7))
    assert draws(Sampler(500, seed=7)) != draws(Sampler(500, seed=8))
    assert draws(Sampler(500, seed=2**64 - 1))


def test_seed_chosen_can_be_asked_for() -> None:
    sampler, other = Sampler(500), Sampler(500)
    assert sampler.seed != other.seed
    assert draws(sampler) == draws(Sampler(500, seed=sampler.seed))


def test_reset() -> None:
    sampler = Sampler(500, seed=7, presence_penalty=2)
    first = draws(sampler)
    sampler.accept(first[0])
    sampler.reset()
    assert draws(sampler) == first
    sampler.reset(8)
    assert sampler.seed == 8
    assert draws(sampler) == draws(Sampler(500, seed=8))


def test_bans_and_biases() -> None:
    order = np.argsort(-LOGITS)
    assert Sampler(500, temperature=0).sample(LOGITS) == order[0]
    assert Sampler(500, temperature=0, banned_tokens=order[:3]).sample(LOGITS) == order[3]
    assert Sampler(500, temperature=0, logit_bias={5: 100.0}).sample(LOGITS) == 5
    with pytest.raises(InvalidArgumentError, match=r"-infinity for all\. Try banning fewer"):
        Sampler(500, banned_tokens=range(500)).sample(LOGITS)


def test_logits_are_not_changed() -> None:
    logits = LOGITS.copy()
    sampler = Sampler(500, presence_penalty=1, banned_tokens=[1])
    sampler.accept(3)
    sampler.sample(logits)
    assert np.array_equal(logits, LOGITS)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 2**40),
        ("min_p", -1),
        ("typical_p", 2),
        ("mirostat_tau", -1),
        ("mirostat_eta", -1),
        ("repetition_penalty", 0),
        ("presence_penalty", float("inf")),
        ("frequency_penalty", float("nan")),
        ("penalty_decay", 1.5),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_option_out_of_range_is_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{option}: expected .*, got "):
        Sampler(10, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", "1"),
        ("temperature", np.ones(2)),
        pytest.param("temperature", 10**400, id="temperature-large"),
        ("min_p", None),
        ("seed", 1.5),
        ("top_k", "40"),
        ("logit_bias", [1, 2]),
        ("logit_bias", 0),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {1: "a"}),
        ("logit_bias", {1: 10**400}),
        ("banned_tokens", 5),
        ("banned_tokens", None),
        ("banned_tokens", ["a"]),
        ("banned_tokens", [1.0]),
        ("banned_tokens", "12"),
    ],
)
def test_option_of_the_wrong_type_is_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^{option}: expected .*, got "):
        Sampler(10, **{option: value})


def test_what_is_no_token() -> None:
    sampler = Sampler(10)
    wrong: Any = "a"
    for call, name in (
        (lambda: sampler.accept(wrong), "token"),
        (lambda: sampler.weigh(wrong, 0), "token"),
        (lambda: sampler.weigh(1, wrong), "weight"),
        (lambda: sampler.ban([wrong]), "tokens"),
        (lambda: sampler.ban(cast(Any, 5)), "tokens"),
    ):
        with pytest.raises(InvalidArgumentError, match=rf"^{name}: expected .* number.*, got "):
            call()


@pytest.mark.parametrize("token", [-1, 10, 2**31, 2**70])
def test_token_out_of_range(token: int) -> None:
    sampler = Sampler(10)
    for call in (
        lambda: sampler.accept(token),
        lambda: sampler.ban([token]),
        lambda: sampler.weigh(token, 0),
        lambda: Sampler(10, logit_bias={token: 1}),
    ):
        with pytest.raises(TokenOutOfRangeError, match=rf"token.* {token}\b"):
            call()


@pytest.mark.parametrize("bad", [[1.0], np.zeros((1, 10)), np.zeros(11)])
def test_logits_of_another_shape(bad: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"logits: expected shape \(10,\), got "):
        Sampler(10).sample(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(InvalidArgumentError, match="logits: expected"):
        Sampler(3).sample([0, bad, 0])


def test_a_mask_allows_for_this_once() -> None:
    logits = np.arange(70, dtype=np.float32)
    sampler = Sampler(70, temperature=0)
    mask = np.zeros(3, np.uint32)
    for token in (0, 31, 32, 66):
        mask[token // 32] |= np.uint32(1 << token % 32)
        assert sampler.sample(logits, mask=mask) == token
    assert sampler.sample(logits) == 69
    with pytest.raises(InvalidArgumentError):
        sampler.sample(logits, mask=np.zeros(3, np.uint32))
    for wrong in (mask[:2], mask.astype(np.int64), [1, 2, 3]):
        with pytest.raises(InvalidArgumentError, match=r"^mask: expected a uint32 array"):
            sampler.sample(logits, mask=wrong)  # type: ignore[arg-type]
