"""What becomes of tensors that no table knows: a model that needs them must not lose them unnoticed.
"""

from __future__ import annotations

import re

from .element_types import may_be_weights
from .errors import ModelError, listing
from .official_names import ModelTensors

KNOWN_UNUSED: tuple[re.Pattern[str], ...] = (
    re.compile(r"blocks\.\d+\.att\.time_(ratio|shift)"),  # buffers of RWKV-2 and 3's training code
    re.compile(r"(.*\.)?(rotary_emb|inv_freq)(\..*)?"),
)
"""By official name: left out, though they look like weights."""


def check_unknown(model: ModelTensors, unknown: list[str], known: set[str]) -> None:
    """Refuses to leave out what may be a part of the model.

    That is a floating-point tensor of two or more dimensions, or the bias of a matrix.

    Args:
        model: whose tensors they are.
        unknown: official names that the version does not have.
        known: those that it has.

    Raises:
        ModelError: there is such a tensor.
    """
    refused = []
    for name in unknown:
        source = model.tensors[name]
        of_matrix = name.endswith(".bias") and name.removesuffix("bias") + "weight" in known
        if any(pattern.fullmatch(name) for pattern in KNOWN_UNUSED):
            continue
        if may_be_weights(source.parts[0].type) and (len(source.shape) > 1 or of_matrix):
            refused.append(source.name)
    if refused:
        raise ModelError(
            f"{model.checkpoint.path}: expected tensors of the model and no others, got "
            f"{listing(refused)}, without which the model may be another",
            remedy="Try ignore= with their names, to leave them out all the same",
        )
