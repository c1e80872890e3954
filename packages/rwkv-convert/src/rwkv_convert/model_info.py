"""What a file holds: the answer to `rwkv-convert --info FILE`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .containers import open_checkpoint
from .element_types import ElementType
from .gguf_table import FILE_TYPES
from .identify import Model, identify
from .time_state import is_time_state


@dataclass(frozen=True, slots=True)
class TypeUse:
    """How much of a file is stored in one type.

    Attributes:
        tensors: number of tensors.
        parameters: numbers in them.
        bytes: their size.
    """

    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a file holds.

    Attributes:
        path: the file.
        container: `pth (zip)`, `pth (legacy)`, `safetensors`, `ggmf` or `gguf`.
        version: RWKV version: "4", "5.1", "5.2", "6" or "7".
        n_layer: number of layers.
        n_embd: width.
        n_ffn: width of the channel mix.
        n_head: number of heads; None for RWKV-4.
        head_size: width of a head; None for RWKV-4.
        n_vocab: size of the vocabulary.
        parameters: numbers in all tensors together.
        file_bytes: size of the file, of several parts together.
        types: what is stored in which type, by the type's name.
        has_time_state: whether it holds an initial state from state tuning.
        unused: names of tensors that this version does not use.
        name: what a GGUF file calls itself; None where it does not, and elsewhere.
        file_type: what a GGUF file calls its mix of types, None if it does not, or not by a name
            that we know. Where rows do not fit into a type's blocks, `types` shows others.
        n_tokens: tokens in the vocabulary that a GGUF file holds; None if it holds none.
        chat_template: the one in a GGUF file; None if there is none.
    """

    path: str
    container: str
    version: str
    n_layer: int
    n_embd: int
    n_ffn: int
    n_head: int | None
    head_size: int | None
    n_vocab: int
    parameters: int
    file_bytes: int
    types: dict[str, TypeUse]
    has_time_state: bool
    unused: tuple[str, ...]
    name: str | None = None
    file_type: str | None = None
    n_tokens: int | None = None
    chat_template: str | None = None


def info(path: str | os.PathLike[str]) -> ModelInfo:
    """Describes a checkpoint or model file without reading its weights.

    Args:
        path: a `.pth`, `.safetensors`, ggmf `.bin` or `.gguf` file.

    Raises:
        CheckpointError: it cannot be read.
        ModelError: it is no RWKV model.
    """
    checkpoint = open_checkpoint(path)
    return describe(checkpoint, identify(checkpoint))


def describe(checkpoint: Checkpoint, model: Model) -> ModelInfo:
    """Puts together what was found out about a file."""
    tensors = checkpoint.tensors.values()
    tokens = checkpoint.metadata.get("tokenizer.ggml.tokens")
    return ModelInfo(
        path=str(checkpoint.path),
        container=checkpoint.container,
        version=model.version,
        n_layer=model.n_layer,
        n_embd=model.n_embd,
        n_ffn=model.n_ffn,
        n_head=model.n_head,
        head_size=model.n_embd // model.n_head if model.n_head else None,
        n_vocab=model.n_vocab,
        parameters=sum(view.count for view in tensors),
        file_bytes=sum(stamp.size for stamp in checkpoint.files.values()),
        types=count_types((view.type, view.count) for view in tensors),
        has_time_state=any(map(is_time_state, checkpoint.tensors)),
        unused=(*model.unused, *checkpoint.other_entries),
        name=_text(checkpoint, "general.name"),
        file_type=_file_type(checkpoint),
        n_tokens=tokens.count() if tokens is not None else None,
        chat_template=_text(checkpoint, "tokenizer.chat_template"),
    )


def _file_type(checkpoint: Checkpoint) -> str | None:
    value = checkpoint.metadata.get("general.file_type")
    number = value.scalar() if value is not None else None
    return next((name for name, known in FILE_TYPES.items() if known == number), None)


def _text(checkpoint: Checkpoint, key: str) -> str | None:
    value = checkpoint.metadata[key].scalar() if key in checkpoint.metadata else None
    return value if isinstance(value, str) else None


def count_types(tensors: Iterable[tuple[ElementType, int]]) -> dict[str, TypeUse]:
    """Adds up tensors, given as type and number of elements, by type."""
    result: dict[str, TypeUse] = {}
    for type, count in tensors:
        use = result.get(type.name, TypeUse(0, 0, 0))
        result[type.name] = TypeUse(
            use.tensors + 1, use.parameters + count, use.bytes + type.bytes_of(count)
        )
    return result
