"""An embedding into which ln0 was fused, known by its traces where no config.json tells."""

from __future__ import annotations

import re

import numpy as np

from .element_types import SOURCE_TYPES, to_fp32
from .errors import ModelError
from .model_config import FUSED
from .official_names import ModelTensors
from .piece_reader import PieceReader

_NORM = re.compile(r"(?P<norm>blocks\.(?:0|[1-9]\d*)\.ln[12]|ln_out)\.weight")


def check_embedding(model: ModelTensors) -> None:
    """Refuses a model whose ln0 is exactly ones and zeros, while its other norms are not.

    Programs that apply ln0 to every row of the embedding leave such a norm behind, which they do
    not compute. We would: the result would be another model's. No training leaves every number of
    one norm, and of that one alone, where it began. If it did, a config.json that says
    `"embedding_layer_norm_fused": false` lets the model pass.

    Args:
        model: identified, so that it has all its tensors.

    Raises:
        ModelError: it is such a model.
    """
    if any(model.checkpoint.config.get(key) is False for key in FUSED):
        return
    others = [match["norm"] for name in model.tensors if (match := _NORM.fullmatch(name))]
    if _is_identity(model, "blocks.0.ln0") and not all(_is_identity(model, n) for n in others):
        raise ModelError(
            f"{model.checkpoint.path}: blocks.0.ln0, expected a norm that was trained, got ones "
            "and zeros, as where it was fused into the embedding, which cannot be undone",
            remedy="Try the checkpoint that it was made from, or, if it was trained so, a "
            f'config.json beside it with "model_type": "rwkv" and "{FUSED[0]}": false',
        )


def _is_identity(model: ModelTensors, norm: str) -> bool:
    return _is_all(model, f"{norm}.weight", 1) and _is_all(model, f"{norm}.bias", 0)


def _is_all(model: ModelTensors, name: str, value: float) -> bool:
    """Whether every number of a tensor is this one."""
    source = model.tensors[name]
    checkpoint = model.checkpoint
    with PieceReader(source.path, checkpoint.files.get(source.path)) as reader:
        for view in source.parts:
            if view.type not in SOURCE_TYPES:
                return False
            raw = reader.read(view, np.empty(view.count * view.type.size, np.uint8))
            numbers = np.empty(view.count, np.float32)
            to_fp32(raw, view.type, numbers)
            if not (numbers == value).all():
                return False
    return True
