"""What becomes of tensors that no table knows: a model must not lose what it may need unnoticed."""

from __future__ import annotations

from .element_types import may_be_weights
from .errors import ModelError, listing
from .official_names import ModelTensors


def check_unknown(model: ModelTensors, unknown: list[str], known: set[str]) -> None:
    """Refuses to leave out what may be a part of the model.

    That is a floating-point tensor of two or more dimensions, or the bias of a matrix. What
    checkpoints hold and no version uses, layer 0's v of RWKV-7, is in the tables.

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
        if may_be_weights(source.parts[0].type) and (len(source.shape) > 1 or of_matrix):
            refused.append(source.name)
    if refused:
        raise ModelError(
            f"{model.checkpoint.path}: expected tensors of the model and no others, got "
            f"{listing(refused)}, without which the model may be another",
            remedy="Try ignore= with their names, to leave them out all the same",
        )
