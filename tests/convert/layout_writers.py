"""The names that others give a model's tensors, written down once more: official to theirs.

`LAYOUTS[name](checkpoint)` gives what such a program would save. Nothing here comes from the
converter's tables, whose judge it is.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Checkpoint = dict[str, Array]


def renamed(checkpoint: Mapping[str, Array], *rules: tuple[str, str]) -> Checkpoint:
    """Every name with all rules applied, regular expressions and what replaces them."""
    result = {}
    for name, array in checkpoint.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = array
    return result


def flat(array: Array) -> Array:
    """(1, 1, C) as (C,)."""
    return array.reshape(-1) if array.ndim == 3 and array.shape[:2] == (1, 1) else array


def prefixed(prefix: str, *but: str) -> Callable[[Mapping[str, Array]], Checkpoint]:
    return lambda c: {n if n in but else prefix + n: a for n, a in c.items()}


def fla_7(checkpoint: Mapping[str, Array]) -> Checkpoint:
    layers: Checkpoint = {}
    for name, array in checkpoint.items():
        if (match := re.fullmatch(r"(blocks\.\d+\.att\.)([wavg])([012])", name)) is None:
            layers[name] = array if ".att.x_" in name else flat(array)
        else:
            place = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}[match[3]]
            theirs = flat(array) if match[3] == "0" else np.ascontiguousarray(array.T)
            layers[f"{match[1]}{match[2]}_lora.lora.{place}"] = theirs
    return renamed(
        layers,
        (r"^emb\.", "model.embeddings."),
        (r"^head\.", "lm_head."),
        (r"^ln_out\.", "model.norm."),
        (r"^blocks\.", "model.layers."),
        (r"\.ln0\.", ".pre_norm."),
        (r"\.ln1\.", ".attn_norm."),
        (r"\.ln2\.", ".ffn_norm."),
        (r"\.att\.", ".attn."),
        (r"attn\.receptance\.", "attn.r_proj."),
        (r"attn\.key\.", "attn.k_proj."),
        (r"attn\.value\.", "attn.v_proj."),
        (r"attn\.output\.", "attn.o_proj."),
        (r"attn\.ln_x\.", "attn.g_norm."),
    )


def fla_7_stacked(checkpoint: Mapping[str, Array]) -> Checkpoint:
    """As fla saved it in 2024: the six mixes in one tensor."""
    result = fla_7(checkpoint)
    for layer in range(1 + max(int(n.split(".")[2]) for n in result if ".layers." in n)):
        attn = f"model.layers.{layer}.attn."
        result[attn + "x_x"] = np.stack([result.pop(f"{attn}x_{c}") for c in "rwkvag"])
    return result


def vllm_7(checkpoint: Mapping[str, Array]) -> Checkpoint:
    return renamed(fla_7(checkpoint), (r"\.embeddings\.", ".embed_tokens."))


def rwkv_rs(checkpoint: Mapping[str, Array]) -> Checkpoint:
    return renamed(
        {n: flat(a) for n, a in checkpoint.items() if not re.match(r"blocks\.0\.att\.v\d", n)},
        (r"^emb\.", "model.embed_tokens."),
        (r"^head\.", "lm_head."),
        (r"^ln_out\.", "model.norm."),
        (r"^blocks\.0\.ln0\.", "model.embedding_norm."),
        (r"^blocks\.", "model.layers."),
        (r"\.ln1\.", ".input_layernorm."),
        (r"\.ln2\.", ".post_attention_layernorm."),
        (r"\.att\.", ".linear_attn."),
        (r"\.ffn\.", ".mlp."),
        (r"linear_attn\.receptance\.", "linear_attn.r_proj."),
        (r"linear_attn\.key\.", "linear_attn.k_proj."),
        (r"linear_attn\.value\.", "linear_attn.v_proj."),
        (r"linear_attn\.output\.", "linear_attn.o_proj."),
        (r"linear_attn\.ln_x\.", "linear_attn.g_norm."),
    )


def fla_6(checkpoint: Mapping[str, Array]) -> Checkpoint:
    result: Checkpoint = {}
    for name, array in checkpoint.items():
        if not name.startswith("blocks."):
            result[name] = array
            continue
        _, layer, rest = name.split(".", 2)
        attn, ffn = f"model.layers.{layer}.attn.", f"model.layers.{layer}.ffn."
        if rest == "att.time_maa_w1":
            w, k, v, r, g = np.split(array, 5, axis=1)
            theirs = np.concatenate([r, w, k, v, g], axis=1).T
            result[attn + "x_proj.0.linear.weight"] = np.ascontiguousarray(theirs)
        elif rest == "att.time_maa_w2":
            w, k, v, r, g = array
            theirs = np.concatenate([r, w, k, v, g], axis=0).T
            result[attn + "x_proj.2.weight"] = np.ascontiguousarray(theirs)
        elif rest == "att.time_maa_x":
            result[attn + "x_proj.0.mu"] = flat(array)
        elif rest == "att.time_maa_r":
            result[attn + "x_bias"] = np.stack(
                [flat(checkpoint[name[:-1] + letter]) for letter in "rwkvg"]
            )
        elif re.fullmatch(r"att\.time_maa_[wkvg]", rest):
            continue
        elif rest in ("att.time_decay_w1", "att.time_decay_w2"):
            place = "0" if rest.endswith("1") else "2"
            result[f"{attn}w_proj.linear.lora.{place}.weight"] = np.ascontiguousarray(array.T)
        elif rest == "att.time_decay":
            result[attn + "w_proj.linear.lora.2.bias"] = flat(array)
        elif rest == "att.time_faaaa":
            result[attn + "bonus"] = array
        elif rest.startswith("ffn.time_maa_"):
            result[ffn + {"k": "key.mu", "r": "receptance.mu"}[rest[-1]]] = flat(array)
        else:
            result[name] = array
    return renamed(
        result,
        (r"^emb\.", "model.embeddings."),
        (r"^head\.", "lm_head."),
        (r"^ln_out\.", "model.norm."),
        (r"^blocks\.", "model.layers."),
        (r"\.ln0\.", ".pre_norm."),
        (r"\.ln1\.", ".attn_norm."),
        (r"\.ln2\.", ".ffn_norm."),
        (r"\.att\.receptance\.", ".attn.r_proj.linear."),
        (r"\.att\.key\.", ".attn.k_proj.linear."),
        (r"\.att\.value\.", ".attn.v_proj.linear."),
        (r"\.att\.gate\.", ".attn.g_proj.linear."),
        (r"\.att\.output\.", ".attn.o_proj."),
        (r"\.att\.ln_x\.", ".attn.g_norm."),
        (r"\.ffn\.(key|receptance)\.weight", r".ffn.\1.linear.weight"),
    )


def transformers(checkpoint: Mapping[str, Array]) -> Checkpoint:
    words = {"k": "key", "v": "value", "r": "receptance", "g": "gate"}
    return renamed(
        checkpoint,
        (r"^emb\.", "embeddings."),
        (r"^blocks\.0\.ln0\.", "blocks.0.pre_ln."),
        (r"\.att\.", ".attention."),
        (r"\.ffn\.", ".feed_forward."),
        *((f"time_mix_{letter}$", f"time_mix_{word}") for letter, word in words.items()),
        (r"^(?!head)", "rwkv."),
    )


Writer = Callable[[Mapping[str, Array]], Checkpoint]

LAYOUTS: dict[str, tuple[tuple[str, ...], Writer, str]] = {
    "fla RWKV-7": (("7",), fla_7, "fla RWKV-7"),
    "fla RWKV-7 of 2024": (("7",), fla_7_stacked, "fla RWKV-7"),
    "vLLM RWKV-7": (("7",), vllm_7, "fla RWKV-7"),
    "fla RWKV-6": (("6",), fla_6, "fla RWKV-6"),
    "rwkv-rs, by transformers": (("7",), rwkv_rs, "rwkv-rs RWKV-7"),
    "rwkv-rs, plain": (("7",), prefixed("model.", "head.weight"), "official names"),
    "transformers RWKV-7": (("7",), prefixed("rwkv7.", "head.weight"), "official names"),
    "transformers": (("4", "5.1-gate", "5.2", "6", "7"), transformers, "transformers"),
}
"""By name: for which versions, how it is written, and what the converter calls it."""

EVERY = [(name, version) for name, (versions, *_) in LAYOUTS.items() for version in versions]
