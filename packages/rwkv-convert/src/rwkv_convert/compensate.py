"""Quantises a matrix so that what it computes changes least, on inputs that are like those seen.

The error of W (rows, columns), quantised as Q, on inputs x with second moments H = sum x x^T is

    sum |(W - Q) x|^2 = tr (E H E^T),    E = W - Q.

Let H = U D U^T, with U unit upper triangular and D diagonal. Then this is sum_k D_k |(E U)_k|^2,
where column k of E U holds E_k and what is left of the errors before it:

    (E U)_k = (W_k + sum_{j<k} E_j U_jk) - Q_k.

So column after column, the nearest numbers to the bracket are taken: each corrects what those
before it have spoilt. It is the method of GPTQ (Frantar et al. 2022, arXiv:2210.17323), in the form
of LDLQ (Chee et al. 2023, arXiv:2307.13304), which needs no inverse of H; both round alike.

The scales of a block are searched for when its turn comes, for the numbers of the bracket as far as
they are known by then, a column's error counting D_k. Columns stand where they stand in the file,
but blocks take their turn by what they count, and the columns within a block too.

At the end each column is looked at once more, now that the errors of all others are known. The best
numbers for it, if they stay, are those where the derivative is zero: Q_k + (E H)_k / H_kk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .element_types import BF16, FP16, BlockType, Bytes, Floats, to_bf16_bits
from .errors import OptionError, quote
from .quantize import quantize
from .search_scales import inverted
from .weight_types import WEIGHT_TYPES

DAMPING = 0.01
"""Added to the diagonal of H, as a part of its mean: what the inputs seen say is not quite true of
others."""
LEAST_WEIGHT = 1e-6
"""Of a column's error, beside the one of its block that counts most."""
STEP = 32
"""Columns between which errors are passed on one by one; to those after them all at once."""


@dataclass(frozen=True, slots=True)
class Compensated:
    """A matrix that was quantised.

    Attributes:
        blocks: (rows, bytes per row).
        values: (rows, columns), what they stand for.
        error: tr(E H E^T).
        plain_error: the same of plain rounding.
    """

    blocks: Bytes
    values: Floats
    error: float
    plain_error: float


class InputMoments:
    """The second moments of what a matrix multiplies, and their factors, computed once.

    Its methods may be called by several threads.
    """

    def __init__(self, moments: Floats, damping: float = DAMPING) -> None:
        """Takes moments; nothing is computed yet.

        Args:
            moments: (columns, columns), the sum of x x^T over inputs x; symmetric, finite.
            damping: see DAMPING.

        Raises:
            OptionError: they are not square, or not finite.
        """
        if moments.ndim != 2 or moments.shape[0] != moments.shape[1]:
            raise OptionError("moments", f"shape, expected a square, got {moments.shape}")
        if not np.isfinite(moments).all():
            raise OptionError("moments", "expected finite numbers, got others")
        self.moments = moments
        self._damping = damping
        self._factors: dict[int, Factors] = {}
        self._lock = threading.Lock()

    @property
    def columns(self) -> int:
        """How many inputs there are."""
        return len(self.moments)

    def factors(self, block: int) -> Factors:
        """The factors, columns in the order in which blocks of a size have their turn."""
        with self._lock:
            if block not in self._factors:
                self._factors[block] = _factors(self.moments, block, self._damping)
            return self._factors[block]


@dataclass(frozen=True, slots=True)
class Factors:
    """Of H = U D U^T, columns in their turn.

    Attributes:
        order: (columns,), where they stand in the file.
        h: H, damped.
        upper: U.
        diagonal: D's.
    """

    order: NDArray[np.int64]
    h: Floats
    upper: Floats
    diagonal: Floats


