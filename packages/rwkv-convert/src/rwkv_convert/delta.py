"""What a fine-tuning adds to a matrix, piece by piece: the formulas.

W is a matrix of a linear layer, (outputs, inputs). Everything is computed in float64 and rounded
once, so that results do not depend on how a matrix is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .checkpoint import TensorView
from .element_types import Floats

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Factor:
    """A tensor that a delta is computed from."""

    path: Path
    view: TensorView


Load = Callable[[Factor], Matrix]
"""Gives a factor's numbers, in its shape."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """scale B A: B is (outputs, rank), A (rank, inputs)."""

    scale: float
    b: Factor
    a: Factor

    def add(self, w: Matrix, rows: slice, load: Load) -> None:
        """Adds it to some rows."""
        w += self.scale * (load(self.b)[rows] @ load(self.a))


@dataclass(frozen=True, slots=True)
class RepeatedColumns:
    """DiSHA, which its trainer calls Bone: W[o, i] + D[i mod r, o]; D is (r, outputs)."""

    d: Factor

    def add(self, w: Matrix, rows: slice, load: Load) -> None:
        """Adds it to some rows."""
        d = load(self.d)[:, rows].T
        times = -(-w.shape[1] // d.shape[1])
        w += np.tile(d, times)[:, : w.shape[1]]


@dataclass(frozen=True, slots=True)
class BlockProducts:
    """Bat, formerly Bone: W in blocks of (r, r), each of column j W_ij + W_ij D_j + D_j.

    D is (inputs / r, r, r).
    """

    d: Factor

    def add(self, w: Matrix, rows: slice, load: Load) -> None:
        """Adds it to some rows."""
        d = load(self.d)
        n, r, _ = d.shape
        blocks = w.reshape(len(w), n, r)
        within = np.arange(rows.start, rows.stop) % r  # row of its block
        added = blocks.transpose(1, 0, 2) @ d + d[:, within]  # (column of blocks, row, r)
        w += added.transpose(1, 0, 2).reshape(w.shape)


Term = LowRank | RepeatedColumns | BlockProducts


@dataclass(frozen=True, slots=True)
class Delta:
    """What is added to a matrix: the terms, one after the other."""

    terms: tuple[Term, ...]

    def add(self, values: Floats, columns: int, first: int, load: Load) -> None:
        """Adds it to whole rows.

        Args:
            values: (n,) numbers of the matrix in row-major order, which are replaced.
            columns: of the matrix.
            first: index of the first number in the matrix.
            load: gives the numbers of factors.
        """
        w = values.astype(np.float64).reshape(-1, columns)
        start = first // columns
        for term in self.terms:
            term.add(w, slice(start, start + len(w)), load)
        values[:] = w.reshape(-1)
