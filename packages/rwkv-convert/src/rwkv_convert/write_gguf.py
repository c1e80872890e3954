"""GGUF files of RWKV-6 and 7: where everything goes in one, and what it says of the model."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

from .checkpoint import Checkpoint
from .element_types import ElementType
from .errors import ModelError, quote
from .file_plan import FilePlan, PlacedTensor
from .gguf_table import FILE_TYPES, GGUF_TABLES, LAYER_NORM_EPSILON, GgufRow
from .gguf_values import GgufValue, float32, packed, string, uint32
from .gguf_vocabulary import vocabulary_values
from .identify import FileTensor, Model
from .read_gguf import ALIGNMENT, GGUF_MAGIC, GGUF_VERSION
from .time_state import is_time_state

CONTEXT_LENGTH = 1 << 20
"""RWKV has no limit; llama.cpp's own converter says this."""
QUANTIZATION_VERSION = 2
"""Of ggml's block layouts."""


def plan_gguf(
    model: Model,
    checkpoint: Checkpoint,
    dtype: str,
    tokenizer: str | os.PathLike[str] | None,
    type_of: Callable[[FileTensor], ElementType],
) -> FilePlan:
    """Lays out a file.

    Args:
        model: what is written.
        checkpoint: the input; what a GGUF file says of itself is kept.
        dtype: the file's type, as the user named it.
        tokenizer: a vocabulary; by default the input's, or what the vocabulary's size tells.
        type_of: the type of each tensor.

    Raises:
        ModelError: GGUF has no place for such a model.
        OptionError, CheckpointError: no vocabulary is known, or the file with it is damaged.
    """
    _check_model(model, checkpoint)
    tensors = list(_as_gguf(model))
    types = [type_of(tensor) for tensor in tensors]
    quantized = any(type.is_quantized for type in types)
    values = _values(model, checkpoint, dtype, tokenizer, quantized=quantized)

    head = [GGUF_MAGIC + struct.pack("<IQQ", GGUF_VERSION, len(tensors), len(values))]
    for key, value in values.items():
        head += [packed(key.encode()), struct.pack("<I", value.kind), value.raw]
    at = 0
    offsets = []
    for tensor, type in zip(tensors, types, strict=True):
        shape = tensor.shape[::-1]  # the fastest-varying first
        head.append(packed(tensor.name.encode()))
        head.append(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type.gguf, at))
        offsets.append(at)
        at = _aligned(at + type.bytes_of(sum(part.count for part in tensor.parts)))
    header = b"".join(head)
    header += bytes(_aligned(len(header)) - len(header))
    placed: list[PlacedTensor] = []
    end = len(header)
    for tensor, type, offset in zip(tensors, types, offsets, strict=True):
        start = len(header) + offset
        placed.append(PlacedTensor(tensor, type, bytes(start - end), start, through_fp16=False))
        end = start + placed[-1].data_bytes
    return FilePlan(header, tuple(placed), len(header) + at)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _check_model(model: Model, checkpoint: Checkpoint) -> None:
    if model.version not in GGUF_TABLES:
        raise ModelError(
            f"{checkpoint.path}: version, expected {' or '.join(GGUF_TABLES)} for a GGUF file, "
            f"got {model.version}",
            remedy="Try to write a .bin",
        )
    state = next((tensor for tensor in model.tensors if is_time_state(tensor.name)), None)
    if state is not None:
        raise ModelError(
            f"{state.path}: an initial state, expected none for a GGUF file, which has no place "
            f"for one, got {quote(state.name)}",
            remedy="Try to write a .bin",
        )


