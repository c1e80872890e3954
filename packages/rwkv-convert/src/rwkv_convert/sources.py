"""From what a user names to a checkpoint: a file, a folder, one of several shards, or a hub's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from .checkpoint import MAX_TENSORS, Checkpoint
from .containers import open_checkpoint
from .errors import CheckpointError, listing, quote, reason
from .hub import download, is_hub_source
from .input_file import InputFile

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.[a-z]+)")
"""How one of several shards is called: model-00001-of-00004.safetensors."""
MAX_SHARDS = 500
INDEX_END = ".index.json"
MAX_JSON_BYTES = 8 << 20
"""Of an index: a line for each tensor. A config.json has a few kB."""

WHOLE_MODELS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What a model's folder holds, by the names of transformers: the first that exists is read."""
CHECKPOINT_ENDS = (".pth", ".pt", ".bin", ".safetensors", ".st", ".ckpt", ".gguf")


def open_source(source: str | os.PathLike[str], *, quiet: bool = True) -> Checkpoint:
    """Reads the table of contents of what a user names.

    Args:
        source: a file, of several shards any one or their index; a folder with one model; or
            `hf://OWNER/NAME[/FILE][@REVISION]`.
        quiet: show no progress bar if it is fetched.

    Raises:
        CheckpointError: there is none, or it is incomplete or damaged.
    """
    if isinstance(source, str) and is_hub_source(source):
        source = download(source, choose_file, quiet=quiet)
    path = Path(source)
    # os.path, because Path passes on a stat that is not permitted: open_checkpoint says it better.
    if os.fspath(source) and os.path.isdir(path):
        path = path / choose_file(path, [p.name for p in _entries(path)])
    if path.name.endswith(INDEX_END):
        checkpoint = _open_shards(_indexed(path))
    else:
        # A file's own name, not what it links to: a hub's cache holds links to files without names.
        checkpoint = open_checkpoint(path)
        match = SHARD.fullmatch(path.name)
        if match is not None and checkpoint.container != "gguf" and int(match["count"]) > 1:
            checkpoint = _open_shards(_siblings(path, match))
    checkpoint.config = _read_config(path.with_name("config.json"))
    return checkpoint


def choose_file(folder: object, names: Iterable[str]) -> str:
    """The one of a folder's files to read: an index, a whole model, or the first of its shards.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    found = sorted(names)
    for name in WHOLE_MODELS:
        if name in found:
            return name
    choices: dict[str, str] = {}
    for name in found:
        if name.endswith((*CHECKPOINT_ENDS, INDEX_END)):
            match = SHARD.fullmatch(name)
            stem = match["stem"] + match["end"] if match else name.removesuffix(INDEX_END)
            if stem not in choices or name.endswith(INDEX_END):
                choices[stem] = name
    if len(choices) != 1:
        raise CheckpointError(
            f"{folder}: expected a folder with one model, got {listing(list(choices.values()))}",
            remedy="Try the name of a file in it" if choices else "",
        )
    return next(iter(choices.values()))


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if os.path.isfile(path)]
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {reason(error)}") from error


def _siblings(path: Path, match: re.Match[str]) -> list[Path]:
    """All shards, of the name of one."""
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count <= MAX_SHARDS:
        raise CheckpointError(
            f"{path}: shards, expected at most {MAX_SHARDS}, got number {int(match['number'])} of "
            f"{count}"
        )
    return [
        path.with_name(f"{match['stem']}-{number:05}-of-{count:05}{match['end']}")
        for number in range(1, count + 1)
    ]


def _indexed(path: Path) -> list[Path]:
    """All shards of an index."""
    weights = _read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(n, str) for n in weights.values()):
        raise CheckpointError(
            f"{path}: expected an index of shards, with 'weight_map', got something else"
        )
    names = list(dict.fromkeys(weights.values()))
    if not 1 <= len(names) <= MAX_SHARDS:
        raise CheckpointError(f"{path}: shards, expected 1 to {MAX_SHARDS}, got {len(names)}")
    for name in names:
        if name != Path(name).name or "\\" in name or "\0" in name or name in ("", ".", ".."):
            raise CheckpointError(
                f"{path}: a shard, expected the name of a file beside the index, got {quote(name)}"
            )
    return [path.with_name(name) for name in names]


def _open_shards(paths: list[Path]) -> Checkpoint:
    """One checkpoint of several files."""
    missing = [path.name for path in paths if not os.path.exists(path)]
    if missing:
        raise CheckpointError(
            f"{paths[0].parent}: expected {len(paths)} shards, missing {listing(missing)}",
            remedy="Try to download them too",
        )
    whole = open_checkpoint(paths[0])
    for path in paths[1:]:
        part = open_checkpoint(path)
        if part.is_model_file or part.nested or whole.is_model_file or whole.nested:
            raise CheckpointError(
                f"{path}: a shard, expected a .safetensors or .pth file with tensors alone, got "
                f"{'a dict of dicts' if part.nested or whole.nested else part.container}"
            )
        for name, view in part.tensors.items():
            if name in whole.tensors:
                raise CheckpointError(
                    f"{path}: tensor {quote(name)}: expected each name once, "
                    f"got it in {whole.path_of(name).name} too"
                )
            whole.tensors[name] = view
            whole.places[name] = path
        whole.other_entries += part.other_entries
        whole.more_files[path] = part.stamp
        if len(whole.tensors) > MAX_TENSORS:
            raise CheckpointError(f"{path}: expected at most {MAX_TENSORS} tensors, got more")
    return whole


def _read_config(path: Path) -> dict[str, object]:
    """What a config.json says, if there is one and it is of an RWKV model."""
    if not os.path.isfile(path):
        return {}
    try:
        config = _read_json(path)
    except CheckpointError:  # it may be anybody's
        return {}
    named = [config.get("model_type"), config.get("architectures")]
    return config if "rwkv" in str(named).lower() else {}


def _read_json(path: Path) -> dict[str, object]:
    with InputFile(path) as file:
        if file.size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path}: expected at most {MAX_JSON_BYTES} bytes of JSON, got {file.size}"
            )
        text = file.read(0, file.size)
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got something else")
    return value
