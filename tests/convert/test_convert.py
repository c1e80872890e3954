"""`rwkv_convert.convert` against the twin's plain transforms and quantisers, byte by byte."""

import json
import subprocess
import sys

import numpy as np
import pytest

import rwkv_convert
from convert import checkpoint_writers
from convert.checkpoint_writers import (
    rounded,
    views,
    write_legacy_pth,
    write_pth,
    write_safetensors,
)
from convert.make_golden import DTYPES, GOLDEN, digests
from rwkv_convert.quantize import PIECE
from rwkv_convert.tensor_table import TABLES, Change
from twin import block_types, ggmf, synth

QUANTIZED = DTYPES[2:]


def reference(checkpoint, dtype, **options):
    """What the twin writes, with the exponentials rounded as the format says: each to fp32.

    The twin computes exp(-exp(x)) in float64 throughout.
    """
    tensors = ggmf.convert_reference(checkpoint, dtype, **options)
    if "blocks.0.att.ln_x.weight" in checkpoint and "blocks.0.ffn.time_mix_k" in checkpoint:  # v5
        for name in [n for n in tensors if n.endswith(".time_decay")]:
            inner = np.exp(checkpoint[name].astype(np.float64)).astype(np.float32)
            outer = np.exp(-inner.astype(np.float64)).astype(np.float32)
            outer = outer.reshape(*outer.shape, *[1] * (3 - outer.ndim))
            shape = tensors[name].shape
            tensors[name] = block_types.quantize(np.broadcast_to(outer, shape), "fp32")
    return tensors


def expected_file(folder, tensors, dtype):
    ggmf.write(folder / "expected.bin", tensors, dtype)
    return (folder / "expected.bin").read_bytes()


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convert_writes_what_the_twin_writes(tmp_path, version, dtype):
    checkpoint = synth.checkpoint(version, layer0_v=True)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "bf16"))
    summary = rwkv_convert.convert(source, tmp_path / "out.bin", dtype=dtype)
    tensors = reference(rounded(checkpoint, "bf16"), dtype)
    assert (tmp_path / "out.bin").read_bytes() == expected_file(tmp_path, tensors, dtype)
    assert summary.warnings == ()


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convert_in_rwkv_cpp_layout(tmp_path, version, dtype):
    type = "fp32" if version == "7" else "bf16"
    checkpoint = synth.checkpoint(version)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, type))
    rwkv_convert.convert(source, tmp_path / "out.bin", dtype=dtype, layout="rwkv.cpp")
    tensors = reference(rounded(checkpoint, type), dtype, layout="rwkv.cpp")
    assert (tmp_path / "out.bin").read_bytes() == expected_file(tmp_path, tensors, dtype)


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_golden_files(tmp_path, version):
    assert digests(version, tmp_path) == json.loads(GOLDEN.read_text())[version]


