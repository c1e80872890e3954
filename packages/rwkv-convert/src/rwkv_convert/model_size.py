"""How large a model file will be: reckoned from the model's shape by the tables that write it."""

from __future__ import annotations

import math
import re

from .errors import OptionError, quote
from .tensor_table import TABLES, Layers, TypeChoice
from .weight_types import DTYPES, parse_dtype


def model_file_bytes(
    version: str, *, n_layer: int, n_embd: int, n_vocab: int = 65536, dtype: str = "q4_0"
) -> int:
    """Reckons how many bytes the weights of a model take in a file, and so in memory.

    Heads of 64 and the widths of the released models are assumed. A file has some bytes more for
    the names of its tensors, and a GGUF file its vocabulary.

    Args:
        version: RWKV version: "4", "5.1", "5.2", "6" or "7".
        n_layer: number of layers.
        n_embd: width.
        n_vocab: size of the vocabulary.
        dtype: type of the layers' matrices; those that only GGUF has are reckoned as there.

    Raises:
        OptionError: there is no such version or type.

    >>> import rwkv_convert
    >>> rwkv_convert.model_file_bytes("7", n_layer=24, n_embd=1024, dtype="q4_0")
    330997760
    """
    if version not in TABLES:
        raise OptionError("version", f"expected one of {', '.join(TABLES)}, got {quote(version)}")
    type = DTYPES[parse_dtype(dtype)]
    choice = TypeChoice(type, {}, gguf=type.ggmf is None)
    sizes = _sizes(version, n_embd, n_vocab)
    total = 0
    for row in TABLES[version]:
        times = n_layer if row.is_per_layer else 1
        if row.layers is Layers.FIRST:
            times = 1
        elif row.layers is Layers.NOT_FIRST:
            times = n_layer - 1
        elif row.layers is Layers.OPTIONAL:
            times = 0
        total += times * choice.type_of(row.role).bytes_of(_count(row.shape, sizes))
    return total


def _count(shape: str, sizes: dict[str, int]) -> int:
    """Numbers in a tensor; its shape is written as in the tables, such as "5M C"."""
    dimensions = [re.fullmatch(r"(\d*)([A-Z]?)", dimension) for dimension in shape.split()]
    return math.prod(int(d[1] or 1) * sizes.get(d[2], 1) for d in dimensions if d is not None)


def _sizes(version: str, n_embd: int, n_vocab: int) -> dict[str, int]:
    """What the letters of the tables stand for in released models of a width."""

    def rank(exponent: float, factor: float) -> int:
        return max(1, round(math.pow(n_embd, exponent) * factor / 32)) * 32

    wide = 2 if n_embd >= 4096 else 1
    return {
        "V": n_vocab,
        "C": n_embd,
        "F": 4 * n_embd if version in ("4", "7") else int(n_embd * 3.5) // 32 * 32,
        "H": n_embd // 64,
        "N": 64,
        "M": 32 * wide,
        "D": 64 * wide,
        "W": rank(0.5, 1.8),
        "A": rank(0.5, 1.8),
        "B": rank(0.5, 1.3),
        "G": rank(0.8, 0.6),
    }
