"""ggmf `.bin` files: a reader, a writer, and the converter's transforms in the plainest way.

    header   6 x int32: magic 0x67676d66, version, n_vocab, n_embed, n_layer, data_type
    tensors  until the end of the file, each:
             int32 number of dimensions, int32 length of the name, int32 data_type
             int32 dimensions[], the fastest-varying first: PyTorch's shape reversed
             the name in UTF-8, the data

All little-endian, nothing aligned. For good files only: this reader trusts what it reads.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from .block_types import BLOCK_TYPES, QK, Bytes, Floats, Tensor, quantize, row_bytes

MAGIC = 0x67676D66
VERSION = 101
DATA_TYPES = {"fp32": 0, "fp16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 7, "q5_1": 8, "q8_0": 9}
_TYPE_NAMES = {number: name for name, number in DATA_TYPES.items()}


@dataclass(frozen=True)
class ModelFile:
    """A file's header and tensors, in the file's order."""

    version: int
    n_vocab: int
    n_embed: int
    n_layer: int
    type: str  # of most matrices
    tensors: dict[str, Tensor]


def read(path: Path | str) -> ModelFile:
    """Reads a whole file into memory."""
    data = np.fromfile(path, dtype=np.uint8)
    at = 0

    def ints(count: int) -> tuple[int, ...]:
        nonlocal at
        at += 4 * count
        return struct.unpack(f"<{count}i", data[at - 4 * count : at].tobytes())

    def take(size: int) -> Bytes:
        nonlocal at
        at += size
        if at > len(data):
            raise ValueError(f"{path}: expected at least {at} bytes, got {len(data)}")
        return data[at - size : at]

    magic, version, n_vocab, n_embed, n_layer, data_type = ints(6)
    if magic != MAGIC or version not in (100, 101):
        raise ValueError(f"{path}: expected a ggmf file, got magic {magic:#x}, version {version}")
    tensors: dict[str, Tensor] = {}
    while at < len(data):
        n_dims, name_length, number = ints(3)
        shape = ints(n_dims)[::-1]
        name = bytes(take(name_length)).decode()
        type_name = _TYPE_NAMES[number]
        size = prod(shape[:-1]) * row_bytes(type_name, shape[-1])
        tensors[name] = Tensor(type_name, shape, take(size))
    return ModelFile(version, n_vocab, n_embed, n_layer, _TYPE_NAMES[data_type], tensors)


def write(path: Path | str, tensors: Mapping[str, Tensor], type: str = "fp32") -> None:
    """Writes tensors in the mapping's order; `type` is the header's data_type."""
    n_vocab, n_embed = tensors["emb.weight"].shape
    n_layer = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("blocks."))
    with open(path, "wb") as file:
        file.write(struct.pack("<6i", MAGIC, VERSION, n_vocab, n_embed, n_layer, DATA_TYPES[type]))
        for name, tensor in tensors.items():
            key = name.encode()
            file.write(struct.pack("<3i", len(tensor.shape), len(key), DATA_TYPES[tensor.type]))
            file.write(struct.pack(f"<{len(tensor.shape)}i", *tensor.shape[::-1]))
            file.write(key)
            file.write(tensor.data.tobytes())


# --------------------------------------------------------------------------------------------------
# From an official checkpoint to a file's tensors

LOW_RANK = re.compile(r"att\.([wavg][12]|time_maa_w[12]|time_decay_w[12])$")


UNUSED = {"blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"}
"""Some version 7 checkpoints have them; nothing reads them."""


def transform(checkpoint: Mapping[str, Floats]) -> dict[str, Floats]:
    """The converter's transforms: official names, shapes and meaning -> the file's, in fp32."""
    version = _checkpoint_version(checkpoint)
    n_embed = checkpoint["emb.weight"].shape[1]
    out: dict[str, Floats] = {}
    for name, tensor in checkpoint.items():
        block, _, parameter = name.rpartition("att.")  # "blocks.N.", "att.", "key.weight"
        x = np.asarray(tensor, dtype=np.float64)  # exp must be taken in float64

        if parameter == "time_state":
            pass  # our extension: (heads, N, N), as it is

        elif version == "7":
            if block and parameter in ("x_w", "x_k", "x_v", "x_a", "x_g"):
                continue  # joined where x_r stands
            if block and parameter == "x_r":
                name = f"{block}att.x_rwkvag"
                x = np.concatenate([checkpoint[f"{block}att.x_{c}"] for c in "rwkvag"])
            elif LOW_RANK.search(name):
                x = x.T

        elif version == "6":
            if parameter == "time_faaaa":
                x = x[..., None]
            elif parameter == "time_decay":
                heads = checkpoint[f"{block}att.time_faaaa"].shape[0]
                x = x.reshape(heads, n_embed // heads, 1)
            elif parameter == "time_maa_w2":
                x = x.transpose(0, 2, 1)
            elif LOW_RANK.search(name):
                x = x.T
            elif ".time_" in name:
                x = x.squeeze()

        elif version == "5.2":
            if parameter == "time_decay":
                x = np.exp(-np.exp(x))[..., None]
            elif parameter == "time_faaaa":
                x = x[..., None]
            elif ".time_" in name:
                x = x.squeeze()

        elif version in ("5.1", "5.1-gate"):
            if parameter in ("time_decay", "time_first"):
                x = np.exp(-np.exp(x)) if parameter == "time_decay" else np.exp(x)
                x = x.reshape(-1, 1, 1)
                if version == "5.1-gate":  # every channel of a head gets the head's value
                    x = np.repeat(x, n_embed // len(x), axis=1)
                    name = name.replace("time_first", "time_faaaa")
            elif ".time_" in name:
                x = x.squeeze()

        elif version == "4":
            if parameter == "time_decay":
                x = -np.exp(x)
            if ".time_" in name:
                x = x.squeeze()

        out[name] = x.astype(np.float32)
    return out


# In this order the tensors of a layer stand in a file, whatever the version.
LAYER_ORDER = [
    "ln0.weight",
    "ln0.bias",
    "ln1.weight",
    "ln1.bias",
    "ln2.weight",
    "ln2.bias",
    "att.time_mix_k",
    "att.time_mix_v",
    "att.time_mix_r",
    "att.time_mix_g",
    "att.time_maa_x",
    "att.time_maa_w",
    "att.time_maa_k",
    "att.time_maa_v",
    "att.time_maa_r",
    "att.time_maa_g",
    "att.time_maa_w1",
    "att.time_maa_w2",
    "att.x_rwkvag",
    "att.time_decay",
    "att.time_decay_w1",
    "att.time_decay_w2",
    "att.time_first",
    "att.time_faaaa",
    "att.w0",
    "att.w1",
    "att.w2",
    "att.a0",
    "att.a1",
    "att.a2",
    "att.v0",
    "att.v1",
    "att.v2",
    "att.g1",
    "att.g2",
    "att.k_k",
    "att.k_a",
    "att.r_k",
    "att.receptance.weight",
    "att.key.weight",
    "att.value.weight",
    "att.gate.weight",
    "att.output.weight",
    "att.ln_x.weight",
    "att.ln_x.bias",
    "ffn.time_mix_k",
    "ffn.time_mix_r",
    "ffn.time_maa_k",
    "ffn.time_maa_r",
    "ffn.x_k",
    "ffn.key.weight",
    "ffn.value.weight",
    "ffn.receptance.weight",
    "att.time_state",
]


def _place(name: str) -> tuple[int, ...]:
    """Sorts the names of tensors: the embedding, layer after layer, the final norm, the head."""
    if not name.startswith("blocks."):
        last = ["ln_out.weight", "ln_out.bias", "head.weight"]
        return (2, last.index(name)) if name in last else (0,)
    _, layer, rest = name.split(".", 2)
    return 1, int(layer), LAYER_ORDER.index(rest)


def _checkpoint_version(checkpoint: Mapping[str, Floats]) -> str:
    first = {n.removeprefix("blocks.0.att.") for n in checkpoint if n.startswith("blocks.0.att.")}
    if "r_k" in first:
        return "7"
    if "time_maa_x" in first:
        return "6"
    if "ln_x.weight" not in first:
        return "4"
    if "gate.weight" not in first:
        return "5.1"
    return "5.2" if checkpoint["blocks.0.att.time_decay"].ndim > 1 else "5.1-gate"


def _stays_fp32(name: str, array: Floats) -> bool:
    """In an fp32 or fp16 file: all but matrices, everything named .time_, and v7's r_k."""
    return array.ndim != 2 or ".time_" in name or name.endswith(".r_k")