@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16"])
def test_every_container_gives_the_same_file(tmp_path, type):
    checkpoint = synth.checkpoint("7")
    sources = [
        write_pth(tmp_path / "zip", views(checkpoint, type)),
        write_legacy_pth(tmp_path / "legacy", views(checkpoint, type)),
        write_safetensors(tmp_path / "safetensors", checkpoint, type),
    ]
    files = []
    for source in sources:
        rwkv_convert.convert(source, tmp_path / "out.bin", dtype="q5_0", force=True)
        files.append((tmp_path / "out.bin").read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_requantising_an_fp32_file_equals_one_step(tmp_path, version, dtype):
    source = write_pth(tmp_path / "in.pth", views(synth.checkpoint(version), "fp16"))
    rwkv_convert.convert(source, tmp_path / "fp32.bin", dtype="fp32")
    rwkv_convert.convert(tmp_path / "fp32.bin", tmp_path / "two.bin", dtype=dtype)
    rwkv_convert.convert(source, tmp_path / "one.bin", dtype=dtype)
    assert (tmp_path / "two.bin").read_bytes() == (tmp_path / "one.bin").read_bytes()


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_requantising_an_fp16_file_in_rwkv_cpp_layout_equals_one_step(tmp_path, version, dtype):
    source = write_pth(tmp_path / "in.pth", views(synth.checkpoint(version), "fp32"))
    rwkv_convert.convert(source, tmp_path / "fp16.bin", dtype="fp16")
    for src, dst in (("fp16.bin", "two.bin"), ("in.pth", "one.bin")):
        rwkv_convert.convert(tmp_path / src, tmp_path / dst, dtype=dtype, layout="rwkv.cpp")
    assert (tmp_path / "two.bin").read_bytes() == (tmp_path / "one.bin").read_bytes()


def test_requantising_in_rwkv_cpp_layout_keeps_the_source_types(tmp_path):
    source = write_pth(tmp_path / "in.pth", views(synth.checkpoint("7"), "fp32"))
    rwkv_convert.convert(source, tmp_path / "fp32.bin", dtype="fp32")
    rwkv_convert.convert(tmp_path / "fp32.bin", tmp_path / "q.bin", dtype="q4_0", layout="rwkv.cpp")
    types = {name: tensor.type for name, tensor in ggmf.read(tmp_path / "q.bin").tensors.items()}
    assert types["emb.weight"] == types["blocks.1.att.w1"] == "fp32"
    assert types["blocks.1.att.key.weight"] == "q4_0"


def test_requantising_widens_fp16_to_fp32(tmp_path, make_pth):
    rwkv_convert.convert(make_pth("6", "fp16"), tmp_path / "a.bin", dtype="fp16")
    rwkv_convert.convert(tmp_path / "a.bin", tmp_path / "b.bin", dtype="fp32")
    rwkv_convert.convert(make_pth("6", "fp16"), tmp_path / "c.bin", dtype="fp32")
    assert (tmp_path / "b.bin").read_bytes() == (tmp_path / "c.bin").read_bytes()


def test_requantising_a_quantised_file_is_refused(tmp_path, make_pth):
    rwkv_convert.convert(make_pth(), tmp_path / "a.bin", dtype="q5_0")
    with pytest.raises(rwkv_convert.ModelError, match="quantising twice"):
        rwkv_convert.convert(tmp_path / "a.bin", tmp_path / "b.bin", dtype="q4_0")


def test_overrides(tmp_path, make_pth):
    rwkv_convert.convert(
        make_pth("6", n_layer=1),
        tmp_path / "a.bin",
        dtype="Q4_1",
        head_dtype="FP16",
        emb_dtype="float32",
        lowrank_dtype="q5_1",
    )
    model = ggmf.read(tmp_path / "a.bin")
    types = {name: tensor.type for name, tensor in model.tensors.items()}
    assert model.type == "q4_1"
    assert types["head.weight"] == "fp16" and types["emb.weight"] == "fp32"
    for name in ("time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2"):
        assert types[f"blocks.0.att.{name}"] == "q5_1"
    assert types["blocks.0.att.key.weight"] == "q4_1"
    assert types["blocks.0.att.time_decay"] == types["blocks.0.ln1.weight"] == "fp32"


def test_rows_that_no_block_fits_into_become_fp16_with_a_warning(tmp_path):
    checkpoint = synth.checkpoint("7", n_layer=1, n_ffn=100, rank=8)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    summary = rwkv_convert.convert(source, tmp_path / "out.bin", dtype="q4_0")
    types = {n: t.type for n, t in ggmf.read(tmp_path / "out.bin").tensors.items()}
    assert types["blocks.0.ffn.value.weight"] == "fp16"  # rows of 100
    assert types["blocks.0.ffn.key.weight"] == "q4_0"  # rows of 128
    assert types["blocks.0.att.w2"] == "fp16" and types["blocks.0.att.w1"] == "q8_0"
    warned = {name for name in types if any(f"'{name}'" in w for w in summary.warnings)}
    assert warned == {"blocks.0.ffn.value.weight", "blocks.0.att.w2", "blocks.0.att.a2"}
    assert all("multiple of 32" in warning for warning in summary.warnings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_warned_about(tmp_path, dtype, bad):
    checkpoint = synth.checkpoint("7", n_layer=1)
    checkpoint["blocks.0.ffn.key.weight"][300, 5] = bad
    checkpoint["blocks.0.ln1.bias"][5] = bad
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "bf16"))
    summary = rwkv_convert.convert(source, tmp_path / "out.bin", dtype=dtype)
    assert len(summary.warnings) == 2
    for name, warning in zip(("ln1.bias", "ffn.key.weight"), summary.warnings, strict=True):
        assert f"'blocks.0.{name}' holds NaN or infinite values" in warning


