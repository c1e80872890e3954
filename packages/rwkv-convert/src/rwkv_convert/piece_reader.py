"""Reading pieces of tensors, whatever the order in which their numbers lie in the file."""

from __future__ import annotations

import math
import os
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .checkpoint import TensorView
from .input_file import FileStamp, InputFile

MAX_GAP_BYTES = 1 << 20
"""A strided run is read together with its gaps, in pieces of at most this many bytes."""

MAX_SPAN_BYTES = 8 << 20
BYTES_PER_READ = 16 << 10
"""A strided view is read whole, gaps and all, up to MAX_SPAN_BYTES, if reading its runs one by one
costs more: a read costs as much as copying this many bytes."""


class PieceReader:
    """Reads pieces of tensors through a handle of its own; one per thread."""

    def __init__(self, path: str | os.PathLike[str], stamp: FileStamp | None = None) -> None:
        """Opens a file; with a stamp, it must be the file that the stamp is of."""
        self._file = InputFile(path, stamp)

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, view: TensorView, buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reads a view's elements in row-major order.

        Args:
            view: of a plain number type, or blocks that follow each other.
            buffer: at least as many bytes as the elements take.

        Returns:
            the part of `buffer` that holds the elements' bytes.
        """
        out = buffer[: view.type.bytes_of(view.count)]
        if view.is_contiguous:
            self._read_at(view.offset, out)
        else:
            self._read_strided(view, out)
        return out

    def check_unchanged(self) -> None:
        """Makes sure that nobody wrote into the file since it was opened.

        Raises:
            CheckpointError: somebody did.
        """
        self._file.check_unchanged()

    def _read_at(self, offset: int, out: NDArray[np.uint8]) -> None:
        self._file.read_into(offset, out.data)

    def _read_strided(self, view: TensorView, out: NDArray[np.uint8]) -> None:
        size = view.type.size
        element = np.dtype(f"<u{size}") if size in (1, 2, 4, 8) else np.dtype((np.void, size))
        # Axes by stride, the largest first: the order in which the elements lie in the file. Axes
        # of one index or of stride 0 hold nothing of their own.
        axes = [i for i, n in enumerate(view.shape) if n > 1 and view.strides[i] > 0]
        axes.sort(key=lambda i: -view.strides[i])

        run = 1  # elements that follow each other without a gap, over the innermost axes
        inner = len(axes)
        while inner and view.strides[axes[inner - 1]] == run:
            inner -= 1
            run *= view.shape[axes[inner]]
        step = 1
        if run == 1 and inner:  # no axis has stride 1: a run is the innermost axis with its gaps
            inner -= 1
            run, step = view.shape[axes[inner]], view.strides[axes[inner]]

        span = 1 + sum((view.shape[i] - 1) * view.strides[i] for i in axes)
        n_runs = math.prod(view.shape[i] for i in axes[:inner])
        if span * size <= min(MAX_SPAN_BYTES, n_runs * BYTES_PER_READ):
            whole = np.empty(span, element)
            self._read_at(view.offset, whole.view(np.uint8))
            strides = [stride * size for stride in view.strides]
            out.view(element).reshape(view.shape)[...] = np.lib.stride_tricks.as_strided(
                whole, view.shape, strides, writeable=False
            )
            return

        # Read the runs in the order of the file, then put the axes into the order of the view.
        held = np.empty([view.shape[i] for i in axes], element)
        runs = held.reshape(-1, run)
        outer = [range(view.shape[i]) for i in axes[:inner]]
        for row, index in zip(runs, product(*outer), strict=True):
            start = sum(k * view.strides[i] for k, i in zip(index, axes[:inner], strict=True))
            offset = view.offset + start * size
            if step == 1:
                self._read_at(offset, row.view(np.uint8))
                continue
            per_read = max(1, MAX_GAP_BYTES // (step * size))
            for at in range(0, run, per_read):
                part = row[at : at + per_read]
                gapped = np.empty((len(part) - 1) * step + 1, element)
                self._read_at(offset + at * step * size, gapped.view(np.uint8))
                part[:] = gapped[::step]

        # Back to the view's axes; the ones left out come back with one index and are repeated.
        in_order = held.transpose([axes.index(i) for i in sorted(axes)])
        shape = [n if i in axes else 1 for i, n in enumerate(view.shape)]
        out.view(element).reshape(view.shape)[...] = in_order.reshape(shape)