def _as_gguf(model: Model) -> Iterator[FileTensor]:
    """The tensors under llama.cpp's names and in its shapes, in the order of ours."""
    ours = {tensor.name: tensor for tensor in model.tensors}
    rows: dict[str, list[GgufRow]] = {}
    for row in GGUF_TABLES[model.version]:
        rows.setdefault(row.ours[0], []).append(row)
    for tensor in model.tensors:
        layer = tensor.name.split(".")[1] if tensor.name.startswith("blocks.") else ""
        in_any_layer = tensor.name.replace(f".{layer}.", ".{i}.", 1) if layer else ""
        for template in (tensor.name, in_any_layer):
            for row in rows.get(template, ()):
                parts = [ours[name.replace("{i}", layer)] for name in row.ours]
                yield replace(
                    tensor,
                    name=row.name.replace("{i}", layer),
                    own_name=tensor.name,
                    shape=_shape(row, tensor, model),
                    parts=tuple(view for part in parts for view in part.parts),
                    paths=tuple(path for part in parts for path in part.paths),
                )


def _shape(row: GgufRow, tensor: FileTensor, model: Model) -> tuple[int, ...]:
    if not row.shape:
        return tensor.shape
    heads = model.n_head or 1
    letters = {"C": model.n_embd, "H": heads, "N": model.n_embd // heads}
    return tuple(letters[d] if d in letters else int(d) for d in row.shape.split())


def _values(
    model: Model,
    checkpoint: Checkpoint,
    dtype: str,
    tokenizer: str | os.PathLike[str] | None,
    *,
    quantized: bool,
) -> dict[str, GgufValue]:
    """What the file says beside its tensors."""
    arch = f"rwkv{model.version}"
    values = {
        "general.architecture": string(arch),
        "general.name": string(checkpoint.path.stem),
        "general.file_type": uint32(FILE_TYPES[dtype]),
        f"{arch}.context_length": uint32(CONTEXT_LENGTH),
        f"{arch}.embedding_length": uint32(model.n_embd),
        f"{arch}.block_count": uint32(model.n_layer),
        f"{arch}.feed_forward_length": uint32(model.n_ffn),
        f"{arch}.attention.layer_norm_epsilon": float32(LAYER_NORM_EPSILON),
        f"{arch}.attention.head_count": uint32(0),  # wanted, and not used
        f"{arch}.wkv.head_size": uint32(model.n_embd // (model.n_head or 1)),
    }
    if quantized:
        values["general.quantization_version"] = uint32(QUANTIZATION_VERSION)
    for key, rest, axis in _RANKS[model.version]:
        values[f"{arch}.{key}"] = uint32(_rank(model, checkpoint, rest, axis))
    computed = {*values, "general.alignment"} - {"general.name", f"{arch}.context_length"}
    kept = {
        key: value
        for key, value in checkpoint.metadata.items()
        if key not in computed
        and not key.startswith("split.")
        and key != f"{arch}.rescale_every_n_layers"
        and not (tokenizer is not None and key.startswith("tokenizer."))
    }
    if "tokenizer.ggml.tokens" not in kept:
        values |= vocabulary_values(model.n_vocab, tokenizer)
    return values | kept


# Key, the tensor (of a model file of ours) that shows a rank, and in which dimension.
_RANKS = {
    "6": (
        ("time_mix_extra_dim", "att.time_maa_w2", 2),
        ("time_decay_extra_dim", "att.time_decay_w1", 0),
    ),
    "7": (
        ("attention.decay_lora_rank", "att.w1", 0),
        ("attention.iclr_lora_rank", "att.a1", 0),
        ("attention.value_residual_mix_lora_rank", "att.v1", 0),
        ("attention.gate_lora_rank", "att.g1", 0),
    ),
}


def _rank(model: Model, checkpoint: Checkpoint, rest: str, axis: int) -> int:
    """A rank, which is the same in every layer of a GGUF file."""
    found = {
        tensor.shape[axis] for tensor in model.tensors if tensor.name.split(".", 2)[2:] == [rest]
    }
    if not found:  # a single layer has no v1
        return _rank(model, checkpoint, "att.a1", axis)
    if len(found) > 1:
        raise ModelError(
            f"{checkpoint.path}: rank of {rest!r}, expected one for all layers of a GGUF file, got "
            f"{', '.join(map(str, sorted(found)))}",
            remedy="Try to write a .bin",
        )
    return found.pop()