def convert_reference(
    checkpoint: Mapping[str, Floats],
    type: str = "fp32",
    *,
    head: str = "q8_0",
    emb: str = "q8_0",
    low_rank: str = "q8_0",
    layout: str = "default",
) -> dict[str, Tensor]:
    """What the converter writes for a checkpoint of official names, as a dict for `write`.

    head, emb, low_rank: those matrices' types in a quantised file.
    layout="rwkv.cpp": the choice of rwkv.cpp's converter to FP16 followed by its quantiser.
    """
    tensors: dict[str, Tensor] = {}
    for name, array in sorted(transform(checkpoint).items(), key=lambda item: _place(item[0])):
        if name in UNUSED:
            continue
        float_type = "fp32" if _stays_fp32(name, array) or type == "fp32" else "fp16"
        chosen = float_type
        is_low_rank = LOW_RANK.search(name) is not None
        if type in BLOCK_TYPES:
            if layout == "rwkv.cpp":
                v7_low_rank = is_low_rank and ".time_" not in name
                kept = name in ("emb.weight", "head.weight") or v7_low_rank or name.endswith("r_k")
                if array.ndim == 2 and not kept:
                    chosen = type
                if float_type == "fp16":  # quantised from the FP16 file
                    array = array.astype(np.float16).astype(np.float32)
            elif name == "head.weight":
                chosen = head
            elif name == "emb.weight":
                chosen = emb
            elif is_low_rank:
                chosen = low_rank
            elif array.ndim == 2 and float_type == "fp16":
                chosen = type
            if chosen in BLOCK_TYPES and array.shape[-1] % QK:
                chosen = "fp16"
        tensors[name] = quantize(array, chosen)
    return tensors