def quantize_compensated(weights: Floats, inputs: Floats | InputMoments, type: str) -> Compensated:
    """Quantises a matrix by the inputs that it multiplies.

    No row's error is larger than that of plain rounding: where it would be, the row is rounded.
    Rows do not depend on each other.

    Args:
        weights: (rows, columns); rows that are not finite are rounded plainly.
        inputs: their second moments, (columns, columns), as for InputMoments; or these, which keep
            what takes long for the next call.
        type: the name of a quantised type, whose block divides the columns.

    Raises:
        OptionError: there is no such type, shapes do not fit, or moments are not finite.
    """
    kind = WEIGHT_TYPES.get(type)
    if not isinstance(kind, BlockType):
        raise OptionError("type", f"expected a quantised type, got {quote(type)}")
    columns = weights.shape[-1]
    if weights.ndim != 2 or columns % kind.block:
        raise OptionError(
            "weights",
            f"shape, expected (rows, a multiple of {kind.block}), got {weights.shape}",
        )
    if not isinstance(inputs, InputMoments):
        inputs = InputMoments(inputs)
    moments = inputs.moments
    if inputs.columns != columns:
        raise OptionError("moments", f"shape, expected {(columns, columns)}, got {moments.shape}")
    plain = quantize(weights, kind)
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(weights), weights, np.float32(0))
        blocks = _compensated(finite, inputs.factors(kind.block), kind)
        values, of_plain = _values(blocks, kind), _values(plain, kind)
        errors = _errors(weights - values, moments)
        plain_errors = _errors(weights - of_plain, moments)
        worse = ~(errors <= plain_errors)
    blocks[worse], values[worse] = plain[worse], of_plain[worse]
    errors[worse] = plain_errors[worse]
    return Compensated(
        blocks, values, float(errors.sum(dtype=float)), float(plain_errors.sum(dtype=float))
    )


def rounded(values: Floats, type: str) -> Floats:
    """What numbers stand for when they are rounded to a type, with scales that are searched for.

    Args:
        values: (..., columns).
        type: the name of any type; the block of a quantised one divides the columns.

    Raises:
        OptionError: there is no such type, or rows do not fit.
    """
    kind = WEIGHT_TYPES.get(type)
    if kind is None:
        raise OptionError("type", f"expected one of {', '.join(WEIGHT_TYPES)}, got {quote(type)}")
    if isinstance(kind, BlockType):
        rows = values.reshape(-1, values.shape[-1])
        blocks = quantize(rows, kind, np.ones(rows.shape[1], np.float32))
        return _values(blocks, kind).reshape(values.shape)
    if kind is FP16:
        return values.astype(np.float16).astype(np.float32)
    if kind is BF16:
        return (to_bf16_bits(values).astype(np.uint32) << 16).view(np.float32)
    return values


def _values(blocks: Bytes, type: BlockType) -> Floats:
    return type.dequantize(blocks.reshape(-1, type.size)).reshape(len(blocks), -1)


def _errors(difference: Floats, moments: Floats) -> Floats:
    """E H E^T's diagonal: of each row."""
    errors: Floats = np.einsum("ij,ij->i", difference @ moments, difference)
    return errors


def _compensated(weights: Floats, factors: Factors, type: BlockType) -> Bytes:
    """The blocks, (rows, bytes per row)."""
    order = factors.order
    # From here on (columns, rows), columns in their turn.
    matrix = _Matrix(np.ascontiguousarray(weights.T[order]), order, type)
    for start in range(0, len(order), type.block):
        matrix.quantize_block(start, factors.upper, factors.diagonal)
    matrix.refine(factors.h)
    return matrix.packed()


def _factors(moments: Floats, block: int, damping: float) -> Factors:
    order = _order(np.asarray(moments.diagonal()), block)
    h = _damped(moments[np.ix_(order, order)], damping)
    # H = R R^T with R upper triangular: Cholesky's factor, of the matrix turned round.
    r = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    scale = r.diagonal()
    upper, diagonal = (r / scale).astype(np.float32), (scale * scale).astype(np.float32)
    return Factors(order, h.astype(np.float32), upper, diagonal)


