"""A synthetic checkpoint as an fp16 GGUF file that llama.cpp loads, to feed the peer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from .models import HEAD_SIZE
from .safetensors_file import read_safetensors

LAYER_NORM_EPS = 1e-5
CONTEXT_LENGTH = 1 << 20
END_OF_TURN = 261  # "\n\n" in the World vocabulary

# Official name (without "blocks.N.") -> GGUF name (without "blk.N.").
TOP = {
    "emb.weight": "token_embd.weight",
    "head.weight": "output.weight",
    "ln_out.weight": "output_norm.weight",
    "ln_out.bias": "output_norm.bias",
    "blocks.0.ln0.weight": "token_embd_norm.weight",
    "blocks.0.ln0.bias": "token_embd_norm.bias",
}
PREFIXES = {
    "ln1.": "attn_norm.",
    "ln2.": "attn_norm_2.",
    "att.ln_x.": "time_mix_ln.",
    "ffn.key.": "channel_mix_key.",
    "ffn.value.": "channel_mix_value.",
    "ffn.x_k": "channel_mix_lerp_k.weight",
    "att.": "time_mix_",
}
LOW_RANK = re.compile(r"att\.[wavg][12]")
MIXES = tuple(f"att.x_{c}" for c in "rwkvag")


def gguf_tensors(
    checkpoint: dict[str, NDArray[np.float16]],
) -> Iterator[tuple[str, NDArray[np.float16] | NDArray[np.float32]]]:
    """Names, shapes (numpy's order) and types as in GGUF: matrices fp16, all else fp32."""
    n_embd = checkpoint["emb.weight"].shape[1]
    for name, tensor in checkpoint.items():
        if name in TOP:
            yield TOP[name], tensor if tensor.ndim == 2 else tensor.astype(np.float32)
            continue
        _, layer, rest = name.split(".", 2)
        block = f"blk.{layer}."
        if rest in MIXES:
            if rest == MIXES[0]:
                parts = [checkpoint[f"blocks.{layer}.{mix}"].reshape(1, 1, n_embd) for mix in MIXES]
                fused = np.stack(parts).astype(np.float32)  # (6, 1, 1, C)
                yield block + "time_mix_lerp_fused.weight", fused
            continue
        if LOW_RANK.fullmatch(rest):
            value: NDArray[np.float16] | NDArray[np.float32] = np.ascontiguousarray(tensor.T)
        elif tensor.ndim == 2 and rest != "att.r_k":
            value = tensor
        else:
            value = tensor.astype(np.float32).reshape(-1)
        prefix = next(p for p in PREFIXES if rest.startswith(p))
        new = PREFIXES[prefix] + rest.removeprefix(prefix)
        if not new.endswith((".weight", ".bias")):
            new += ".weight"
        yield block + new, value
        if layer == "0" and rest in ("att.a0", "att.a1", "att.a2"):
            # llama.cpp wants layer 0 to have v0, v1, v2, and never uses them.
            yield block + new.replace("time_mix_a", "time_mix_v"), value


def write_gguf(checkpoint_path: Path, path: Path) -> None:
    """Writes the file; it appears under its name when it is complete."""
    z = read_safetensors(checkpoint_path)
    n_vocab, n_embd = z["emb.weight"].shape
    n_layer = 1 + max(int(name.split(".")[1]) for name in z if name.startswith("blocks."))
    temporary = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.RWKV7])
    writer.add_name(checkpoint_path.stem)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(z["blocks.0.ffn.key.weight"].shape[0])
    writer.add_layer_norm_eps(LAYER_NORM_EPS)
    writer.add_head_count(0)
    writer.add_wkv_head_size(HEAD_SIZE)
    writer.add_decay_lora_rank(z["blocks.0.att.w1"].shape[1])
    writer.add_iclr_lora_rank(z["blocks.0.att.a1"].shape[1])
    writer.add_value_residual_mix_lora_rank(z["blocks.1.att.v1"].shape[1])
    writer.add_gate_lora_rank(z["blocks.0.att.g1"].shape[1])
    # A vocabulary of paddings: the benchmark feeds token ids.
    padding = gguf.TokenType.UNUSED
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(["<s>", *(f"[PAD{i}]" for i in range(1, n_vocab))])
    writer.add_token_types([gguf.TokenType.CONTROL, *[padding] * (n_vocab - 1)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(min(END_OF_TURN, n_vocab - 1))
    for name, value in gguf_tensors(z):
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)
