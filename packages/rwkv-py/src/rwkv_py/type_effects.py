"""What each tensor's type does to what a model expects: measured, tensor by tensor.

Quantised as Q, a matrix W with inputs x changes by E = W - Q, and what it computes by tr (E H E^T),
H = sum x x^T. For small changes, the Kullback-Leibler divergence between what the models expect
grows in proportion; the factor says how much the rest of the model makes of the matrix's outputs.
It is measured by a probe: the model with this one matrix rounded to 4 bits reads a part of the
texts. Then for each type

    KL(type) = KL(probe) tr (E H E^T)(type) / tr (E H E^T)(probe)

with the errors of some rows, quantised as they would be in the end. Divergences of several tensors
add up, as their errors do not depend on each other.

All probes run through the layers side by side, so that each layer is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._arguments import Tokens
from .errors import ConversionError
from .layer_rows import LayerRows, Rows
from .probabilities import log_softmax
from .quantize_layers import FINE, Progress

__all__ = ["measure_effects", "probe_tokens"]

# What probes read: that many tokens, in so many texts.
_TOKENS = 1024
_TEXTS = 4

# In how many layers matrices are probed, at most; between them, factors are interpolated.
_PROBED_LAYERS = 8

# Rows of a matrix that are quantised to every type.
_ROWS = 128

# Logits at a time.
_LOGITS_AT_ONCE = 1 << 22

_PROBE = "q4_0"


def probe_tokens(tokens: Sequence[Tokens]) -> list[Tokens]:
    """The beginnings of some of the texts, evenly chosen."""
    n = min(_TEXTS, len(tokens))
    chosen = [tokens[i * len(tokens) // n] for i in range(n)]
    return [some[: _TOKENS // n] for some in chosen]


@dataclass
class _Probe:
    """A model that differs from the original in one tensor, as far as it has run.

    Attributes:
        x: the rows.
        v_first: version 7's, the original's where they are the same.
        error: of the tensor, as the types' are counted.
    """

    x: Rows
    v_first: Rows
    error: float


def measure_effects(
    calibration: LayerRows,
    reading: LayerRows,
    candidates: Mapping[str, Sequence[str]],
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Measure what each type of each tensor does.

    Args:
        calibration: the model and the texts that it will be quantised by.
        reading: the same model and the texts that probes read.
        candidates: by tensor, types; those of one alone are not looked at.
        progress: called after each layer.

    Returns:
        by tensor and type, the Kullback-Leibler divergence in nats.

    Raises:
        ConversionError: what the model computes is not finite.
    """
    return _Effects(calibration, reading, candidates).measure(progress)


