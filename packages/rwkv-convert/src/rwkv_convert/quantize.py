"""Quantises rows of fp32 numbers into blocks, piece by piece.

The work is done on a few thousand blocks at a time, transposed: row j holds value j of every block.
So a reduction over a block is one over rows, every operation runs over long contiguous rows, and
all buffers stay in the processor's cache.
"""

from __future__ import annotations

import numpy as np

from .element_types import BlockType, Bytes, ElementType, Floats
from .errors import OptionError

PIECE = 65536
"""Values at a time: a buffer of 256 KiB, and what the type's quantiser needs."""


LEAST_WEIGHT = 1e-6
"""Of a value whose column has no importance, beside the most important one of its block."""


class BlockQuantizer:
    """Quantises into one type; holds a buffer, so one per thread."""

    def __init__(self, type: ElementType) -> None:
        """Prepares for a type; it must be one of blocks."""
        if not isinstance(type, BlockType):
            raise OptionError("type", f"expected a quantised type, got {type}")
        self._type = type
        self._x = np.empty(PIECE, np.float32)
        self._importance: Floats | None = None
        self._weights = np.empty((0, 0), np.float32)

    def quantize(
        self, values: Floats, out: Bytes, importance: Floats | None = None, start: int = 0
    ) -> bool:
        """Quantises whole blocks.

        Args:
            values: (values per block * n,) contiguous.
            out: (n * bytes per block,) contiguous.
            importance: (columns,), what the squared error of a value counts by its column, at least
                0; None: all the same.
            start: where in rows of `columns` the first value stands, a multiple of the block.

        Returns:
            whether a scale or a minimum is too large for fp16 and became infinite.
        """
        size = self._type.block
        blocks = values.reshape(-1, size)
        packed = out.reshape(-1, self._type.size)
        at_once = PIECE // size
        overflow = False
        first = start // size
        with np.errstate(all="ignore"):
            for at in range(0, len(blocks), at_once):
                some, place = blocks[at : at + at_once], packed[at : at + at_once]
                # Never one alone: numpy would add its values up in another order.
                count = max(2, len(some))
                x = self._x[: size * count].reshape(size, count)
                np.copyto(x, some.T)
                weights = None
                if importance is not None:
                    weights = self._weights_of(importance, first + at, count)
                if len(some) == count:
                    overflow |= self._type.quantize(x, place, weights)
                else:
                    twice = np.empty((count, self._type.size), np.uint8)
                    overflow |= self._type.quantize(x, twice, weights)
                    place[:] = twice[:1]
        return overflow

    def _weights_of(self, importance: Floats, first: int, count: int) -> Floats:
        """The weights of blocks, (values per block, count), the first of which has that number."""
        if importance is not self._importance:
            self._importance = importance
            weights = importance.reshape(-1, self._type.block).T
            largest = weights.max(axis=0)
            # Blocks are on their own, so each has the range of its own. No value is without any
            # weight: where nothing else counts, it is quantised as well as it can be.
            weights = np.where(largest > 0, weights / largest, 1)
            self._weights = np.maximum(weights, LEAST_WEIGHT).astype(np.float32)
        return self._weights[:, np.arange(first, first + count) % self._weights.shape[1]]


def quantize(values: Floats, type: ElementType, importance: Floats | None = None) -> Bytes:
    """Quantises a matrix.

    Args:
        values: (rows, columns) or (columns,), columns a multiple of the block.
        type: one of the quantised types.
        importance: (columns,), what the squared error of a value counts by its column.

    Returns:
        (rows, bytes per row) or (bytes per row,).

    Raises:
        OptionError: the type is not quantised, or a row is no whole number of blocks.
    """
    quantizer = BlockQuantizer(type)
    columns = values.shape[-1]
    if columns % type.block:
        raise OptionError(
            "values", f"row length, expected a multiple of {type.block}, got {columns}"
        )
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    out = np.empty(type.bytes_of(flat.size), np.uint8)
    quantizer.quantize(flat, out, importance)
    return out.reshape(*values.shape[:-1], type.bytes_of(columns))
