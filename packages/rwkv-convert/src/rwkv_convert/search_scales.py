"""Scales that make the squared error of a block small, and how ggml's larger types store them.

For given codes the best scale (and minimum) is a least-squares problem with a closed solution; for
a given scale the best codes are the nearest ones. So a few scales around the obvious one give
codes, the codes give their best scale, and the scale of least error stays. Then the scales
themselves are rounded, those that they share are fitted to the codes again, and each is tried one
step up and down.

Arrays are transposed: `x` is (..., values of a block, n). Blocks are divided by their largest
magnitude before, so that no square overflows or vanishes. With weights `w`, in the shape of `x`,
each value's square counts so many times; None stands for 1.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from .element_types import Bytes, Floats, read_fp16, write_fp16

CANDIDATES_FROM_MINIMUM = tuple(product((-1.5, -0.8, -0.2, 0.5), (-0.5, -0.25, 0, 0.25)))
"""What is added to the top code (how far the largest value lies beyond it, or short of it), and to
every code before it is rounded (where between two codes the smallest value lies)."""
CANDIDATES_WEIGHTED = tuple(product((-1.5, -0.8, -0.2, 0.5, 1.5, 3, 5), (-1, -0.5, -0.25, 0, 0.25)))
"""The same with weights, by which the largest and smallest values may hardly count."""
CANDIDATES_SIGNED = tuple(np.arange(-9, 10) * 0.1)
CANDIDATES_CODEBOOK = tuple(range(-12, 29, 4))
"""By how much the largest value lies short of the last entry, or beyond it."""
CANDIDATES_SIGNED_WEIGHTED = (*CANDIDATES_SIGNED, 1.3, 1.8, 2.4, 3.2, 4.2, 5.5)
CANDIDATES_OPPOSITE = tuple(np.arange(-6, 15, 2) * 0.1)
"""The same for a largest value that becomes the highest code, where its opposite may count more."""
CANDIDATES_CODEBOOK_WEIGHTED = (-60, -44, -36, -28, -20, *CANDIDATES_CODEBOOK)
CANDIDATES_SYMMETRIC = tuple(np.arange(-8, 3) * 0.25)
"""How far the largest value lies beyond the top code, or short of it."""
REFINEMENTS = 3


def weighted(x: Floats, w: Floats | None) -> Floats:
    """A factor of sums over a block, with the weight of each value."""
    return x if w is None else x * w


def counted(x: Floats, w: Floats | None) -> Floats | np.float32:
    """The sum of the weights of each block of 32 or so, x (blocks, values, n)."""
    return np.float32(x.shape[1]) if w is None else np.add.reduce(w, axis=1)


def normalize(x: Floats) -> Floats:
    """Divides each block (values, n) by its largest magnitude, in place; returns that, (n,).

    Blocks that hold NaN or infinite values, or numbers too small to be divided by, become zeros.
    """
    largest: Floats = np.maximum(np.maximum.reduce(x, axis=0), -np.minimum.reduce(x, axis=0))
    inverse = np.divide(np.float32(1), largest)
    undefined = ~(np.isfinite(largest) & np.isfinite(inverse))
    if undefined.any():
        x[:, undefined] = 0
        largest[undefined] = 0
        inverse[undefined] = 0
    x *= inverse
    return largest


def stored(out: Bytes, scale: Floats, largest: Floats) -> Floats:
    """Writes a scale of normalized blocks as fp16; returns what was stored, normalized again.

    Returns:
        the scale (n,) as it will be read, infinite where it is too large for fp16.
    """
    write_fp16(out, scale * largest)
    again: Floats = read_fp16(out)[:, 0] * inverted(largest)
    return again


def largest_signed(x: Floats, axis: int) -> Floats:
    """The value of largest magnitude along an axis, with its sign."""
    high: Floats = np.maximum.reduce(x, axis=axis)
    low: Floats = np.minimum.reduce(x, axis=axis)
    np.copyto(high, low, where=high <= -low)
    return high


def inverted(x: Floats) -> Floats:
    """1 / x, 0 where that is not finite."""
    result = np.divide(np.float32(1), x)
    result[~np.isfinite(result)] = 0
    return result


# --------------------------------------------------------------------------------------------------
# value = scale * q - minimum, q from 0 to a top code


def search_from_minimum(
    x: Floats, top: int, w: Floats | None = None, *, signed: bool = False
) -> tuple[Floats, Floats]:
    """Scale and minimum of small squared error, of blocks of 32.

    Args:
        x: (8, 32, n), or another number of blocks.
        top: the largest code.
        w: weights.
        signed: whether the minimum may be below 0.

    Returns:
        scale, at least 0, and minimum, at least 0 if not signed, (8, n) each.
    """
    count = counted(x, w)
    low = np.minimum.reduce(x, axis=1)
    if not signed:
        low = np.minimum(low, 0)
    span = np.maximum.reduce(x, axis=1) - low
    xw = weighted(x, w)
    sum_x = np.add.reduce(xw, axis=1)
    # To begin with, all values are the same.
    best_scale, best_minimum = np.zeros_like(low), -sum_x / count
    if not signed:
        best_minimum = np.maximum(best_minimum, 0)
    best = best_minimum * (best_minimum * count + 2 * sum_x)

    def fit(q: Floats) -> None:
        """Takes the scale and minimum of least error for codes, where it is less."""
        qw = weighted(q, w)
        sum_q, sum_qq = np.add.reduce(qw, axis=1), np.einsum("ijk,ijk->ik", qw, q)
        sum_xq = np.einsum("ijk,ijk->ik", xw, q)
        inverse = inverted(count * sum_qq - sum_q * sum_q)
        scale = (count * sum_xq - sum_x * sum_q) * inverse
        minimum = (sum_q * sum_xq - sum_qq * sum_x) * inverse
        alone = inverse == 0  # no solution, or no minimum below 0: the scale alone
        if not signed:
            alone |= minimum <= 0
        minimum[alone] = 0
        scale[alone] = (sum_xq * inverted(sum_qq))[alone]
        # The squared error but for the sum of x * x, which is the same for all candidates.
        error = scale * (scale * sum_qq - 2 * (sum_xq + minimum * sum_q))
        error += minimum * (minimum * count + 2 * sum_x)
        better = (error < best) & (scale >= 0)
        np.copyto(best, error, where=better)
        np.copyto(best_scale, scale, where=better)
        np.copyto(best_minimum, minimum, where=better)

    shifted = x - low[:, None]
    candidates = CANDIDATES_FROM_MINIMUM if w is None else CANDIDATES_WEIGHTED
    for beyond, phase in candidates:
        q = shifted * inverted(span / np.float32(top + beyond))[:, None]
        q += np.float32(phase)
        np.rint(q, out=q)
        np.clip(q, 0, top, out=q)
        fit(q)
    for _ in range(0 if w is None else REFINEMENTS):
        fit(codes_from_minimum(x, best_scale, best_minimum, top))
    return best_scale, best_minimum


def codes_from_minimum(x: Floats, scale: Floats, minimum: Floats, top: int) -> Floats:
    """The nearest codes; x (8, 32, n), scale and minimum (8, n)."""
    q = x + minimum[:, None]
    q *= inverted(scale)[:, None]
    np.rint(q, out=q)
    np.clip(q, 0, top, out=q)
    return q


def error_from_minimum(
    x: Floats, scale: Floats, minimum: Floats, top: int, w: Floats | None = None
) -> Floats:
    """The squared error of each block with its nearest codes, (8, n)."""
    difference = codes_from_minimum(x, scale, minimum, top)
    difference *= scale[:, None]
    difference -= minimum[:, None]
    difference -= x
    error: Floats = np.einsum("ijk,ijk->ik", weighted(difference, w), difference)
    return error


def fit_two(x: Floats, a: Floats, b: Floats, w: Floats | None = None) -> tuple[Floats, Floats]:
    """D and m of least squared error for x = d * a - m * b.

    Args:
        x: (8, 32, n).
        a: (8, 32, n).
        b: (8, n), the same for all values of a block.
        w: weights.

    Returns:
        d and m, (n,) each.
    """
    aw = weighted(a, w)
    aa, xa = np.einsum("ijk,ijk->k", aw, a), np.einsum("ijk,ijk->k", x, aw)
    bb = np.einsum("ik,ik->k", counted(x, w) * b, b)
    ab = np.einsum("ik,ik->k", np.add.reduce(aw, axis=1), b)
    xb = np.einsum("ik,ik->k", np.add.reduce(weighted(x, w), axis=1), b)
    inverse = inverted(aa * bb - ab * ab)
    d, m = (bb * xa - ab * xb) * inverse, (ab * xa - aa * xb) * inverse
    # Where that is no solution, one of them alone: the one that removes more of the error.
    alone = (inverse == 0) | (m < 0) | (d < 0)
    d_alone, m_alone = np.maximum(xa * inverted(aa), 0), np.maximum(-xb * inverted(bb), 0)
    with_d = d_alone * xa >= -m_alone * xb
    np.copyto(d, np.where(with_d, d_alone, 0), where=alone)
    np.copyto(m, np.where(with_d, 0, m_alone), where=alone)
    return d, m


# --------------------------------------------------------------------------------------------------
# value = scale * q, q from -32 to 31, or from a codebook


def search_signed(x: Floats, lowest: int, w: Floats | None = None) -> Floats:
    """The scale of small squared error, (16, n), of blocks of 16, x (16, 16, n).

    Codes go from `lowest` to -lowest - 1. The scale has either sign: the value of largest magnitude
    becomes the lowest code, which has no opposite.
    """
    inverse = inverted(largest_signed(x, axis=1))
    best, best_scale = np.zeros_like(inverse), np.zeros_like(inverse)

    def fit(q: Floats) -> None:
        qw = weighted(q, w)
        xq, qq = np.einsum("ijk,ijk->ik", x, qw), np.einsum("ijk,ijk->ik", qw, q)
        keep_best(best, best_scale, xq, qq)

    for beyond in CANDIDATES_SIGNED if w is None else CANDIDATES_SIGNED_WEIGHTED:
        fit(codes_signed(x, inverse * np.float32(lowest - beyond), lowest))
    for beyond in () if w is None else CANDIDATES_OPPOSITE:
        fit(codes_signed(x, inverse * np.float32(-lowest - 1 + beyond), lowest))
    for _ in range(0 if w is None else REFINEMENTS):
        fit(codes_signed(x, inverted(best_scale), lowest))
    return best_scale


def codes_signed(x: Floats, inverse: Floats, lowest: int) -> Floats:
    """The nearest codes from `lowest` to -lowest - 1; x (16, 16, n), 1 / scale (16, n)."""
    q = x * inverse[:, None]
    np.rint(q, out=q)
    np.clip(q, lowest, -lowest - 1, out=q)
    return q


def search_symmetric(x: Floats, top: int, w: Floats) -> Floats:
    """The scale of small squared error, (n,), of blocks x (32, n); codes from -top to top."""
    inverse = inverted(np.abs(largest_signed(x, axis=0)))
    best, best_scale = np.zeros_like(inverse), np.zeros_like(inverse)

    def fit(q: Floats) -> None:
        qw = weighted(q, w)
        keep_best(best, best_scale, np.einsum("jk,jk->k", x, qw), np.einsum("jk,jk->k", qw, q))

    for beyond in CANDIDATES_SYMMETRIC:
        fit(codes_symmetric(x, inverse * np.float32(top + beyond), top))
    fit(codes_symmetric(x, inverted(best_scale), top))
    return best_scale


def codes_symmetric(x: Floats, inverse: Floats, top: int) -> Floats:
    """The nearest codes from -top to top; x (32, n), 1 / scale (n,)."""
    q = x * inverse
    np.rint(q, out=q)
    np.clip(q, -top, top, out=q)
    return q


def keep_best(best: Floats, best_scale: Floats, xq: Floats, qq: Floats) -> None:
    """Takes the scale xq / qq where it removes more of the squared error, which is xq * xq / qq."""
    scale = xq * inverted(qq)
    gain = scale * xq
    better = gain > best
    np.copyto(best, gain, where=better)
    np.copyto(best_scale, scale, where=better)


def search_codebook(x: Floats, codebook: Floats, w: Floats | None = None) -> Floats:
    """The scale of small squared error, (n,), of blocks x (32, n) whose codes mean `codebook`."""
    inverse = inverted(largest_signed(x, axis=0))
    best, best_scale = np.zeros_like(inverse), np.zeros_like(inverse)

    def fit(inverse: Floats) -> None:
        c = codebook[nearest(x * inverse, codebook)]
        cw = weighted(c, w)
        keep_best(best, best_scale, np.einsum("jk,jk->k", x, cw), np.einsum("jk,jk->k", cw, c))

    for end in (codebook[0], codebook[-1]):
        for beyond in CANDIDATES_CODEBOOK if w is None else CANDIDATES_CODEBOOK_WEIGHTED:
            fit(inverse * (end - np.sign(end) * np.float32(beyond)))
    for _ in range(REFINEMENTS):
        fit(inverted(best_scale))
    return best_scale


def nearest(x: Floats, codebook: Floats) -> Bytes:
    """The number of the nearest entry: the codebook is of whole numbers, so the borders are halves.

    A border itself belongs to the entry above.
    """
    first = int(2 * codebook[0])
    borders = codebook[1:] + codebook[:-1]  # twice
    table = np.searchsorted(borders, np.arange(first, int(2 * codebook[-1]) + 1), side="right")
    twice = np.clip(x * 2, codebook[0] * 2, codebook[-1] * 2)
    index = np.floor(twice).astype(np.int16) - np.int16(first)
    codes: Bytes = table.astype(np.uint8)[index]
    return codes