def test_overflow_to_infinity_is_warned_about(tmp_path):
    checkpoint = synth.checkpoint("4", n_layer=1)
    checkpoint["emb.weight"][3, 3] = 70000
    checkpoint["blocks.0.att.time_decay"][0] = 100  # -exp(100) is beyond fp32
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    summary = rwkv_convert.convert(source, tmp_path / "out.bin", dtype="fp16")
    assert [w.split("tensor ")[1] for w in summary.warnings] == [
        "'emb.weight' holds values too large for fp16, which became infinite",
        "'blocks.0.att.time_decay' holds values too large for fp32, which became infinite",
    ]


def test_unused_tensors_are_left_out_with_a_warning(tmp_path):
    checkpoint = synth.checkpoint("7", n_layer=1)
    extra = {**checkpoint, "blocks.0.att.extra": np.zeros(64, np.float32)}
    rwkv_convert.convert(write_pth(tmp_path / "a", views(checkpoint, "fp32")), tmp_path / "a.bin")
    tensors = {**views(extra, "fp32"), "epoch": b"K\x07"}
    summary = rwkv_convert.convert(write_pth(tmp_path / "b", tensors), tmp_path / "b.bin")
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert ["att.extra' is not used by RWKV-7" in w for w in summary.warnings] == [True, False]
    assert "'epoch' is not used" in summary.warnings[1]


@pytest.mark.parametrize("version", ["6", "7"])
def test_transposed_low_rank_matrices_give_the_same_file(tmp_path, version):
    checkpoint = synth.checkpoint(version, n_layer=2)
    transposed = {
        row.name.replace("{i}", str(layer))
        for row in TABLES[version]
        for layer in range(2)
        if row.change is Change.TRANSPOSE
    }
    other = {n: a.swapaxes(-1, -2) if n in transposed else a for n, a in checkpoint.items()}
    for name, tensors in (("a", checkpoint), ("b", other)):
        write_safetensors(tmp_path / name, tensors, "fp16")
        rwkv_convert.convert(tmp_path / name, tmp_path / f"{name}.bin", dtype="q8_0")
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_joined_vectors_are_in_the_table_s_order(tmp_path):
    """safetensors files often sort their tensors by name."""
    checkpoint = synth.checkpoint("7", n_layer=1)
    write_safetensors(tmp_path / "a.st", dict(sorted(checkpoint.items())), "fp32")
    rwkv_convert.convert(tmp_path / "a.st", tmp_path / "a.bin", dtype="fp32")
    joined = ggmf.read(tmp_path / "a.bin").tensors["blocks.0.att.x_rwkvag"]
    expected = [checkpoint[f"blocks.0.att.x_{c}"].reshape(1, -1) for c in "rwkvag"]
    np.testing.assert_array_equal(joined.data.view("<f4").reshape(6, -1), np.concatenate(expected))


