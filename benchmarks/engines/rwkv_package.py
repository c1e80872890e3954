"""The PyPI package `rwkv` with torch, on the CPU.

python -m benchmarks.engines.rwkv_package CHECKPOINT.safetensors OUT.pth     makes its input
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..safetensors_file import read_safetensors

# The package reads these when it is imported.
os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="0", RWKV_CUDA_ON="0")


class Engine:
    """One model and one state; the package computes one sequence at a time.

    Args:
        precision: of weights and arithmetic, in the package's words: fp32 or bf16.
    """

    def __init__(self, path: str, threads: int, precision: str = "fp32") -> None:
        import torch

        torch.set_num_threads(threads)
        from rwkv.model import RWKV

        self._torch = torch
        self._threads = threads
        self._precision = precision
        self._model = RWKV(path.removesuffix(".pth"), f"cpu {precision}")
        self.n_vocab: int = self._model.z["head.weight"].shape[-1]
        self._state: Any = None

    def describe(self) -> dict[str, Any]:
        """What runs."""
        return {
            "engine": "rwkv (PyPI)",
            "version": version("rwkv"),
            "torch": self._torch.__version__,
            "precision": self._precision,
            "threads": self._threads,
        }

    def close(self) -> None:
        """Nothing to give back before the process ends."""

    def reset(self, n_sequences: int = 1) -> None:
        """A fresh state."""
        if n_sequences != 1:
            raise RuntimeError("the rwkv package computes one sequence at a time")
        self._state = None

    def feed(self, tokens: NDArray[np.int32]) -> None:
        """The sequence reads tokens; the logits after the last are computed."""
        self._forward(tokens.tolist())

    def step(self, tokens: NDArray[np.int32]) -> None:
        """One token."""
        self._forward(tokens.tolist())

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each token from a fresh state, fed one by one: (n, n_vocab)."""
        self.reset()
        return np.stack([self._forward([token]) for token in tokens])

    def _forward(self, tokens: list[int]) -> NDArray[np.float32]:
        with self._torch.no_grad():
            logits, self._state = self._model.forward(tokens, self._state)
        return np.asarray(logits.float().numpy(), np.float32)


def write_pth(source: str, target: str) -> None:
    """A checkpoint as torch saves it."""
    import torch

    tensors = read_safetensors(Path(source))
    temporary = target + ".part"
    torch.save({name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}, temporary)
    os.replace(temporary, target)


if __name__ == "__main__":
    write_pth(*sys.argv[1:])
