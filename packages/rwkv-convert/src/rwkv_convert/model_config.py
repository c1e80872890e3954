"""What the `config.json` beside a model must not say: what a model file has no place for."""

from __future__ import annotations

import math
from pathlib import Path

from .checkpoint import layer_of
from .errors import ModelError, quote
from .official_names import ModelTensors

LAYER_NORM_EPSILON = 1e-5
FUSED = ("embedding_layer_norm_fused", "deep_embedding")
"""Say that ln0 was applied to every row of the embedding. That cannot be undone, and a model file
cannot say that ln0 is to be left out."""
EPSILONS = ("norm_eps", "layer_norm_epsilon", "layer_norm_eps")


def heed_config(model: ModelTensors) -> None:
    """Compares a model with its config.json, and takes from it what the tensors do not show.

    Raises:
        ModelError: it describes a model that a model file cannot hold, or another one.
    """
    config = model.checkpoint.config
    where = model.checkpoint.path.with_name("config.json")
    for key in FUSED:
        if config.get(key):
            raise ModelError(
                f"{where}: {key!r}, expected an embedding as it was trained, got one into which "
                "blocks.0.ln0 was fused, which cannot be undone",
                remedy="Try the checkpoint that it was made from",
            )
    for key in EPSILONS:
        _check_number(where, key, config.get(key))
    layers = config.get("num_hidden_layers")
    found = 1 + max(map(layer_of, model.tensors), default=-1)
    if isinstance(layers, int) and layers != found:
        raise ModelError(
            f"{where}: 'num_hidden_layers', expected {found} as there are, got {layers}"
        )
    if config.get("tie_word_embeddings") is True and "emb.weight" in model.tensors:
        model.tensors.setdefault("head.weight", model.tensors["emb.weight"])


def _check_number(where: Path, key: str, value: object) -> None:
    if value is None:
        return
    # Compared with 1 first: an integer may be too large for a float.
    if (
        not isinstance(value, int | float)
        or not 0 < value < 1
        or not math.isclose(value, LAYER_NORM_EPSILON, rel_tol=1e-3)
    ):
        raise ModelError(f"{where}: {key!r}, expected {LAYER_NORM_EPSILON}, got {quote(value)}")
