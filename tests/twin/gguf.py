"""GGUF files as llama.cpp's converter makes them of official checkpoints, in the plainest way.

"GGUF", uint32 version, uint64 number of tensors, uint64 number of values
values:  key, uint32 kind, value       tensors: name, uint32 dimensions, uint64 each (the
fastest-varying first), uint32 type, uint64 offset from the beginning of the data
data:    each tensor padded to multiples of 32 bytes
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .block_types import Floats, Tensor

KINDS = {"fp32": 0, "fp16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}
KINDS |= {"q4_K": 12, "q5_K": 13, "q6_K": 14, "iq4_nl": 20, "bf16": 30}

Value = int | float | str | Sequence[bytes]


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value(value: Value) -> bytes:
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value.encode())
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))


def write(
    path: Path,
    values: Mapping[str, Value],
    tensors: Mapping[str, Tensor],
    *,
    version: int = 3,
    alignment: int = 32,
) -> Path:
    """Writes a file."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(_text(key.encode()) + _value(value) for key, value in values.items())
    data = b""
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        head += _text(name.encode()) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", KINDS[tensor.type], len(data))
        raw = tensor.data.tobytes()
        data += raw + bytes(-len(raw) % alignment)
    path.write_bytes(head + bytes(-len(head) % alignment) + data)
    return path


def values(checkpoint: Mapping[str, Floats], version: str, head_size: int) -> dict[str, Value]:
    """What a file says of a model, without a vocabulary."""
    key = f"rwkv{version}."
    n_vocab, n_embd = checkpoint["emb.weight"].shape
    return {
        "general.architecture": f"rwkv{version}",
        "general.name": "twin",
        key + "embedding_length": n_embd,
        key + "block_count": 1 + max(int(n.split(".")[1]) for n in checkpoint if "blocks." in n),
        key + "feed_forward_length": checkpoint["blocks.0.ffn.key.weight"].shape[0],
        key + "attention.layer_norm_epsilon": 1e-5,
        key + "wkv.head_size": head_size,
        "tokenizer.ggml.model": "rwkv",
        "tokenizer.ggml.tokens": [b"<s>", *(f"[PAD{i}]".encode() for i in range(1, n_vocab))],
        "tokenizer.chat_template": "rwkv-world",
    }


NAMES = {
    "emb.weight": "token_embd.weight",
    "blocks.0.ln0.weight": "token_embd_norm.weight",
    "blocks.0.ln0.bias": "token_embd_norm.bias",
    "ln_out.weight": "output_norm.weight",
    "ln_out.bias": "output_norm.bias",
    "head.weight": "output.weight",
}
PARTS = (
    ("ln1.", "attn_norm."),
    ("ln2.", "attn_norm_2."),
    ("att.ln_x.", "time_mix_ln."),
    ("att.time_maa_w", "time_mix_w"),
    ("att.time_maa_", "time_mix_lerp_"),
    ("att.time_faaaa", "time_mix_first"),
    ("att.time_", "time_mix_"),
    ("att.", "time_mix_"),
    ("ffn.time_maa_", "channel_mix_lerp_"),
    ("ffn.x_k", "channel_mix_lerp_k"),
    ("ffn.", "channel_mix_"),
)
MATRICES = ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2")


def transform(checkpoint: Mapping[str, Floats], rescale_every: int = 0) -> dict[str, Floats]:
    """Official names and shapes -> llama.cpp's, for versions 6 and 7."""
    is_7 = "blocks.0.att.r_k" in checkpoint
    mixes = [f"att.x_{c}" for c in "rwkvag"] if is_7 else [f"att.time_maa_{c}" for c in "wkvrg"]
    out: dict[str, Floats] = {}
    for name, x in checkpoint.items():
        if name in NAMES:
            out[NAMES[name]] = x
            continue
        _, layer, rest = name.split(".", 2)
        if rest in mixes:
            fused = np.stack([checkpoint[f"blocks.{layer}.{m}"].reshape(1, 1, -1) for m in mixes])
            out[f"blk.{layer}.time_mix_lerp_fused.weight"] = fused
            continue
        if layer == "0" and rest in ("att.v0", "att.v1", "att.v2"):
            continue
        if rest.startswith(("att.", "ffn.")) and x.ndim == 3 and x.shape[:2] == (1, 1):
            x = x.reshape(-1)
        if rest.endswith(MATRICES):
            x = np.ascontiguousarray(x.swapaxes(-1, -2))
        if rest == "att.r_k":
            x = x.reshape(-1)
        if rescale_every and rest in ("att.output.weight", "ffn.value.weight"):
            x = x / np.float32(2 ** (int(layer) // rescale_every))
        begin, new = next(pair for pair in PARTS if rest.startswith(pair[0]))
        new += rest.removeprefix(begin)
        new = f"blk.{layer}.{new}" + ("" if new.endswith((".weight", ".bias")) else ".weight")
        out[new] = x
        if is_7 and layer == "0" and rest in ("att.a0", "att.a1", "att.a2"):
            out[new.replace("time_mix_a", "time_mix_v")] = x
    return out
