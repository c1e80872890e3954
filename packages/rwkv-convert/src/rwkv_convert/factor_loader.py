"""Factors of a delta, read when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .delta import Delta, Factor, Matrix
from .element_types import FP64, to_fp32
from .encoder import Adjustment
from .identify import FileTensor
from .piece_reader import PieceReader


class FactorLoader:
    """Reads factors, and keeps those of one delta; one per thread."""

    def __init__(self, readers: Mapping[Path, PieceReader]) -> None:
        self._readers = readers
        self._delta: Delta | None = None
        self._kept: dict[int, Matrix] = {}

    def adjustment(self, tensor: FileTensor, first: int) -> Adjustment | None:
        """What adds the delta of a tensor to whole rows, of which `first` is the first number."""
        delta = tensor.delta
        if delta is None:
            return None
        if delta is not self._delta:
            self._delta = delta
            self._kept.clear()
        columns = tensor.shape[-1]
        return lambda values: delta.add(values, columns, first, self._load)

    def _load(self, factor: Factor) -> Matrix:
        if id(factor) not in self._kept:
            view = factor.view
            raw = np.empty(view.count * view.type.size, np.uint8)
            raw = self._readers[factor.path].read(view, raw)
            if view.type is FP64:
                values = raw.view("<f8").astype(np.float64)
            else:
                single = np.empty(view.count, np.float32)
                to_fp32(raw, view.type, single)
                values = single.astype(np.float64)
            self._kept[id(factor)] = values.reshape(view.shape)
        return self._kept[id(factor)]
