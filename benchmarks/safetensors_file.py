"""fp16 checkpoints as .safetensors, with numpy alone: peers' environments have no more."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], pieces: Iterable[NDArray[np.float16]]
) -> None:
    """Writes tensors of these shapes, whose values come in order and in pieces of any size.

    The file appears under its name when it is complete.
    """
    header: dict[str, object] = {}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for piece in pieces:
                file.write(piece.tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_safetensors(path: Path) -> dict[str, NDArray[np.float16]]:
    """The tensors of a file that `write_safetensors` made, mapped."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    return {
        name: data[slice(*entry["data_offsets"])].view(np.float16).reshape(entry["shape"])
        for name, entry in header.items()
    }
