"""Reading an initial state into memory, for those who begin with it without a model file."""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

from .containers import open_checkpoint
from .element_types import FP32, SOURCE_TYPES, to_fp32
from .errors import ModelError, quote
from .piece_reader import PieceReader
from .time_state import find_time_state

MAX_BYTES = 1 << 30
"""Tensors may share their numbers, so that a small file asks for much memory. The largest official
models have 64 MB of this."""


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
            raise ModelError(f"{where}: shape, expected {expected}, got {view.shape}")
        if view.type not in SOURCE_TYPES:
            raise ModelError(f"{where}: type, expected bf16, fp16, fp32 or fp64, got {view.type}")
    n_bytes = len(found) * math.prod(shape) * FP32.size
    if n_bytes > MAX_BYTES:
        raise ModelError(
            f"{checkpoint.path}: an initial state of {len(found)} layers of {shape}, expected at "
            f"most {MAX_BYTES} bytes, got {n_bytes}"
        )
    state = np.empty((len(found), *shape), np.float32)
    with PieceReader(checkpoint.path, checkpoint.stamp) as reader:
        for layer, view in zip(state, found.values(), strict=True):
            raw = reader.read(view, np.empty(view.count * view.type.size, np.uint8))
            to_fp32(raw, view.type, layer.reshape(-1))
        reader.check_unchanged()
    return state
