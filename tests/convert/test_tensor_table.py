"""The tables against the official names and shapes (twin.synth), and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from convert.checkpoint_writers import encode
from rwkv_convert import ModelError
from rwkv_convert.checkpoint import Checkpoint, TensorView
from rwkv_convert.element_types import FP32
from rwkv_convert.identify import identify
from rwkv_convert.input_file import FileStamp
from rwkv_convert.official_names import find_model
from rwkv_convert.tensor_table import ROLE_TYPES, TABLES, Change, Role, TypeChoice
from rwkv_convert.weight_types import WEIGHT_TYPES
from twin import synth


def model_of(checkpoint):
    """The tensors of a checkpoint without its file."""
    tensors = {n: TensorView.contiguous(FP32, 0, a.shape) for n, a in checkpoint.items()}
    return find_model(Checkpoint(Path("in.pth"), FileStamp(0, 0, 0, 0), "safetensors", tensors))


def test_every_role_has_types():
    assert set(ROLE_TYPES) == set(Role)
    for types in ROLE_TYPES.values():
        assert {types.fp16, types.quantized, types.rwkv_cpp, types.gguf_fp16, types.gguf} <= {
            *WEIGHT_TYPES,
            "asked",
            "head",
        }


@pytest.mark.parametrize("version", TABLES)
def test_table_names_each_tensor_once(version):
    names = [row.name for row in TABLES[version]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("version", TABLES)
def test_table_lists_exactly_the_official_tensors(version):
    names = synth.checkpoint(version, n_layer=2)
    if version != "4":
        names |= synth.time_state(n_layer=2)
    official = {n.replace("blocks.1.", "blocks.{i}.") for n in names}
    official = {n.replace("blocks.0.", "blocks.{i}.") for n in official}
    assert {row.name for row in TABLES[version]} == official


@pytest.mark.parametrize("version", TABLES)
def test_transposed_rows_exchange_the_last_two_dimensions(version):
    for row in TABLES[version]:
        if row.change is Change.TRANSPOSE:
            *rest, rows, columns = row.shape.split()
            assert row.file_shape.split() == [*rest, columns, rows]


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_identify_finds_version_and_dimensions(version, heads):
    checkpoint = synth.checkpoint(version, n_layer=4, n_embd=32 * heads, head_size=32, n_vocab=50)
    model = identify(model_of(checkpoint))
    assert model.version == {"5.1-gate": "5.2"}.get(version, version)
    assert (model.n_layer, model.n_embd, model.n_vocab) == (4, 32 * heads, 50)
    assert model.n_head == (None if version == "4" else heads)
    assert model.n_ffn == checkpoint["blocks.0.ffn.key.weight"].shape[0]
    assert model.unused == ()


def test_identify_calls_gated_per_head_decay_5_2():
    model = identify(model_of(synth.checkpoint("5.1-gate")))
    assert model.version == "5.2"
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    assert shapes["blocks.1.att.time_faaaa"] == shapes["blocks.1.att.time_decay"] == (2, 64, 1)
    assert "blocks.1.att.time_first" not in shapes


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_identify_accepts_vectors_without_size_1_dimensions(version):
    checkpoint = {
        n: a.squeeze() if n != "emb.weight" else a for n, a in synth.checkpoint(version).items()
    }
    shapes = {t.name: t.shape for t in identify(model_of(checkpoint)).tensors}
    official = {t.name: t.shape for t in identify(model_of(synth.checkpoint(version))).tensors}
    assert shapes == official


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_identify_names_every_missing_tensor(version):
    checkpoint = synth.checkpoint(version, n_layer=2)
    for name in checkpoint:
        rest = {n: a for n, a in checkpoint.items() if n != name}
        with pytest.raises(ModelError, match=f"missing '{re.escape(name)}'"):
            identify(model_of(rest))


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_identify_refuses_every_misshaped_tensor(version):
    checkpoint = synth.checkpoint(version, n_layer=2)
    for name, array in checkpoint.items():
        wrong = dict(checkpoint)
        wrong[name] = np.zeros((*array.shape[:-1], array.shape[-1] + 1), np.float32)
        with pytest.raises(ModelError, match=r"shape of tensor|heads, expected"):
            identify(model_of(wrong))


def test_identify_leaves_out_layer_0_v_of_v7():
    model = identify(model_of(synth.checkpoint("7", layer0_v=True)))
    names = {tensor.name for tensor in model.tensors}
    assert "blocks.0.att.v1" not in names and "blocks.1.att.v1" in names
    assert model.unused == ()


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_order_does_not_depend_on_the_checkpoint(version):
    checkpoint = synth.checkpoint(version)
    other = dict(sorted(checkpoint.items(), reverse=True))
    names = [tensor.name for tensor in identify(model_of(checkpoint)).tensors]
    assert [tensor.name for tensor in identify(model_of(other)).tensors] == names
    assert (names[0], names[-1]) == ("emb.weight", "head.weight")


def test_identify_refuses_tensors_of_other_versions():
    checkpoint = {**synth.checkpoint("4"), "blocks.0.att.gate.weight": np.zeros((128, 128))}
    with pytest.raises(ModelError, match=r"of other versions 'blocks\.0\.att\.gate\.weight'"):
        identify(model_of(checkpoint))


def test_identify_needs_v_in_later_layers():
    checkpoint = synth.checkpoint("7", layer0_v=True)
    del checkpoint["blocks.2.att.v1"]
    with pytest.raises(ModelError, match=r"not a whole RWKV-7 model: missing 'blocks\.2\.att\.v1'"):
        identify(model_of(checkpoint))


def test_identify_names_unused_tensors():
    checkpoint = synth.checkpoint("7")
    checkpoint["blocks.1.att.something"] = np.zeros(64, np.float32)
    checkpoint["optimizer.step"] = np.zeros((), np.float32)
    model = identify(model_of(checkpoint))
    assert model.unused == ("blocks.1.att.something", "optimizer.step")


@pytest.mark.parametrize("version", ["6", "7"])
def test_identify_recognises_transposed_low_rank_matrices(version):
    checkpoint = synth.checkpoint(version)
    transposed = {
        row.name.replace("{i}", str(layer))
        for row in TABLES[version]
        for layer in range(3)
        if row.change is Change.TRANSPOSE
    }
    other = {n: a.swapaxes(-1, -2) if n in transposed else a for n, a in checkpoint.items()}
    shapes = [(t.name, t.shape) for t in identify(model_of(other)).tensors]
    assert shapes == [(t.name, t.shape) for t in identify(model_of(checkpoint)).tensors]


def test_identify_refuses_a_mix_of_transposed_and_official():
    checkpoint = synth.checkpoint("7")
    checkpoint["blocks.1.att.w1"] = checkpoint["blocks.1.att.w1"].T
    with pytest.raises(ModelError, match=r"'blocks\.1\.att\.w1'"):
        identify(model_of(checkpoint))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("blocks.0.ffn.s_emb.weight", "DeepEmbed"),
        ("blocks.1.tiny_q.weight", "RWKV-4a"),
        ("blocks.1.att.key.lora_A", "fine-tuning delta"),
    ],
)
def test_identify_refuses_other_architectures(name, what):
    checkpoint = {**synth.checkpoint("7"), name: np.zeros(3, np.float32)}
    with pytest.raises(ModelError, match=what):
        identify(model_of(checkpoint))


def test_identify_lists_what_it_found():
    tensors = {"transformer.wte.weight": np.zeros((3, 3), np.float32)}
    with pytest.raises(ModelError, match=r"found 'transformer\.wte\.weight'; missing") as error:
        identify(model_of(tensors))
    assert "'blocks.0.att.k_k' (7)" in str(error.value)


def test_identify_is_not_fooled_by_a_huge_layer_number():
    checkpoint = {**synth.checkpoint("7"), "blocks.999999999.ln1.weight": np.zeros(3, np.float32)}
    with pytest.raises(ModelError, match="layers, got number 999999999"):
        identify(model_of(checkpoint))


def test_identify_refuses_heads_that_do_not_divide_the_width():
    checkpoint = synth.checkpoint("5.1", n_embd=128)
    for layer in range(3):
        for name in ("time_decay", "time_first"):
            checkpoint[f"blocks.{layer}.att.{name}"] = np.zeros(3, np.float32)
    with pytest.raises(ModelError, match="128 channels to divide into 3 heads"):
        identify(model_of(checkpoint))


Q4, Q8, F16, F32 = (WEIGHT_TYPES[name] for name in ("q4_0", "q8_0", "fp16", "fp32"))
Q6K, BF16 = WEIGHT_TYPES["q6_K"], WEIGHT_TYPES["bf16"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [  # vector, matrix, embedding, head, low rank, decay's, time_ low rank, time_maa_w2
        (TypeChoice(F32, {}), (F32,) * 8),
        (TypeChoice(F16, {}), (F32, F16, F16, F16, F16, F16, F32, F32)),
        (TypeChoice(Q4, {}), (F32, Q4, Q8, Q8, Q8, Q8, Q8, Q8)),
        (TypeChoice(Q4, {}, rwkv_cpp=True), (F32, Q4, F16, F16, F16, F16, Q4, F32)),
        (TypeChoice(F16, {}, gguf=True), (F32, F16, F16, F16, F16, F32, F32, F32)),
        (TypeChoice(BF16, {}, gguf=True), (F32, BF16, BF16, BF16, BF16, F32, F32, F32)),
        (TypeChoice(Q4, {}, gguf=True), (F32, Q4, Q4, Q6K, F16, F32, F32, F32)),
        (TypeChoice(Q8, {}, gguf=True), (F32, Q8, Q8, Q8, F16, F32, F32, F32)),
        (TypeChoice(Q4, {"head_dtype": F16}), (F32, Q4, Q8, F16, Q8, Q8, Q8, Q8)),
        (TypeChoice(Q4, {"emb_dtype": Q4}), (F32, Q4, Q4, Q8, Q8, Q8, Q8, Q8)),
        (TypeChoice(F32, {"lowrank_dtype": F16}), (F32, F32, F32, F32, F16, F16, F16, F16)),
    ],
)
def test_type_choice(choice, expected):
    assert tuple(choice.type_of(role) for role in Role) == expected


def test_encode_of_bf16_rounds_to_nearest_even():
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)
    assert encode(x, "bf16").tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81]