def _order(diagonal: Floats, block: int) -> NDArray[np.int64]:
    """The columns in their turn: blocks that count most first, and so the columns in each."""
    by_block = diagonal.reshape(-1, block)
    within = np.argsort(-by_block, axis=1, kind="stable")
    blocks = np.argsort(-by_block.sum(axis=1), kind="stable")
    order: NDArray[np.int64] = (blocks[:, None] * block + within[blocks]).reshape(-1)
    return order


def _damped(moments: Floats, damping: float) -> NDArray[np.float64]:
    """H in float64, with what is added to its diagonal."""
    h = moments.astype(np.float64)
    mean = float(h.diagonal().mean()) or 1.0
    np.fill_diagonal(h, h.diagonal() + damping * mean)
    return h


class _Matrix:
    """A matrix that is being quantised; all arrays are (columns, rows), columns in their turn."""

    def __init__(self, values: Floats, order: NDArray[np.int64], type: BlockType) -> None:
        columns, rows = values.shape
        self._type = type
        self._values = values
        self._errors = np.empty_like(values)
        self._codes = np.empty(values.shape, np.uint8)
        self._order = order
        # Of each block in its turn: scale and offset of its groups, and its bytes.
        self._scales: list[tuple[Floats, Floats]] = []
        self._blocks = np.empty((columns // type.block, rows, type.size), np.uint8)

    def quantize_block(self, start: int, upper: Floats, diagonal: Floats) -> None:
        """Quantises the block whose columns begin at `start`; those before it are done."""
        type, grid, errors = self._type, self._type.grid, self._errors
        end = start + type.block
        target = self._values[start:end] + upper[:start, start:end].T @ errors[:start]
        at = self._order[start:end] % type.block  # where they stand in the block
        weight = np.empty(type.block, np.float32)
        weight[at] = diagonal[start:end] / diagonal[start:end].max()
        weights = np.repeat(np.maximum(weight, LEAST_WEIGHT)[:, None], target.shape[1], axis=1)
        x = np.empty_like(target)
        x[at] = target
        self._scales.append(grid.fit(x, weights, self._blocks[start // type.block]))
        for first in range(start, end, STEP):
            last = first + STEP
            some = target[first - start : last - start]
            some += upper[start:first, first:last].T @ errors[start:first]
            for k in range(first, last):
                self._round(k, some[k - first])
                some[k + 1 - first :] += upper[k, k + 1 : last, None] * errors[k]

    def refine(self, h: Floats) -> None:
        """Gives each column once more its best numbers, all others staying as they are."""
        for first in range(0, len(h), STEP):
            last = first + STEP
            gradient = h[first:last] @ self._errors  # half of it
            for k in range(first, last):
                before = self._errors[k].copy()
                quantized = self._values[k] - before
                self._round(k, quantized + gradient[k - first] / h[k, k])
                gradient += h[first:last, k, None] * (self._errors[k] - before)

    def packed(self) -> Bytes:
        """The blocks of all rows, (rows, bytes per row)."""
        block = self._type.block
        in_file = np.empty_like(self._blocks)
        for i, place in enumerate(self._blocks):
            columns = self._order[i * block : (i + 1) * block]
            codes = np.empty((block, place.shape[0]), np.uint8)
            codes[columns % block] = self._codes[i * block : (i + 1) * block]
            self._type.grid.pack(codes, place)
            in_file[columns[0] // block] = place
        return np.ascontiguousarray(in_file.transpose(1, 0, 2)).reshape(in_file.shape[1], -1)

    def _round(self, k: int, target: Floats) -> None:
        """Takes the nearest numbers to `target` (rows,) for column k."""
        block, grid = self._type.block, self._type.grid
        scales, offsets = self._scales[k // block]
        group = self._order[k] % block // (block // len(scales))
        scale, offset = scales[group], offsets[group]
        codes = grid.nearest((target - offset) * inverted(scale))
        self._codes[k] = codes
        self._errors[k] = self._values[k] - (scale * grid.levels[codes] + offset)
