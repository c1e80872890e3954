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


class BlockQuantizer:
    """Quantises into one type; holds a buffer, so one per thread."""

    def __init__(self, type: ElementType) -> None:
        """Prepares for a type; it must be one of blocks."""
        if not isinstance(type, BlockType):
            raise OptionError("type", f"expected a quantised type, got {type}")
        self._type = type
        self._x = np.empty(PIECE, np.float32)

    def quantize(self, values: Floats, out: Bytes) -> bool:
        """Quantises whole blocks.

        Args:
            values: (values per block * n,) contiguous.
            out: (n * bytes per block,) contiguous.

        Returns:
            whether a scale or a minimum is too large for fp16 and became infinite.
        """
        size = self._type.block
        blocks = values.reshape(-1, size)
        packed = out.reshape(-1, self._type.size)
        at_once = PIECE // size
        overflow = False
        with np.errstate(all="ignore"):
            for start in range(0, len(blocks), at_once):
                some = blocks[start : start + at_once]
                x = self._x[: some.size].reshape(size, len(some))
                np.copyto(x, some.T)
                overflow |= self._type.quantize(x, packed[start : start + at_once])
        return overflow


def quantize(values: Floats, type: ElementType) -> Bytes:
    """Quantises a matrix.

    Args:
        values: (rows, columns) or (columns,), columns a multiple of the block.
        type: one of the quantised types.

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
    quantizer.quantize(flat, out)
    return out.reshape(*values.shape[:-1], type.bytes_of(columns))