def test_tensors_of_several_pieces(tmp_path):
    """Large enough to be cut, contiguous and transposed; the result must not show it."""
    checkpoint = synth.checkpoint("7", n_layer=1, n_vocab=1000, n_embd=256, rank=512)
    assert checkpoint["blocks.0.att.w1"].size > PIECE
    stored = views(checkpoint, "bf16")
    emb = stored["emb.weight"]  # stored column by column
    emb.data = np.ascontiguousarray(emb.data.reshape(1000, 256).T).reshape(-1)
    emb.strides = (1, 1000)
    source = write_pth(tmp_path / "in.pth", stored)
    tensors = reference(rounded(checkpoint, "bf16"), "q4_1")
    for threads in (1, 3):
        rwkv_convert.convert(
            source, tmp_path / "out.bin", dtype="q4_1", force=True, threads=threads
        )
        assert (tmp_path / "out.bin").read_bytes() == expected_file(tmp_path, tensors, "q4_1")


def test_progress_and_summary(tmp_path, make_pth):
    calls = []
    summary = rwkv_convert.convert(
        make_pth("5.2", "bf16"),
        tmp_path / "out.bin",
        dtype="q4_0",
        progress=lambda done, total: calls.append((done, total)),
    )
    done, total = calls[-1]
    assert done == total == summary.source.parameters * 2
    assert summary.file_bytes == (tmp_path / "out.bin").stat().st_size
    assert (summary.source.version, summary.source.n_layer) == ("5.2", 2)
    assert sum(use.parameters for use in summary.types.values()) == summary.source.parameters
    assert set(summary.types) == {"q8_0", "fp32", "q4_0"}


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_info_of_source_and_result_agree(tmp_path, make_pth, version):
    source = make_pth(version)
    rwkv_convert.convert(source, tmp_path / "out.bin", dtype="q5_1")
    a, b = rwkv_convert.info(source), rwkv_convert.info(tmp_path / "out.bin")
    for field in ("version", "n_layer", "n_embd", "n_ffn", "n_head", "head_size", "n_vocab"):
        assert getattr(a, field) == getattr(b, field)
    assert (a.container, b.container) == ("pth (zip)", "ggmf")
    assert a.types.keys() == {"fp32"} and b.types.keys() == {"fp32", "q5_1", "q8_0"}
    assert a.file_bytes == source.stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "q4_K"}, "dtype: expected one of fp32"),
        ({"head_dtype": ""}, "^head_dtype: expected one of fp32"),
        ({"layout": "gguf"}, "layout: expected one of default, rwkv.cpp, got 'gguf'"),
        (
            {"layout": "rwkv.cpp", "emb_dtype": "fp16"},
            "chooses every type by itself, got emb_dtype= too",
        ),
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"threads": 1.5}, "threads: expected at least 1, got 1.5"),
        ({"dtype": 4}, "dtype: expected one of fp32, .* got 4"),
    ],
)
def test_impossible_options_are_refused(tmp_path, make_pth, options, message):
    with pytest.raises(rwkv_convert.OptionError, match=message):
        rwkv_convert.convert(make_pth(), tmp_path / "out.bin", **options)
    assert not (tmp_path / "out.bin").exists()


def test_integer_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoint_writers.STORAGES, "fp32", "IntStorage")
    source = write_pth(tmp_path / "in.pth", views(synth.checkpoint("4", n_layer=1), "fp32"))
    with pytest.raises(rwkv_convert.ModelError, match="fp32 or fp64, got int32"):
        rwkv_convert.convert(source, tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


def test_torch_is_never_imported(make_pth, tmp_path):
    code = (
        "import sys, rwkv_convert\n"
        f"rwkv_convert.convert({str(make_pth())!r}, {str(tmp_path / 'out.bin')!r}, dtype='q4_0')\n"
        "import rwkv_convert.cli\n"
        "found = {'torch', 'safetensors', 'gguf', 'pickle'} & sys.modules.keys()\n"
        "allowed = {'pickle'}  # numpy imports it; nothing of ours does\n"
        "sys.exit(str(found - allowed) if found - allowed else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
