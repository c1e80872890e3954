"""GGUF files of ours: what is in them, and that nothing is lost on the way there and back."""

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import rounded, views, write_pth
from rwkv_convert import CheckpointError, ModelError, OptionError
from rwkv_convert.cli import main
from rwkv_convert.containers import open_checkpoint
from twin import gguf, synth
from twin.block_types import quantize

SIZES = {"n_layer": 2, "n_embd": 128, "head_size": 64, "n_vocab": 256}


def source(folder, version="7", type="fp32", **options):
    checkpoint = synth.checkpoint(version, **{**SIZES, **options})
    return write_pth(folder / "in.pth", views(checkpoint, type))


def convert(src, dst, **options):
    rwkv_convert.convert(src, dst, force=True, threads=1, **options)
    return dst.read_bytes()


def listed(path):
    """A file's tensors by GGUF's names, through the reader: offset, type, shape."""
    from rwkv_convert import read_gguf
    from rwkv_convert.input_file import InputFile

    with InputFile(path) as file:
        return read_gguf.read_part(file)


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("type", ["fp32", "bf16"])
def test_tensors_are_those_of_llama_cpp(tmp_path, version, type):
    data = convert(source(tmp_path, version, type), tmp_path / "a.gguf", dtype="fp32")
    part = listed(tmp_path / "a.gguf")
    expected = gguf.transform(rounded(synth.checkpoint(version, **SIZES), type))
    assert set(part.tensors) == set(expected)
    for name, view in part.tensors.items():
        assert view.shape == expected[name].shape and view.offset % 32 == 0
        x = np.frombuffer(data, "<f4", view.count, view.offset).reshape(view.shape)
        np.testing.assert_array_equal(x, expected[name], err_msg=name)


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("type", ["fp32", "fp16"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q8_0"])
def test_nothing_is_lost_on_the_way_to_bin(tmp_path, version, type, dtype):
    src = source(tmp_path, version, type)
    through = "fp32" if type == "fp32" else "fp16"
    convert(src, tmp_path / "a.gguf", dtype=through)
    assert convert(tmp_path / "a.gguf", tmp_path / "a.bin", dtype=dtype) == convert(
        src, tmp_path / "b.bin", dtype=dtype
    )


@pytest.mark.parametrize("version", ["6", "7"])
def test_every_way_to_gguf_gives_the_same_file(tmp_path, version):
    src = source(tmp_path, version)
    direct = convert(src, tmp_path / "in.gguf", dtype="q5_1")
    convert(src, tmp_path / "in.bin", dtype="fp32")
    assert convert(tmp_path / "in.bin", tmp_path / "b.gguf", dtype="q5_1") == direct
    (tmp_path / "2").mkdir()
    convert(src, tmp_path / "2/in.gguf", dtype="fp32")
    assert convert(tmp_path / "2/in.gguf", tmp_path / "c.gguf", dtype="q5_1") == direct
    assert convert(tmp_path / "c.gguf", tmp_path / "d.gguf", dtype="q5_1") == direct  # copied


def test_types_follow_llama_cpp(tmp_path):
    convert(source(tmp_path), tmp_path / "a.gguf", dtype="q4_0")
    types = {n: v.type.name for n, v in listed(tmp_path / "a.gguf").tensors.items()}
    assert types["blk.1.channel_mix_key.weight"] == types["token_embd.weight"] == "q4_0"
    assert types["output.weight"] == "q8_0"
    assert types["blk.1.time_mix_g1.weight"] == types["blk.1.time_mix_a2.weight"] == "fp16"
    assert types["blk.1.time_mix_w1.weight"] == types["blk.1.time_mix_lerp_fused.weight"] == "fp32"
    assert types["blk.0.time_mix_v1.weight"] == "fp16"
    convert(source(tmp_path), tmp_path / "a.gguf", dtype="q4_0", lowrank_dtype="q8_0")
    types = {n: v.type.name for n, v in listed(tmp_path / "a.gguf").tensors.items()}
    assert types["blk.1.time_mix_g1.weight"] == types["blk.1.time_mix_w1.weight"] == "q8_0"


def types_in(path):
    return {name: view.type.name for name, view in listed(path).tensors.items()}


@pytest.mark.parametrize("dtype", ["q4_K", "q4_K_M", "q5_K", "q5_K_M", "q6_K", "iq4_nl", "bf16"])
def test_types_that_only_gguf_has(tmp_path, dtype):
    src = source(tmp_path, n_embd=256)
    convert(src, tmp_path / "a.gguf", dtype=dtype.upper())
    types = types_in(tmp_path / "a.gguf")
    assert types["blk.1.channel_mix_key.weight"] == dtype.removesuffix("_M")
    assert types["token_embd.weight"] == dtype.removesuffix("_M")
    assert types["output.weight"] == ("bf16" if dtype == "bf16" else "q6_K")
    assert types["blk.1.time_mix_a1.weight"] == ("bf16" if dtype == "bf16" else "fp16")
    assert rwkv_convert.info(tmp_path / "a.gguf").file_type == dtype
    with pytest.raises(
        OptionError,
        match=f"dtype: expected one of fp32, fp16, q4_0, .*, q8_0 for a ggmf file, got {dtype}",
    ):
        convert(src, tmp_path / "a.bin", dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "instead"), [("q4_K", "q5_0"), ("q5_K", "q5_1"), ("q6_K", "q8_0"), ("q4_0", "q4_0")]
)
def test_rows_that_are_no_super_blocks(tmp_path, dtype, instead, capsys):
    checkpoint = synth.checkpoint("7", **{**SIZES, "n_embd": 128, "n_ffn": 512})
    src = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    summary = rwkv_convert.convert(src, tmp_path / "a.gguf", dtype=dtype)
    types = types_in(tmp_path / "a.gguf")
    assert types["blk.1.channel_mix_key.weight"] == instead  # rows of 128
    assert types["blk.1.channel_mix_value.weight"] == dtype  # rows of 512
    told = "is written as q8_0: its rows of 128 are no multiple of 256, which q6_K needs"
    assert any(f"'output.weight' {told}" in warning for warning in summary.warnings)
    assert main(["--info", str(tmp_path / "a.gguf")]) == 0
    line = f"  file type   {dtype}"
    if dtype != "q4_0":
        line += f", and {instead} where rows are no multiple of 256"
    assert line in capsys.readouterr().out.splitlines()


def test_rows_that_are_no_blocks_at_all(tmp_path):
    src = source(tmp_path, n_embd=48, head_size=16)
    convert(src, tmp_path / "a.gguf", dtype="q4_K")
    assert types_in(tmp_path / "a.gguf")["blk.1.time_mix_key.weight"] == "fp16"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bf16_of_odd_numbers(tmp_path, value):
    checkpoint = synth.checkpoint("7", **SIZES)
    checkpoint["head.weight"][0, :4] = [value, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8]
    src = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    summary = rwkv_convert.convert(src, tmp_path / "a.gguf", dtype="bf16")
    assert any("holds NaN or infinite values" in warning for warning in summary.warnings)
    view = listed(tmp_path / "a.gguf").tensors["output.weight"]
    data = (tmp_path / "a.gguf").read_bytes()
    bits = np.frombuffer(data, "<u2", 4, view.offset).astype(np.uint32) << 16
    np.testing.assert_array_equal(bits.view(np.float32), [value, np.inf, 1, 1 + 2**-6])


def test_what_a_gguf_file_says_is_kept(tmp_path):
    checkpoint = synth.checkpoint("7", **SIZES)
    values = gguf.values(checkpoint, "7", 64) | {
        "general.author": "somebody",
        "general.file_type": 7,
        "rwkv7.context_length": 4096,
        "split.count": 1,
    }
    tensors = {n: quantize(x, "fp32") for n, x in gguf.transform(checkpoint).items()}
    gguf.write(tmp_path / "a.gguf", values, tensors)
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", dtype="fp16")
    kept = open_checkpoint(tmp_path / "b.gguf").metadata
    before = open_checkpoint(tmp_path / "a.gguf").metadata
    for key in ("general.author", "general.name", "rwkv7.context_length", "tokenizer.ggml.tokens"):
        assert kept[key] == before[key]
    assert kept["general.file_type"].scalar() == 1 and "split.count" not in kept


# --------------------------------------------------------------------------------------------------
# Vocabularies


def tokens(path):
    """Tokens as bytes, unescaped."""
    value = open_checkpoint(path).metadata["tokenizer.ggml.tokens"]
    found, at = [], 12
    while at < len(value.raw):
        size = int.from_bytes(value.raw[at : at + 8], "little")
        found.append(value.raw[at + 8 : at + 8 + size])
        at += 8 + size
    return found


def test_byte_vocabulary(tmp_path):
    convert(source(tmp_path), tmp_path / "a.gguf", dtype="fp32")
    found = tokens(tmp_path / "a.gguf")
    assert (found[0], found[10], found[65], found[92], found[200]) == (
        rb"\x00", rb"\n", b"A", rb"\\", rb"\xc8",
    )  # fmt: skip
    assert len(found) == 256
    assert "tokenizer.chat_template" not in open_checkpoint(tmp_path / "a.gguf").metadata


def test_world_vocabulary(tmp_path, repo):
    sizes = {"n_layer": 1, "n_embd": 32, "head_size": 32, "n_vocab": 65536}
    convert(source(tmp_path, **sizes), tmp_path / "a.gguf", dtype="fp16")
    found = tokens(tmp_path / "a.gguf")
    assert len(found) == 65536
    assert (found[0], found[1], found[11], found[261]) == (b"<s>", rb"\x00", rb"\n", rb"\n\n")
    assert found[65529] != b"[PAD65529]" and found[65530:] == [
        f"[PAD{i}]".encode() for i in range(65530, 65536)
    ]
    says = open_checkpoint(tmp_path / "a.gguf").metadata
    assert says["tokenizer.ggml.eot_token_id"].scalar() == 261
    assert says["tokenizer.chat_template"].scalar() == "rwkv-world"
    world = repo / "native/data/rwkv_vocab_v20230424.txt"
    for line in world.read_text(encoding="utf-8").splitlines()[:70:7]:
        number, literal, _ = line.split(" ", 2)
        assert found[int(number)].decode() in (literal[1:-1], repr(eval(literal).encode())[2:-1])


def test_vocabulary_from_a_file(tmp_path):
    (tmp_path / "v.txt").write_text("1 'a' 1\n2 b'\\xff' 1\n3 '\\n\\n' 2\n")
    src = source(tmp_path, n_vocab=64)
    convert(src, tmp_path / "a.gguf", tokenizer=tmp_path / "v.txt")
    assert tokens(tmp_path / "a.gguf")[:5] == [b"<s>", b"a", rb"\xff", rb"\n\n", b"[PAD4]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 'a'\n", "line 1, expected ID LITERAL LENGTH, got"),
        ("1 'a' 2\n", "line 1, expected a token of 2 bytes"),
        ("1 'a' 1\n1 'b' 1\n", "line 2, expected each number below 64 once, got 1"),
        ("64 'a' 1\n", "line 1, expected each number below 64 once, got 64"),
        ("1 '\\Q' 2\n", "line 1, expected ID LITERAL LENGTH"),
        ("1 {[]: 1} 1\n", "line 1, expected ID LITERAL LENGTH"),
        ("1 " + "(" * 3000 + " 1\n", "expected ID LITERAL LENGTH"),
        ("1 " + "9" * 5000 + " 1\n", "expected ID LITERAL LENGTH"),
        ("1 3 1\n", "expected a token of 1 bytes"),
    ],
)
def test_vocabulary_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        convert(source(tmp_path, n_vocab=64), tmp_path / "a.gguf", tokenizer=tmp_path / "v.txt")
    assert not (tmp_path / "a.gguf").exists()


