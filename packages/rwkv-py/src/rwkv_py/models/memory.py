"""How much memory and disk there is, and how much a model needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import _system
from .known import KnownModel

_BESIDE_WEIGHTS = 100_000_000
"""Bytes of a process beside the weights: Python, numpy, the state, buffers."""
_USABLE = 0.9
"""The share of the memory that a model may take; the system needs some too."""

_RELEASED = ((12, 768), (24, 1024), (24, 2048), (32, 2560), (32, 4096), (61, 4096))
"""Layers and width of released models, to reckon with where they are not told."""


def memory_here() -> int:
    """Return how many bytes of memory this process may use at most: the machine's, or a limit."""
    memory = _system.memory()
    for limit in ("memory/memory.limit_in_bytes", "memory.max"):  # control groups, of both versions
        try:
            text = Path("/sys/fs/cgroup", limit).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            memory = min(memory, int(text))
    return memory


def disk_left(folder: Path) -> int:
    """Return how many bytes may still be written to the disk that a folder is or will be on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def weights(dtype: str, version: str, n_layer: int, n_embd: int, n_vocab: int = 65536) -> int:
    """Return about how many bytes the weights of a model of that shape take."""
    from rwkv_convert import model_file_bytes

    return model_file_bytes(version, n_layer=n_layer, n_embd=n_embd, n_vocab=n_vocab, dtype=dtype)


def weights_of(known: KnownModel | None, checkpoint_bytes: int, dtype: str) -> int:
    """Return about how many bytes the weights of a model on a hub will take.

    Args:
        known: the model, if it is known.
        checkpoint_bytes: size of its checkpoint, which is taken to be in 16 bits.
        dtype: type to convert to.
    """
    if known is not None and known.version and known.layers and known.width:
        return weights(dtype, known.version, known.layers, known.width)
    near = min(_RELEASED, key=lambda s: abs(weights("fp16", "7", *s) - checkpoint_bytes))
    return checkpoint_bytes * weights(dtype, "7", *near) // weights("fp16", "7", *near)


def needed(weight_bytes: int) -> int:
    """Return how many bytes of memory a model needs whose weights take so many."""
    return weight_bytes + _BESIDE_WEIGHTS


def fits(memory_bytes: int) -> bool:
    """Whether a model that needs so much memory can run here."""
    return memory_bytes <= _USABLE * memory_here()
