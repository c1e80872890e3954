"""Arrays of numpy or tensors of torch, which is imported only where somebody wants it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidArgumentError

__all__ = ["ArrayOrTensor", "as_tensor", "floats_in", "is_tensor", "values_of"]

ArrayOrTensor: TypeAlias = Any
"""A numpy array or a torch tensor; torch has types only where it is installed."""


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor of torch, or of a class derived from it."""
    return any(each.__module__.partition(".")[0] == "torch" for each in type(value).__mro__)


def as_tensor(array: NDArray[Any]) -> ArrayOrTensor:
    """Return a tensor over the memory of an array.

    Raises:
        ImportError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "tensors: expected the package torch to be installed, found none. Try numpy arrays: "
            'use_numpy=True in RWKVModel, tensors="numpy" in RWKV'
        ) from error
    return torch.from_numpy(array)


def values_of(value: ArrayOrTensor) -> NDArray[np.float32]:
    """Return the numbers of an array or tensor of any type, on any device, as float32."""
    if is_tensor(value):
        value = value.detach().float().cpu().numpy()
    numbers: NDArray[np.float32] = np.asarray(value, np.float32)
    return numbers


def floats_in(name: str, value: ArrayOrTensor, size: int) -> NDArray[np.float32]:
    """Return an array over the memory of a flat buffer of `size` float32 numbers.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if is_tensor(value):
        if value.device.type != "cpu":
            raise InvalidArgumentError(
                f"{name}: is not on CPU, expected a tensor that is, got one on {value.device}"
            )
        value = value.detach().numpy()
    if not isinstance(value, np.ndarray):
        raise InvalidArgumentError(
            f"{name}: expected a numpy array or a torch tensor, got {type(value).__name__}"
        )
    if value.dtype != np.float32:
        raise InvalidArgumentError(
            f"{name}: is not of type float32, expected that, got {value.dtype}"
        )
    if value.shape != (size,):
        raise InvalidArgumentError(
            f"{name}: has invalid shape, expected ({size},), got {value.shape}"
        )
    if not value.flags.c_contiguous:
        raise InvalidArgumentError(
            f"{name}: is not contiguous, expected one that is, got strides {value.strides}"
        )
    return value