class _Effects:
    def __init__(
        self, calibration: LayerRows, reading: LayerRows, candidates: Mapping[str, Sequence[str]]
    ) -> None:
        self._calibration = calibration
        self._reading = reading
        self._candidates = {name: types for name, types in candidates.items() if len(types) > 1}
        self._errors: dict[str, dict[str, float]] = {}
        self._probes: dict[str, _Probe] = {}
        n_layers = calibration.weights.n_layer
        n_probed = min(n_layers, _PROBED_LAYERS)
        self._probed = {round(i) for i in np.linspace(0, n_layers - 1, n_probed)}

    def measure(self, progress: Progress | None) -> dict[str, dict[str, float]]:
        n_layers = self._calibration.weights.n_layer
        x = self._calibration.embedded()
        v_first = np.zeros_like(x)
        self._begin()
        for layer in range(n_layers):
            self._layer(layer, x, v_first)
            if progress is not None:
                progress(layer + 1, n_layers)
        divergences = self._end(x)
        return self._in_all_layers(divergences)

    def _begin(self) -> None:
        """The original before the first layer, and the probe of the embedding."""
        x = self._reading.embedded()
        self._original = _Probe(x, np.zeros_like(x), 0.0)
        name = "emb.weight"
        if name in self._candidates:
            embedding = self._reading.read(name)
            seen = np.concatenate(self._reading.tokens)
            self._errors[name] = {
                type: float(((embedding - _rounded(embedding, type))[seen] ** 2).sum())
                for type in self._candidates[name]
            }
            rounded = _rounded(embedding, _PROBE)
            error = float(((embedding - rounded)[seen] ** 2).sum())
            x = self._reading.embedded(rounded)
            self._probes[name] = _Probe(x, np.zeros_like(x), error)

    def _layer(self, layer: int, x: Rows, v_first: Rows) -> None:
        """Lets everything run through a layer; begins the probes of its matrices."""
        model = self._calibration.layer(layer)
        moments = self._calibration.moments(model, x, v_first, self._candidates.__contains__)
        self._calibration.run(model, x, v_first)
        original = self._original
        begun = {}
        for name, several in moments.items():
            self._errors[name] = self._errors_of(name, several)
            if layer in self._probed:
                values = self._calibration.read(name)
                rounded = _rounded(values, _PROBE)
                error = _error(values - rounded, several)
                changed = self._reading.layer(layer, {name: rounded})
                own_v_first = original.v_first.copy() if layer == 0 else original.v_first
                begun[name] = probe = _Probe(original.x.copy(), own_v_first, error)
                self._reading.run(changed, probe.x, probe.v_first)
        for probe in (original, *self._probes.values()):
            self._reading.run(model, probe.x, probe.v_first)
        self._probes |= begun

    def _errors_of(self, name: str, moments: list[Rows]) -> dict[str, float]:
        """Of all types, estimated from some rows."""
        import rwkv_convert

        matrices = self._calibration.read(name)
        matrices = matrices.reshape(len(moments), -1, matrices.shape[-1])
        step = max(1, matrices.shape[1] // _ROWS)
        some = np.ascontiguousarray(matrices[:, ::step])
        share: float = some.shape[1] / matrices.shape[1]
        inputs = [rwkv_convert.InputMoments(h) for h in moments]

        def error(type: str) -> float:
            if type in FINE:
                return _error(some - _rounded(some, type), moments) / share
            total: float = 0.0
            for matrix, h in zip(some, inputs, strict=True):
                total += rwkv_convert.quantize_compensated(matrix, h, type).error
            return total / share

        types = self._candidates[name]
        tasks: list[Callable[[], float]] = [lambda type=type: error(type) for type in types]  # type: ignore[misc]
        return dict(zip(types, self._calibration.workers.run(tasks), strict=True))

    def _end(self, x: Rows) -> dict[str, float]:
        """How far what each probe expects is from what the original does."""
        head = self._reading.read("head.weight")
        changed = {name: (probe.x, head) for name, probe in self._probes.items()}
        name = "head.weight"
        if name in self._candidates:
            moments = [self._calibration.head_moments(x)]
            self._errors[name] = self._errors_of(name, moments)
            rounded = _rounded(head, _PROBE)
            self._probes[name] = _Probe(x, x, _error(head - rounded, moments))
            changed[name] = (self._original.x, rounded)
        total = dict.fromkeys(changed, 0.0)
        at_once = max(1, _LOGITS_AT_ONCE // len(head))
        n_rows = len(self._original.x)
        for begin in range(0, n_rows, at_once):
            rows = slice(begin, begin + at_once)
            expected = self._expected(self._original.x[rows], head)
            if not np.isfinite(expected).all():
                raise ConversionError("logits: expected finite numbers, got others")
            p = np.exp(expected)
            for name, (some, weights) in changed.items():
                total[name] += float((p * (expected - self._expected(some[rows], weights))).sum())
        return {name: max(sum_, 0.0) / n_rows for name, sum_ in total.items()}

    def _expected(self, x: Rows, head: NDArray[np.float32]) -> NDArray[np.float64]:
        return log_softmax(self._reading.head_inputs(x) @ head.T)

    def _in_all_layers(self, divergences: dict[str, float]) -> dict[str, dict[str, float]]:
        """Every tensor's divergence for every type."""
        factors: dict[str, list[tuple[int, float]]] = {}
        for name, divergence in divergences.items():
            layer, kind = _place(name)
            error = self._probes[name].error
            factor = divergence / error if error > 0 else 0.0
            factors.setdefault(kind, []).append((layer, factor))
        effects = {}
        for name, errors in self._errors.items():
            layer, kind = _place(name)
            layers, values = zip(*sorted(factors[kind]), strict=True)
            logs = np.log(np.maximum(values, 1e-300))
            factor = float(np.exp(np.interp(layer, layers, logs)))
            effects[name] = {type: factor * error for type, error in errors.items()}
        return effects


def _place(name: str) -> tuple[int, str]:
    """A tensor's layer, and its name in any."""
    if not name.startswith("blocks."):
        return 0, name
    _, layer, kind = name.split(".", 2)
    return int(layer), kind


def _error(difference: NDArray[np.float32], moments: list[Rows]) -> float:
    """Tr (E H E^T) of one matrix or, where several are stacked, of all."""
    matrices = difference.reshape(len(moments), -1, difference.shape[-1])
    return sum(
        float(np.einsum("ij,ij->", some @ h, some, dtype=np.float64))
        for some, h in zip(matrices, moments, strict=True)
    )


def _rounded(values: NDArray[np.float32], type: str) -> NDArray[np.float32]:
    """What values stand for in a type."""
    import rwkv_convert

    return rwkv_convert.rounded(values, type)
