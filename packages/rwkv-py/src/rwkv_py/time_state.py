"""Initial states made by state tuning: what a session holds before its first token."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import StrPath, as_floats
from .errors import InvalidArgumentError, StateFileError, StateMismatchError
from .model import Model

__all__ = ["TimeState", "read_time_state"]

# A file, its tensors by name, or all layers in one array: (n_layer, n_head, head_size, head_size).
TimeState: TypeAlias = (
    StrPath | Mapping[str, ArrayLike] | Sequence[NDArray[np.floating]] | NDArray[np.floating]
)


def read_time_state(path: StrPath) -> NDArray[np.float32]:
    """Read an initial state made by state tuning, to give it to many sessions.

    This needs the package rwkv-convert: `pip install rwkv-py[states]`. No pickle is executed.

    Args:
        path: a `.pth` or `.safetensors` with a tensor `blocks.N.att.time_state` for each layer.

    Returns:
        float32 (n_layer, n_head, head_size, head_size), row = value's index, column = key's index.

    Raises:
        StateFileError: the file cannot be read, or holds no whole initial state; or rwkv-convert is
            not installed.
    """
    try:
        import rwkv_convert
    except ImportError:
        raise StateFileError(
            f"{os.fspath(path)}: reading an initial state needs rwkv-convert, which is not "
            "installed",
            remedy="Try `pip install rwkv-py[states]`, or put the state into the model file: "
            "rwkv-convert MODEL.pth OUT.bin --time-state FILE",
        ) from None
    try:
        return rwkv_convert.read_time_state(path)
    except rwkv_convert.ConvertError as error:
        raise StateFileError(str(error)) from None


def heads_of(model: Model, time_state: TimeState) -> NDArray[np.float32]:
    """Return the initial state of sessions of `model`: float32 (n_layer, n_head, N, N).

    Raises:
        StateFileError: it is a file that cannot be read.
        StateMismatchError: it is not one for this model.
        InvalidArgumentError: it holds a number that is not finite.
    """
    info = model.info
    where = "time_state"
    if isinstance(time_state, str | os.PathLike):
        where = os.fspath(time_state)
        time_state = read_time_state(time_state)
    if isinstance(time_state, Mapping):
        time_state = _in_order(time_state)
    heads = as_floats(where, time_state)
    if info.version == "4":
        raise StateMismatchError(
            f"{where}: expected a model of version 5 or later, got {model.path} of version 4, "
            "which has no heads"
        )
    shape = (info.n_layer, info.n_head, info.head_size, info.head_size)
    if heads.shape != shape:
        raise StateMismatchError(
            f"{where}: expected shape {shape} for {model.path}, got {heads.shape}",
            remedy="Try the initial state that was tuned with this model",
        )
    if not np.isfinite(heads).all():
        raise InvalidArgumentError(f"{where}: expected finite numbers, got others")
    return np.ascontiguousarray(heads)


def _in_order(tensors: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
    """Stack tensors by the layers in their names; others are not needed."""
    found: list[NDArray[np.float32]] = []
    while (name := f"blocks.{len(found)}.att.time_state") in tensors:
        found.append(as_floats(f"time_state: {name}", tensors[name]))
    if not found:
        names = ", ".join(map(str, tensors))
        raise StateMismatchError(f"time_state: expected {name!r}, got {names[:60]!r}")
    if len({layer.shape for layer in found}) > 1:
        raise StateMismatchError("time_state: expected layers of one shape, got several")
    return np.stack(found)
