"""What RWKV-PEFT saves of a fine-tuning, merged into a model while it is converted.

A file holds, beside whole tensors that replace the model's (vectors, norms), for each trained
matrix X.weight its factors: X.lora_A and X.lora_B (LoRA, PiSSA), X.disha (DiSHA) or X.bone. The
formulas are in `delta`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .delta import BlockProducts, Delta, Factor, LowRank, RepeatedColumns, Term
from .element_types import SOURCE_TYPES
from .errors import ModelError, OptionError, listing, quote
from .official_names import ModelTensors, Source, find_model
from .quantize import PIECE
from .sources import open_source
from .time_state import is_time_state

_KINDS = ("lora_A", "lora_B", "disha", "bone")


@dataclass(frozen=True, slots=True)
class MergeFiles:
    """What is to be merged.

    Attributes:
        path: what the trainer saved.
        alpha: of LoRA; the file does not hold it.
        init: PiSSA's initial factors.
    """

    path: str | os.PathLike[str]
    alpha: float | None
    init: str | os.PathLike[str] | None

    @classmethod
    def of(
        cls,
        merge: str | os.PathLike[str] | None,
        alpha: float | None,
        init: str | os.PathLike[str] | None,
    ) -> MergeFiles | None:
        """What the options say; None if nothing is to be merged.

        Raises:
            OptionError: they contradict each other.
        """
        for option, value in (("merge_alpha", alpha), ("merge_init", init)):
            if merge is None and value is not None:
                raise OptionError(option, f"expected it with merge=, got {quote(value)} alone")
        if alpha is not None and init is not None:
            raise OptionError("merge_alpha", "expected none with merge_init=: PiSSA has no alpha")
        if alpha is not None and not 0 < alpha < float("inf"):
            raise OptionError("merge_alpha", f"expected a positive number, got {quote(alpha)}")
        return None if merge is None else cls(merge, alpha, init)


def merge_into(model: ModelTensors, files: MergeFiles) -> list[Checkpoint]:
    """Replaces tensors of a model, and notes what is to be added to others.

    Returns:
        the files that are read for it.

    Raises:
        CheckpointError: a file cannot be read.
        ModelError: something in a file fits nothing in the model.
    """
    if model.checkpoint.is_model_file:
        raise ModelError(
            f"{model.checkpoint.path}: expected a checkpoint to merge into, "
            f"got a {model.checkpoint.container} file",
            remedy="Try the checkpoint that it was made from",
        )
    trained = find_model(open_source(files.path))
    where = trained.checkpoint.path
    factors: dict[str, dict[str, Source]] = {}
    replaced: list[str] = []
    unmatched: list[str] = []
    for name, source in trained.tensors.items():
        base, _, kind = name.rpartition(".")
        if kind in _KINDS and base + ".weight" in model.tensors:
            factors.setdefault(base + ".weight", {})[kind] = source
        elif kind not in _KINDS and (name in model.tensors or is_time_state(name)):
            replaced.append(name)
        else:
            unmatched.append(source.name)
    if unmatched:
        raise ModelError(
            f"{where}: expected tensors that belong to {model.checkpoint.path.name}, "
            f"got {listing(unmatched)}"
        )
    if files.alpha is not None and not any("lora_A" in kinds for kinds in factors.values()):
        raise ModelError(f"{where}: expected LoRA, as there is an alpha, got none")
    init = None if files.init is None else find_model(open_source(files.init))
    for name in replaced:
        model.tensors[name] = trained.tensors[name]
    for name, kinds in factors.items():
        model.deltas[name] = _delta(model.tensors[name], name, kinds, files.alpha, init)
    if init is not None:
        unused = [
            source.name
            for name, source in init.tensors.items()
            if "lora_A" not in factors.get(name.rpartition(".")[0] + ".weight", ())
        ]
        if unused:
            raise ModelError(
                f"{init.checkpoint.path}: expected the initial factors of {where.name}, "
                f"got {listing(unused)}"
            )
    model.merged.append(
        f"merged: {where}: {len(factors)} matrices changed, {len(replaced)} tensors replaced"
    )
    return [trained.checkpoint, *([init.checkpoint] if init is not None else [])]


def _delta(
    target: Source,
    name: str,
    kinds: dict[str, Source],
    alpha: float | None,
    init: ModelTensors | None,
) -> Delta:
    """What the factors of one matrix add to it."""
    where = f"{next(iter(kinds.values())).path}: {quote(name.removesuffix('.weight'))}"
    if len(target.shape) != 2 or target.shape[1] > PIECE:
        raise ModelError(
            f"{where}: expected a matrix with rows of at most {PIECE} to merge into, "
            f"got {target.shape}"
        )
    found = set(kinds)
    if found == {"lora_A", "lora_B"}:
        return Delta(tuple(_low_rank(where, target, name, kinds, alpha, init)))
    if found == {"disha"} or found == {"bone"}:
        (source,) = kinds.values()
        return Delta((_blocks(source, target),))
    raise ModelError(
        f"{where}: expected lora_A and lora_B, disha or bone, got {listing(sorted(found))}"
    )


def _low_rank(
    where: str,
    target: Source,
    name: str,
    kinds: dict[str, Source],
    alpha: float | None,
    init: ModelTensors | None,
) -> list[Term]:
    a, b = kinds["lora_A"], kinds["lora_B"]
    _check_low_rank(a, b, target)
    if init is None:
        if alpha is None:
            raise ModelError(
                f"{where}: expected LoRA's alpha, which the file does not hold, got none",
                remedy="Try merge_alpha= with what it was trained with, or merge_init= with "
                "init_pissa.pth if it is PiSSA",
            )
        return [LowRank(alpha / a.shape[0], _factor(b), _factor(a))]
    base = name.removesuffix("weight")
    first_a, first_b = (init.tensors.get(base + "init_" + kind) for kind in ("lora_A", "lora_B"))
    if first_a is None or first_b is None:
        raise ModelError(
            f"{init.checkpoint.path}: expected {quote(base + 'init_lora_A')} and "
            f"{quote(base + 'init_lora_B')}, got none"
        )
    _check_low_rank(first_a, first_b, target)
    return [
        LowRank(-1.0, _factor(first_b), _factor(first_a)),
        LowRank(1.0, _factor(b), _factor(a)),
    ]


def _check_low_rank(a: Source, b: Source, target: Source) -> None:
    outputs, inputs = target.shape
    rank = a.shape[0] if len(a.shape) == 2 else 0
    if rank < 1 or a.shape != (rank, inputs):
        raise _misshaped(a, f"(rank, {inputs})")
    if b.shape != (outputs, rank):
        raise _misshaped(b, f"({outputs}, {rank})")


def _blocks(source: Source, target: Source) -> Term:
    outputs, inputs = target.shape
    shape = source.shape
    if source.name.endswith(".disha") and len(shape) == 2:
        if shape[0] < 1 or shape[1] != outputs:
            raise _misshaped(source, f"(rank, {outputs})")
        return RepeatedColumns(_factor(source))
    r = shape[-1] if shape else 0
    if r < 1 or inputs % r or outputs % r or shape != (inputs // r, r, r):
        raise _misshaped(source, f"({inputs} / r, r, r), with r a divisor of {outputs} too")
    return BlockProducts(_factor(source))


def _factor(source: Source) -> Factor:
    (view,) = source.parts
    if view.type not in SOURCE_TYPES:
        raise ModelError(
            f"{source.path}: type of tensor {quote(source.name)}, expected bf16, fp16, fp32 or "
            f"fp64, got {view.type}"
        )
    return Factor(source.path, view)


def _misshaped(source: Source, expected: str) -> ModelError:
    return ModelError(
        f"{source.path}: shape of tensor {quote(source.name)}, expected {expected}, "
        f"got {source.shape}"
    )
