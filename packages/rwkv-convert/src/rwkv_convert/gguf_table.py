"""llama.cpp's names for the tensors of RWKV-6 and 7, beside those of a model file of ours.

Numbers are the same in both, in the same order; shapes differ in dimensions of size 1 and where
heads are flattened. Three things need more than another name: the mixes of version 6, which GGUF
holds as one tensor; layer 0's v0, v1, v2 of version 7, which llama.cpp wants and does not use; and
matrices that a file of version 6 may hold divided by powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = {"rwkv6": "6", "rwkv7": "7"}
"""`general.architecture` and our name for the version."""

LAYER_NORM_EPSILON = 1e-5

FILE_TYPES = {
    "fp32": 0, "fp16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q4_K": 14,
    "q4_K_M": 15, "q5_K": 16, "q5_K_M": 17, "q6_K": 18, "iq4_nl": 25, "bf16": 32,
}  # fmt: skip
"""`general.file_type` for what a user may ask for, as llama.cpp numbers them."""


@dataclass(frozen=True, slots=True)
class GgufRow:
    """One tensor of a GGUF file.

    Attributes:
        name: in GGUF; `{i}` stands for the layer's number.
        ours: the names of the tensors of a model file of ours that it holds one after the other.
        shape: in GGUF, PyTorch's order, in the letters of tensor_table; "" where it is ours.
        filler: whether it is there for layer 0 only, with the numbers of `ours`, and not used.
        rescaled: whether version 6 may hold it divided by powers of two.
        flattened: whether it is (C) where ours is (H, N).
    """

    name: str
    ours: tuple[str, ...]
    shape: str = ""
    filler: bool = False
    rescaled: bool = False
    flattened: bool = False


def _row(
    name: str, *ours: str, shape: str = "", rescaled: bool = False, flattened: bool = False
) -> GgufRow:
    names = tuple(f"blocks.{{i}}.{n}" for n in ours)
    return GgufRow(f"blk.{{i}}.{name}", names, shape, False, rescaled, flattened)


_MODEL = [
    GgufRow("token_embd.weight", ("emb.weight",)),
    GgufRow("token_embd_norm.weight", ("blocks.0.ln0.weight",)),
    GgufRow("token_embd_norm.bias", ("blocks.0.ln0.bias",)),
    GgufRow("output_norm.weight", ("ln_out.weight",)),
    GgufRow("output_norm.bias", ("ln_out.bias",)),
    GgufRow("output.weight", ("head.weight",)),
]
_EVERY_LAYER = [
    _row("attn_norm.weight", "ln1.weight"),
    _row("attn_norm.bias", "ln1.bias"),
    _row("attn_norm_2.weight", "ln2.weight"),
    _row("attn_norm_2.bias", "ln2.bias"),
    _row("time_mix_receptance.weight", "att.receptance.weight"),
    _row("time_mix_key.weight", "att.key.weight"),
    _row("time_mix_value.weight", "att.value.weight"),
    _row("time_mix_output.weight", "att.output.weight", rescaled=True),
    _row("time_mix_ln.weight", "att.ln_x.weight"),
    _row("time_mix_ln.bias", "att.ln_x.bias"),
    _row("channel_mix_key.weight", "ffn.key.weight"),
    _row("channel_mix_value.weight", "ffn.value.weight", rescaled=True),
]
GGUF_TABLES: dict[str, list[GgufRow]] = {
    "6": [
        *_MODEL,
        *_EVERY_LAYER,
        _row("time_mix_lerp_x.weight", "att.time_maa_x"),
        _row(
            "time_mix_lerp_fused.weight",
            *(f"att.time_maa_{c}" for c in "wkvrg"),
            shape="5 1 1 C",
        ),
        _row("time_mix_w1.weight", "att.time_maa_w1"),
        _row("time_mix_w2.weight", "att.time_maa_w2"),
        _row("time_mix_first.weight", "att.time_faaaa", shape="H N"),
        _row("time_mix_decay.weight", "att.time_decay", shape="C", flattened=True),
        _row("time_mix_decay_w1.weight", "att.time_decay_w1"),
        _row("time_mix_decay_w2.weight", "att.time_decay_w2"),
        _row("time_mix_gate.weight", "att.gate.weight"),
        _row("channel_mix_lerp_k.weight", "ffn.time_maa_k"),
        _row("channel_mix_lerp_r.weight", "ffn.time_maa_r"),
        _row("channel_mix_receptance.weight", "ffn.receptance.weight"),
    ],
    "7": [
        *_MODEL,
        *_EVERY_LAYER,
        _row("time_mix_lerp_fused.weight", "att.x_rwkvag", shape="6 1 1 C"),
        *(_row(f"time_mix_{v}0.weight", f"att.{v}0", shape="C") for v in "wav"),
        *(_row(f"time_mix_{v}{k}.weight", f"att.{v}{k}") for v in "wavg" for k in "12"),
        _row("time_mix_k_k.weight", "att.k_k", shape="C"),
        _row("time_mix_k_a.weight", "att.k_a", shape="C"),
        _row("time_mix_r_k.weight", "att.r_k", shape="C", flattened=True),
        _row("channel_mix_lerp_k.weight", "ffn.x_k", shape="C"),
        *(
            GgufRow(f"blk.0.time_mix_v{k}.weight", (f"blocks.0.att.a{k}",), "C" * (k == "0"), True)
            for k in "012"
        ),
    ],
}
"""By version."""


def gguf_name(name: str, version: str) -> str:
    """llama.cpp's name for a tensor of a model file of ours; the same where it has none."""
    layer = name.split(".")[1] if name.startswith("blocks.") else ""
    in_any_layer = name.replace(f".{layer}.", ".{i}.", 1) if layer else name
    for row in GGUF_TABLES.get(version, ()):
        if row.ours[0] == in_any_layer and not row.filler:
            return row.name.replace("{i}", layer)
    return name
