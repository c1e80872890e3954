"""Initial states, as state tuning saves them: a tensor `blocks.N.att.time_state` for each layer.

Its shape is (heads, head size, head size), and its row is the value's index in every version, which
is what a model file holds too; docs/formats.md says how that is known.
"""

from __future__ import annotations

import re

from .checkpoint import Checkpoint, TensorView
from .errors import ModelError, listing, quote

_NAME = re.compile(r"blocks\.(0|[1-9]\d{0,8})\.att\.time_state")


def time_state_name(layer: int) -> str:
    """The name of a layer's tensor."""
    return f"blocks.{layer}.att.time_state"


def is_time_state(name: str) -> bool:
    """Whether a tensor of this name is part of an initial state."""
    return _NAME.fullmatch(name) is not None


def find_time_state(checkpoint: Checkpoint) -> dict[str, TensorView]:
    """The tensors of an initial state, in the order of the layers.

    Raises:
        ModelError: there is none, or one that lacks layers.
    """
    layers = sorted(int(m[1]) for name in checkpoint.tensors if (m := _NAME.fullmatch(name)))
    if not layers:
        raise ModelError(
            f"{checkpoint.path}: no initial state, expected tensors 'blocks.N.att.time_state', "
            f"got {listing(list(checkpoint.tensors))}"
        )
    if layers != list(range(len(layers))):
        lacking = next(i for i, layer in enumerate(layers) if i != layer)
        raise ModelError(
            f"{checkpoint.path}: an initial state, expected {quote(time_state_name(lacking))} "
            f"below {quote(time_state_name(layers[-1]))}, got none"
        )
    return {time_state_name(i): checkpoint.tensors[time_state_name(i)] for i in layers}
