"""Quantises a model layer after layer, each by what the quantised ones before it leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .kept_layers import KeptLayers
from .layer_rows import LayerRows, Rows

__all__ = ["FINE", "Progress", "quantize_layers"]

Progress = Callable[[int, int], None]
"""Called with how many steps are done, and of how many."""

# What 8 bits lose is not worth the time: such matrices are rounded as always.
FINE = ("q8_0", "fp16", "bf16", "fp32")

# Rows of a matrix that are quantised at once, by one thread: those of a head are many.
_ROWS = 8192


def quantize_layers(
    rows: LayerRows, types: Mapping[str, str], kept: KeptLayers, progress: Progress | None
) -> None:
    """Quantise all layers that are not kept yet, and the head after the last.

    Args:
        rows: the model and the texts.
        types: of each tensor.
        kept: where what was quantised goes.
        progress: called after each layer.
    """
    n_layers = rows.weights.n_layer

    def wanted(name: str) -> bool:
        return types[name] not in FINE

    if kept.n_layers:
        x, v_first = kept.rows()
    else:
        x = rows.embedded()
        v_first = np.zeros_like(x)
    for layer in range(kept.n_layers, n_layers):
        moments = rows.moments(rows.layer(layer), x, v_first, wanted)
        quantized, errors = _quantize(rows, moments, types, kept)
        del moments
        rows.run(rows.layer(layer, quantized), x, v_first)
        if layer == n_layers - 1 and wanted("head.weight"):
            _, of_head = _quantize(rows, {"head.weight": [rows.head_moments(x)]}, types, kept)
            errors |= of_head
        kept.save(x, v_first, errors)
        if progress is not None:
            progress(layer + 1, n_layers)


def _quantize(
    rows: LayerRows, moments: dict[str, list[Rows]], types: Mapping[str, str], kept: KeptLayers
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Quantise tensors; what they now stand for, and their errors."""

    def task(name: str) -> Callable[[], tuple[NDArray[np.float32], float]]:
        return lambda: _quantize_tensor(rows, name, moments[name], types[name], kept)

    # The largest first: threads that are done early would wait for it.
    names = sorted(moments, key=lambda name: -moments[name][0].size)
    done = rows.workers.run(map(task, names))
    return (
        {name: values for name, (values, _) in zip(names, done, strict=True)},
        {name: error for name, (_, error) in zip(names, done, strict=True)},
    )


def _quantize_tensor(
    rows: LayerRows, name: str, moments: list[Rows], type: str, kept: KeptLayers
) -> tuple[NDArray[np.float32], float]:
    import rwkv_convert

    values = rows.read(name)
    parts = []
    error = plain = 0.0
    for matrix, h in zip(values.reshape(len(moments), -1, values.shape[-1]), moments, strict=True):
        inputs = rwkv_convert.InputMoments(h)
        for begin in range(0, len(matrix), _ROWS):
            some = matrix[begin : begin + _ROWS]
            found = rwkv_convert.quantize_compensated(some, inputs, type)
            parts.append(found.blocks)
            error += found.error
            plain += found.plain_error
            some[...] = found.values
    kept.save_blocks(name, np.concatenate(parts))
    return values, error / plain if plain else 1.0
