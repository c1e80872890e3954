"""What `measure` makes of the durations of steps."""

from __future__ import annotations

import time
from typing import Any

import pytest

import rwkv_py
from rwkv_py import InvalidArgumentError, Model


def test_figures_are_tokens_by_median_durations(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock by which a step takes 2 s and 1 s a token more, every fifth 100 s more."""
    now, steps = 0.0, []

    def step(model: Model, work: Any, **options: Any) -> list[None]:
        nonlocal now
        n_tokens = sum(len(tokens) for _, tokens in work)
        steps.append((len(work), n_tokens))
        now += 2 + n_tokens + (100 if len(steps) % 5 == 0 else 0)
        return [None] * len(work)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(Model, "step", step)
    speed = rwkv_py.speed.measure(trained, seconds=50, n_batch=4)
    assert set(steps) == {(1, 1), (1, 256), (4, 4)}
    assert speed.decode == pytest.approx(1 / 3)
    assert speed.prefill == pytest.approx(256 / 258)
    assert speed.batch == pytest.approx(4 / 6)
    assert (speed.n_prefill, speed.n_batch) == (256, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0}, "seconds: expected a number above 0, got 0"),
        ({"seconds": float("inf")}, "seconds: expected a number above 0, got inf"),
        ({"seconds": "1"}, "seconds: expected a number, got '1'"),
        ({"n_batch": 0}, "n_batch: expected 1 or more, got 0"),
        ({"n_batch": 1.5}, r"n_batch: expected a whole number, got 1\.5"),
    ],
)
def test_arguments(trained: Model, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        rwkv_py.speed.measure(trained, **arguments)
