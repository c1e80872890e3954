"""Importance matrices in llama.cpp's form, GGUF, for its quantiser and for ours."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence

import numpy as np

from .element_types import FP32, Floats
from .errors import ModelError, OptionError, quote
from .gguf_table import GGUF_TABLES, gguf_name
from .gguf_values import packed, string, strings, uint32
from .output_file import check_destination, temporary_output
from .read_gguf import ALIGNMENT, GGUF_MAGIC, GGUF_VERSION


def write_importance(
    path: str | os.PathLike[str],
    sums: Mapping[str, Floats],
    *,
    version: str,
    n_tokens: int,
    texts: Sequence[str] = (),
    force: bool = False,
) -> None:
    """Writes an importance matrix.

    Args:
        path: the file, which appears when it is complete.
        sums: by matrix, under the names of a ggmf file, the sum of each input's square: (columns,),
            finite, at least 0.
        version: the model's, "6" or "7", for which llama.cpp has names.
        n_tokens: over how many tokens, at least 1.
        texts: names of the texts.
        force: replace `path` if it exists.

    Raises:
        ModelError: llama.cpp has no names for such a model.
        OptionError: sums are not as they should be, or there are no tokens.
        OutputError: the file cannot be written, or is there.
    """
    if version not in GGUF_TABLES:
        raise ModelError(
            f"version: expected {' or '.join(GGUF_TABLES)} for an importance matrix, got {version}"
        )
    if n_tokens < 1:
        raise OptionError("n_tokens", f"expected at least 1, got {n_tokens}")
    tensors: dict[str, Floats] = {}
    for name, sum_ in sums.items():
        if sum_.ndim != 1 or not (np.isfinite(sum_) & (sum_ >= 0)).all():
            raise OptionError(
                "sums", f"{quote(name)}, expected finite numbers from 0 on, (columns,), got others"
            )
        theirs = gguf_name(name, version)
        tensors[f"{theirs}.in_sum2"] = sum_
        tensors[f"{theirs}.counts"] = np.full(1, n_tokens, np.float32)
    values = {
        "general.type": string("imatrix"),
        "imatrix.datasets": strings([text.encode() for text in texts]),
        "imatrix.chunk_count": uint32(1),
        "imatrix.chunk_size": uint32(n_tokens),
    }
    head = [GGUF_MAGIC + struct.pack("<IQQ", GGUF_VERSION, len(tensors), len(values))]
    for key, value in values.items():
        head += [packed(key.encode()), struct.pack("<I", value.kind), value.raw]
    data = b""
    for name, numbers in tensors.items():
        head.append(packed(name.encode()))
        head.append(struct.pack("<IQQIQ", 2, numbers.size, 1, FP32.gguf, len(data)))
        data += _padded(np.ascontiguousarray(numbers, "<f4").tobytes())
    destination = check_destination(path, force=force)
    with temporary_output(destination, force=force) as output, output.open() as write_at:
        write_at(0, _padded(b"".join(head)) + data)


def _padded(some: bytes) -> bytes:
    return some + bytes(-len(some) % ALIGNMENT)
