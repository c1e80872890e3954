"""The reference's logits for random checkpoints, made and explained by oracle/make_golden.py."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .synth import Checkpoint, checkpoint

FOLDER = Path(__file__).resolve().parent.parent / "golden"
GOLDEN = tuple(sorted(path.stem for path in FOLDER.glob("rwkv-*.npz")))
"""The names that `load_golden` takes, such as "rwkv-7-2x64" (version, heads x head size)."""


@dataclass(frozen=True)
class Golden:
    version: str
    n_layer: int
    n_embd: int
    head_size: int
    n_vocab: int
    seed: int
    tokens: list[int]
    logits: NDArray[np.float32]  # (T, n_vocab), row t after tokens[0..t]
    state: NDArray[np.float32] | None  # flat, after the last token

    def checkpoint(self) -> Checkpoint:
        """The checkpoint that gives these logits."""
        return checkpoint(
            self.version,
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            head_size=self.head_size,
            n_vocab=self.n_vocab,
            seed=self.seed,
        )


def load_golden(name: str) -> Golden:
    with np.load(FOLDER / f"{name}.npz") as file:
        return Golden(
            version=str(file["version"]),
            n_layer=int(file["n_layer"]),
            n_embd=int(file["n_embd"]),
            head_size=int(file["head_size"]),
            n_vocab=int(file["n_vocab"]),
            seed=int(file["seed"]),
            tokens=file["tokens"].tolist(),
            logits=file["logits"],
            state=file.get("state"),
        )
