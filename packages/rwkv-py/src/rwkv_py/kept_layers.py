"""What is kept of a calibration on the disk, for whoever goes on after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layer_rows import Rows

__all__ = ["KeptLayers"]


class KeptLayers:
    """A folder with what was quantised, and the rows after it.

    Attributes:
        n_layers: how many layers are done.
        errors: those of `Calibration`.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = json.loads(json.dumps(settings))
        self.n_layers = 0
        self.errors: dict[str, float] = {}
        self._types: dict[str, str] = {}
        kept = self._read()
        if kept is None and path.exists():
            raise FileExistsError(f"{path}: expected a folder of an earlier call, or none")
        if kept is None or kept["settings"] != self._settings:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            self._note()
            return
        self.n_layers = kept["n_layers"]
        self.errors = kept["errors"]
        self._types = kept["types"]

    @property
    def types(self) -> dict[str, str]:
        """Of each tensor; none while they are not chosen."""
        return self._types

    @types.setter
    def types(self, types: dict[str, str]) -> None:
        self._types = types
        self._note()

    def _read(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads((self._path / "progress.json").read_bytes())
        except (OSError, ValueError):
            return None
        return kept

    def rows(self) -> tuple[Rows, Rows]:
        """The rows after the layers that are done, and version 7's `v_first`."""
        with np.load(self._path / f"rows-{self.n_layers}.npz") as kept:
            return kept["x"], kept["v_first"]

    def save(self, x: Rows, v_first: Rows, errors: dict[str, float]) -> None:
        """Note that one more layer is done: `save_blocks` has had its matrices."""
        n_layers = self.n_layers + 1
        np.savez(self._path / f"rows-{n_layers}.npz", x=x, v_first=v_first)
        self.errors |= errors
        self.n_layers = n_layers
        self._note()
        (self._path / f"rows-{n_layers - 1}.npz").unlink(missing_ok=True)

    def _note(self) -> None:
        kept = {
            "settings": self._settings,
            "types": self._types,
            "n_layers": self.n_layers,
            "errors": self.errors,
        }
        new = self._path / "progress.new"
        new.write_text(json.dumps(kept))
        new.replace(self._path / "progress.json")

    def save_blocks(self, name: str, blocks: NDArray[np.uint8]) -> None:
        """Keep a matrix."""
        np.save(self._path / f"{name}.npy", blocks.reshape(-1))

    def blocks(self) -> dict[str, NDArray[np.uint8]]:
        """All matrices, by name; they stay on the disk."""
        return {
            file.name.removesuffix(".npy"): np.load(file, mmap_mode="r")
            for file in self._path.glob("*.npy")
        }

    def remove(self) -> None:
        """Let go of all."""
        shutil.rmtree(self._path, ignore_errors=True)
