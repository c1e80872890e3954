"""Types for a size: never worse than any other choice by more than its last step."""

import itertools

import numpy as np
import pytest

from rwkv_py.choose_types import choose_types

TYPES = {"q4_0": 18, "q5_0": 22, "q5_1": 24, "q8_0": 34}


def problem(seed, n_tensors=4):
    random = np.random.default_rng(seed)
    sizes, effects = {}, {}
    for i in range(n_tensors):
        blocks = int(random.integers(1, 30))
        harm = float(np.exp(random.normal(0, 2)))
        sizes[f"{i}"] = {type: size * blocks for type, size in TYPES.items()}
        effects[f"{i}"] = {
            type: harm * 4.0 ** (-size / 4) * float(random.uniform(0.3, 1.5))
            for type, size in TYPES.items()
        }
    return sizes, effects


def total(table, chosen):
    return sum(table[name][type] for name, type in chosen.items())


@pytest.mark.parametrize("seed", range(20))
def test_the_best_in_a_size_reached(seed):
    """In the size that the choice takes, no choice harms less, where the step that did not fit
    was the last: with rooms that are the sizes of steps, the choice is the best of all."""
    sizes, effects = problem(seed)
    least = sum(min(types.values()) for types in sizes.values())
    most = sum(max(types.values()) for types in sizes.values())
    every = [
        dict(zip(sizes, types, strict=True))
        for types in itertools.product(TYPES, repeat=len(sizes))
    ]
    for room in np.linspace(least, most, 9).astype(int):
        chosen = choose_types(sizes, effects, int(room))
        assert total(sizes, chosen) <= room
        best = min(total(effects, c) for c in every if total(sizes, c) <= room)
        # Greedy leaves at most one step's worth of room: the best of what is smaller by that.
        step = max(max(types.values()) for types in sizes.values())
        bound = min(
            (total(effects, c) for c in every if total(sizes, c) <= room - step),
            default=np.inf,
        )
        assert best - 1e-12 <= total(effects, chosen) <= bound + 1e-12


def test_a_tensor_that_matters_gets_more():
    sizes = {name: {type: 100 * size for type, size in TYPES.items()} for name in "ab"}
    effects = {
        "a": {"q4_0": 100.0, "q5_0": 25.0, "q5_1": 12.0, "q8_0": 1.0},
        "b": {"q4_0": 1.0, "q5_0": 0.25, "q5_1": 0.12, "q8_0": 0.01},
    }
    assert choose_types(sizes, effects, 5200) == {"a": "q8_0", "b": "q4_0"}


def test_a_type_that_others_beat_is_not_taken():
    sizes = {"a": {"q4_0": 18, "q5_0": 22, "q5_1": 24}}
    effects = {"a": {"q4_0": 1.0, "q5_0": 2.0, "q5_1": 0.1}}
    assert choose_types(sizes, effects, 23) == {"a": "q4_0"}
    assert choose_types(sizes, effects, 24) == {"a": "q5_1"}


def test_a_step_over_a_type_that_gains_little():
    sizes = {"a": {"q4_0": 18, "q5_0": 22, "q5_1": 24}, "b": {"q4_0": 18, "q5_1": 24}}
    effects = {"a": {"q4_0": 1.0, "q5_0": 0.95, "q5_1": 0.1}, "b": {"q4_0": 1.0, "q5_1": 0.5}}
    assert choose_types(sizes, effects, 42) == {"a": "q5_1", "b": "q4_0"}


def test_no_room_at_all():
    sizes, effects = problem(1)
    assert set(choose_types(sizes, effects, 0).values()) == {"q4_0"}
