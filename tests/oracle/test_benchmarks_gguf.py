"""The GGUF file that the benchmark feeds to llama.cpp, read back by the `gguf` package."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.models import Shape, ranks, write_checkpoint
from benchmarks.safetensors_file import read_safetensors
from benchmarks.write_gguf import write_gguf

TOY = Shape("toy", n_layer=2, n_embd=128, n_vocab=300)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    source, target = folder / "toy.safetensors", folder / "toy.gguf"
    write_checkpoint(TOY, source)
    write_gguf(source, target)
    return source, target


def test_file_has_every_tensor_that_gguf_lists_for_rwkv7(files: tuple[Path, Path]) -> None:
    reader = gguf.GGUFReader(files[1])
    names = {
        name.format(bid=layer) + suffix
        for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.RWKV7]
        for name in [gguf.TENSOR_NAMES[kind]]
        for layer in range(TOY.n_layer)
        for suffix in (".weight", ".bias")
    }
    found = {tensor.name for tensor in reader.tensors}
    assert found <= names
    assert {n for n in names if n.endswith(".weight")} == {n for n in found if n.endswith("weight")}
    assert {n.split(".")[-2] for n in found if n.endswith(".bias")} == {
        "token_embd_norm",
        "output_norm",
        "attn_norm",
        "attn_norm_2",
        "time_mix_ln",
    }


def test_tensors_hold_the_checkpoint(files: tuple[Path, Path]) -> None:
    z = read_safetensors(files[0])
    t = {tensor.name: tensor for tensor in gguf.GGUFReader(files[1]).tensors}

    def same(name: str, value: np.ndarray, half: bool) -> None:
        kind = gguf.GGMLQuantizationType.F16 if half else gguf.GGMLQuantizationType.F32
        assert t[name].tensor_type == kind, name
        assert tuple(t[name].shape) == value.shape[::-1], name  # ggml's order
        np.testing.assert_array_equal(t[name].data.reshape(value.shape), value, err_msg=name)

    same("token_embd.weight", z["emb.weight"], True)
    same("output.weight", z["head.weight"], True)
    same("blk.1.channel_mix_value.weight", z["blocks.1.ffn.value.weight"], True)
    same("blk.1.time_mix_receptance.weight", z["blocks.1.att.receptance.weight"], True)
    same("blk.1.time_mix_w1.weight", z["blocks.1.att.w1"].T, True)
    same("blk.1.time_mix_v2.weight", z["blocks.1.att.v2"].T, True)
    same("blk.0.time_mix_v2.weight", z["blocks.0.att.a2"].T, True)  # filler, never used
    same("blk.1.time_mix_r_k.weight", z["blocks.1.att.r_k"].reshape(-1), False)
    same("blk.1.time_mix_w0.weight", z["blocks.1.att.w0"].reshape(-1), False)
    same("blk.0.time_mix_ln.bias", z["blocks.0.att.ln_x.bias"], False)
    same("blk.0.channel_mix_lerp_k.weight", z["blocks.0.ffn.x_k"].reshape(-1), False)
    mixes = np.stack([z[f"blocks.1.att.x_{c}"] for c in "rwkvag"])
    same("blk.1.time_mix_lerp_fused.weight", mixes.reshape(6, 1, 1, TOY.n_embd), False)


def test_keys_describe_the_model(files: tuple[Path, Path]) -> None:
    reader = gguf.GGUFReader(files[1])

    def value(key: str) -> object:
        field = reader.get_field(key.format(arch="rwkv7"))
        assert field is not None, key
        return field.contents()

    keys = gguf.Keys
    assert value(keys.General.ARCHITECTURE) == "rwkv7"
    assert value(keys.LLM.BLOCK_COUNT) == TOY.n_layer
    assert value(keys.LLM.EMBEDDING_LENGTH) == TOY.n_embd
    assert value(keys.LLM.FEED_FORWARD_LENGTH) == 4 * TOY.n_embd
    assert value(keys.WKV.HEAD_SIZE) == 64
    rank = ranks(TOY.n_embd)
    assert value(keys.Attention.DECAY_LORA_RANK) == rank["w"]
    assert value(keys.Attention.ICLR_LORA_RANK) == rank["a"]
    assert value(keys.Attention.VALUE_RESIDUAL_MIX_LORA_RANK) == rank["v"]
    assert value(keys.Attention.GATE_LORA_RANK) == rank["g"]
    assert value(keys.Tokenizer.MODEL) == "rwkv"
    tokens = value(keys.Tokenizer.LIST)
    assert isinstance(tokens, list)
    assert (len(tokens), tokens[0], tokens[299]) == (300, "<s>", "[PAD299]")