# --------------------------------------------------------------------------------------------------
# What cannot be written


@pytest.mark.parametrize("version", ["4", "5.1", "5.2"])
def test_versions_without_a_place_in_gguf(tmp_path, version):
    with pytest.raises(
        ModelError, match=rf"version, expected 6 or 7 .*, got {version}\. Try .*bin"
    ):
        convert(source(tmp_path, version), tmp_path / "a.gguf")


def test_initial_state_has_no_place_in_gguf(tmp_path):
    checkpoint = synth.checkpoint("7", **SIZES) | synth.time_state(n_layer=2)
    src = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    with pytest.raises(ModelError, match="an initial state, expected none for a GGUF file"):
        convert(src, tmp_path / "a.gguf")


def test_options_that_do_not_fit(tmp_path):
    src = source(tmp_path, n_vocab=64)
    with pytest.raises(OptionError, match="tokenizer: expected a file with the vocabulary of 64"):
        convert(src, tmp_path / "a.gguf")
    with pytest.raises(OptionError, match="layout: expected default for a GGUF file"):
        convert(src, tmp_path / "a.gguf", layout="rwkv.cpp")
    with pytest.raises(OptionError, match="tokenizer: expected none for a ggmf file"):
        convert(src, tmp_path / "a.bin", tokenizer="v.txt")
    with pytest.raises(OptionError, match="container: expected one of ggmf, gguf, got 'onnx'"):
        convert(src, tmp_path / "a.bin", container="onnx")


def test_container_can_be_named(tmp_path):
    src = source(tmp_path)
    assert convert(src, tmp_path / "a.bin", container="gguf")[:4] == b"GGUF"
    assert convert(src, tmp_path / "a.gguf", container="ggmf")[:4] == b"fmgg"
    assert convert(src, tmp_path / "A.GGUF")[:4] == b"GGUF"


def test_ranks_that_differ_are_refused(tmp_path):
    checkpoint = synth.checkpoint("7", **SIZES)
    for name in ("g1", "g2"):
        other = synth.checkpoint("7", **SIZES, rank_wide=32)
        checkpoint[f"blocks.1.att.{name}"] = other[f"blocks.1.att.{name}"]
    src = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    with pytest.raises(ModelError, match=r"rank of 'att\.g1', expected one for all .*, got 32, 64"):
        convert(src, tmp_path / "a.gguf")


def test_a_single_layer(tmp_path):
    convert(source(tmp_path, n_layer=1), tmp_path / "a.gguf", dtype="fp32")
    assert rwkv_convert.info(tmp_path / "a.gguf").n_layer == 1
