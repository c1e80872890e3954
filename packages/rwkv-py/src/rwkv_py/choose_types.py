"""The types of all tensors that harm a model least in a file of a given size."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

__all__ = ["choose_types"]


def choose_types(
    sizes: Mapping[str, Mapping[str, int]],
    effects: Mapping[str, Mapping[str, float]],
    room: int,
) -> dict[str, str]:
    """Choose a type for each tensor.

    Begins with the smallest type for each, and again and again takes the step that gains most for a
    byte, among the types of each tensor that no mix of two others beats: the best choice but for
    what the last steps leave free, which smaller ones then fill.

    Args:
        sizes: by tensor and type, bytes.
        effects: by tensor and type, the harm; of the same.
        room: bytes for all of them.

    Returns:
        a type for each tensor; where even the smallest do not fit, these.
    """
    steps = {name: _hull(sizes[name], effects[name]) for name in sizes}
    chosen = {name: types[0] for name, types in steps.items()}
    room -= sum(sizes[name][type] for name, type in chosen.items())

    def gain(name: str, i: int) -> float:
        return _slope(sizes[name], effects[name], steps[name][i], steps[name][i + 1])

    waiting = [(-gain(name, 0), name, 0) for name, types in steps.items() if len(types) > 1]
    heapq.heapify(waiting)
    while waiting:
        _, name, i = heapq.heappop(waiting)
        types = steps[name]
        more = sizes[name][types[i + 1]] - sizes[name][types[i]]
        if more > room:
            continue  # nor do its later steps fit, which are measured from this one
        room -= more
        chosen[name] = types[i + 1]
        if i + 2 < len(types):
            heapq.heappush(waiting, (-gain(name, i + 1), name, i + 1))
    return chosen


def _slope(sizes: Mapping[str, int], effects: Mapping[str, float], a: str, b: str) -> float:
    """What a byte gains from type a to type b."""
    return (effects[a] - effects[b]) / (sizes[b] - sizes[a])


def _hull(sizes: Mapping[str, int], effects: Mapping[str, float]) -> list[str]:
    """The types that no mix of two others beats, the smallest first."""
    by_size: list[str] = []
    for type in sorted(sizes, key=lambda type: (sizes[type], effects[type])):
        if by_size and effects[type] >= effects[by_size[-1]]:
            continue
        while len(by_size) > 1 and _slope(sizes, effects, by_size[-1], type) >= _slope(
            sizes, effects, by_size[-2], by_size[-1]
        ):
            by_size.pop()
        by_size.append(type)
    return by_size
