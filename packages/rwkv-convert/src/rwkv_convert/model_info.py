"""What a file holds: the answer to `rwkv-convert --info FILE`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .checkpoint import Checkpoint
from .element_types import ElementType
from .errors import listing, quote
from .fused_embedding import check_embedding
from .gguf_table import FILE_TYPES
from .identify import Model, identify
from .model_config import heed_config
from .official_names import ModelTensors, find_model
from .sources import open_source
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
        path: the file, of several the first.
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
        unused: names of tensors that this version does not use, and of what else there is.
        name: what a GGUF file calls itself; None where it does not, and elsewhere.
        file_type: what a GGUF file calls its mix of types, None if it does not, or not by a name
            that we know. Where rows do not fit into a type's blocks, `types` shows others.
        n_tokens: tokens in the vocabulary that a GGUF file holds; None if it holds none.
        chat_template: the one in a GGUF file; None if there is none.
        layout: how its tensors are named and stored: `official names`, `fla RWKV-7` and so on.
        key: path of the dict that holds the model, and prefix of its names; "" if there is neither.
        n_files: number of files.
        tensors: the type of each tensor, by its name in the file.
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
    layout: str = ""
    key: str = ""
    n_files: int = 1
    tensors: dict[str, str] = field(default_factory=dict)


def info(
    path: str | os.PathLike[str], *, key: str | None = None, ignore: Sequence[str] = ()
) -> ModelInfo:
    """Describes a checkpoint or model file without reading its weights, but for a norm's.

    Args:
        path: a checkpoint or model file, a folder, or a hub's model, as for `convert`.
        key: of several models in it, the path or the prefix of one.
        ignore: names of tensors to leave out; `*` stands for anything.

    Raises:
        CheckpointError: it cannot be read.
        ModelError: it is no RWKV model.
    """
    found = find_model(open_source(path), key, tuple(ignore))
    heed_config(found)
    model = identify(found)
    check_embedding(found)
    return describe(found, model)


def describe(found: ModelTensors, model: Model) -> ModelInfo:
    """Puts together what was found out about a model."""
    checkpoint = found.checkpoint
    # The file's tensors: one of them may hold several of the model.
    group = checkpoint.groups[found.group]
    tensors = {name: view for name, view in group.items() if name not in found.ignored}
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
        parameters=sum(view.count for view in tensors.values()),
        file_bytes=sum(stamp.size for stamp in checkpoint.files.values()),
        types=count_types((view.type, view.count) for view in tensors.values()),
        has_time_state=any(map(is_time_state, found.tensors)),
        unused=(*model.unused, *other_entries(found)),
        name=_text(checkpoint, "general.name"),
        file_type=_file_type(checkpoint),
        n_tokens=tokens.count() if tokens is not None else None,
        chat_template=_text(checkpoint, "tokenizer.chat_template"),
        layout=found.layout,
        key=found.key,
        n_files=len(checkpoint.files),
        tensors={name: view.type.name for name, view in tensors.items()},
    )


def understood(found: ModelTensors) -> tuple[str, ...]:
    """What was understood of an input that is not simply a file with the official names."""
    n_files = len(found.checkpoint.files)
    facts = [
        f"layout: {found.layout}" if found.renamed else "",
        f"{n_files} shards" if n_files > 1 else "",
        f"in {quote(found.key)}" if found.group or (found.key and not found.renamed) else "",
    ]
    notes = [", ".join(fact for fact in facts if fact)]
    if found.beside:
        notes.append(f"passed over: {listing(found.beside)}")
    if found.ignored:
        notes.append(f"ignored: {listing(found.ignored)}")
    notes += found.merged
    return tuple(note for note in notes if note)


def other_entries(found: ModelTensors) -> list[str]:
    """Entries beside the model's tensors, in their own dict, that are no tensors."""
    return [] if found.group else found.checkpoint.other_entries


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
