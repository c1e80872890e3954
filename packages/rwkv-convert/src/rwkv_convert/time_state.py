"""Initial states, as state tuning saves them: a tensor `blocks.N.att.time_state` for each layer.

Its shape is (heads, head size, head size), and its row is the value's index in every version, which
is what a model file holds too; docs/formats.md says how that is known.
"""

from __future__ import annotations

import math
import os
import re

import numpy as np
from numpy.typing import NDArray

from .checkpoint import Checkpoint, PieceReader, TensorView, open_checkpoint
from .element_types import FP32, SOURCE_TYPES, to_fp32
from .errors import ModelError, listing, quote

MAX_BYTES = 1 << 30
"""Tensors may share their numbers, so that a small file asks for much memory. The largest official
models have 64 MB of this."""

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
            f"{checkpoint.path}: not a whole initial state: missing "
            f"{quote(time_state_name(lacking))}; found {time_state_name(layers[-1])!r}"
        )
    return {time_state_name(i): checkpoint.tensors[time_state_name(i)] for i in layers}


def read_time_state(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Reads an initial state made by state tuning, without torch and without executing a pickle.

    Args:
        path: a `.pth`, `.safetensors` or ggmf file with a tensor `blocks.N.att.time_state` for each
            layer; what else it holds is not read.

    Returns:
        float32 (layers, heads, head size, head size), row = value's index, column = key's index.

    Raises:
        CheckpointError: it cannot be read.
        ModelError: it holds no initial state, or one that lacks layers or is of mixed shapes.
    """
    checkpoint = open_checkpoint(path)
    found = find_time_state(checkpoint)
    shape = next(iter(found.values())).shape
    for name, view in found.items():
        where = f"{checkpoint.path}: tensor {quote(name)}"
        if len(shape) != 3 or shape[1] != shape[2] or view.shape != shape:
            expected = shape if len(shape) == 3 and shape[1] == shape[2] else "(heads, size, size)"
            raise ModelError(f"{where} has shape {view.shape}, expected {expected}")
        if view.type not in SOURCE_TYPES:
            raise ModelError(f"{where} is {view.type}, expected bf16, fp16 or fp32")
    n_bytes = len(found) * math.prod(shape) * FP32.size
    if n_bytes > MAX_BYTES:
        raise ModelError(
            f"{checkpoint.path}: an initial state of {len(found)} layers of {shape}, expected at "
            f"most {MAX_BYTES} bytes, got {n_bytes}"
        )
    state = np.empty((len(found), *shape), np.float32)
    with PieceReader(checkpoint.path) as reader:
        for layer, view in zip(state, found.values(), strict=True):
            raw = reader.read(view, np.empty(view.count * view.type.size, np.uint8))
            to_fp32(raw, view.type, layer.reshape(-1))
    return state
