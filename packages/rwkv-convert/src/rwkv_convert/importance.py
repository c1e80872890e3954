"""Importance matrices of llama.cpp: for each input of a matrix, how large it is on some text.

GGUF, `general.type` "imatrix":

    NAME.in_sum2   fp32, as many as the matrix NAME has columns: the sum of each input's square
    NAME.counts    fp32, one: over how many tokens

The older form, without a magic:

    int32          number of entries, each:
    int32, text    NAME after its length
    int32 x 2      number of chunks, number of values
    fp32 ...       the mean of each input's square, times the number of chunks

Whatever follows there says what the text was.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from .blocks_32 import Q8_0
from .element_types import FP32, Floats
from .encoder import is_copied
from .errors import CheckpointError, quote
from .file_plan import PlacedTensor
from .gguf_table import gguf_name
from .input_file import InputFile
from .read_gguf import GGUF_MAGIC, read_part

MAX_BYTES = 64 << 20
"""Of a file. That of the largest models has 6 MB."""
MAX_ENTRIES = 10_000
MAX_NAME = 256


def read_importance(file: InputFile) -> dict[str, Floats]:
    """Reads an importance matrix, of either form.

    Returns:
        for each matrix, by llama.cpp's name for it, the mean square of each input: (columns,), at
        least 0.

    Raises:
        CheckpointError: the file cannot be read, or is none.
    """
    if file.size > MAX_BYTES:
        raise CheckpointError(
            f"{file.path}: importance, expected at most {MAX_BYTES} bytes, got {file.size}"
        )
    is_gguf = file.size >= 4 and file.read(0, 4) == GGUF_MAGIC
    found = dict(_read_gguf(file) if is_gguf else _read_legacy(file))
    for name, means in found.items():
        if not (np.isfinite(means) & (means >= 0)).all():
            raise CheckpointError(
                f"{file.path}: importance of {quote(name)}, expected finite numbers from 0 on, got "
                "others"
            )
    if not found:
        raise CheckpointError(f"{file.path}: importance, expected that of some matrices, got none")
    return found


def with_importance(
    tensors: Iterable[PlacedTensor], importance: dict[str, Floats], path: Path, version: str
) -> tuple[list[PlacedTensor], list[str]]:
    """Gives each tensor that is to be quantised the importance of its columns.

    Args:
        tensors: of a planned file.
        importance: by llama.cpp's names.
        path: where it comes from, for messages.
        version: the model's.

    Returns:
        the tensors, and the names of those for which there is none.

    Raises:
        CheckpointError: it is that of another model.
    """
    placed, without = [], []
    for each in tensors:
        columns = each.tensor.shape[-1]
        if _searches(each):
            name = gguf_name(each.tensor.name, version)
            means = importance.get(name)
            if means is None:
                without.append(each.tensor.name)
            elif means.size != columns:
                raise CheckpointError(
                    f"{path}: importance of {quote(name)}, expected {columns} numbers, got "
                    f"{means.size}",
                    remedy="Try the importance matrix that was made with this model",
                )
            else:
                each = replace(each, importance=means)
        placed.append(each)
    return placed, without


def _searches(placed: PlacedTensor) -> bool:
    """Whether blocks are made for which importance matters."""
    copied = all(is_copied(part, placed) for part in placed.tensor.parts)
    return placed.type.is_quantized and placed.type is not Q8_0 and not copied


def _read_gguf(file: InputFile) -> Iterator[tuple[str, Floats]]:
    part = read_part(file)
    values, tensors = part.values, part.tensors
    kind = values["general.type"].scalar() if "general.type" in values else None
    if kind != "imatrix":
        raise CheckpointError(
            f"{file.path}: 'general.type', expected 'imatrix', got "
            f"{'none' if kind is None else quote(kind)}"
        )
    numbers: dict[str, Floats] = {}
    for name, view in tensors.items():
        if view.type is not FP32:
            raise CheckpointError(
                f"{file.path}: type of tensor {quote(name)}, expected fp32, got {view.type}"
            )
        raw = file.read(view.offset, FP32.bytes_of(view.count))
        numbers[name] = np.frombuffer(raw, "<f4").astype(np.float32)
    for full, sums in numbers.items():
        name = full.removesuffix(".in_sum2")
        if name == full:
            continue
        counts = numbers.get(f"{name}.counts")
        if counts is None or counts.size != 1:
            got = "none" if counts is None else str(counts.size)
            raise CheckpointError(
                f"{file.path}: tensor {quote(name + '.counts')}, expected 1 number, got {got}"
            )
        # A matrix that no token came to has no importance; llama.cpp takes 1 for all.
        yield name, sums / counts[0] if counts[0] > 0 else np.ones_like(sums)


def _read_legacy(file: InputFile) -> Iterator[tuple[str, Floats]]:
    at = 0

    def take(count: int, what: str) -> bytes:
        nonlocal at
        data = file.read(at, count, what)
        at += count
        return data

    def number(what: str, most: int) -> int:
        (found,) = struct.unpack("<i", take(4, what))
        if not 1 <= found <= most:
            raise CheckpointError(
                f"{file.path}: not an importance matrix: {what}, expected 1 to {most}, got {found}"
            )
        return int(found)

    for _ in range(number("the number of entries", MAX_ENTRIES)):
        length = number("the length of a name", MAX_NAME)
        name = take(length, "a name").decode("utf-8", "replace")
        chunks = number("the number of chunks", 2**31 - 1)
        count = number("the number of values", MAX_BYTES // 4)
        sums = np.frombuffer(take(4 * count, "values"), "<f4")
        yield name, (sums / np.float32(chunks)).astype(np.float32)
