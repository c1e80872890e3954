"""Importance matrices of llama.cpp: both forms, to the tensors that they are of, or refused."""

import random
import struct

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from rwkv_convert.containers import open_checkpoint
from rwkv_convert.quantize import quantize
from rwkv_convert.weight_types import WEIGHT_TYPES
from twin import gguf, synth
from twin.block_types import Tensor
from twin.block_types import quantize as twin_quantize

RANDOM = np.random.default_rng(1)
CHECKPOINTS = {
    version: synth.checkpoint(version, n_layer=2, n_vocab=256, n_embd=256, n_ffn=512)
    for version in ("6", "7")
}
# What llama.cpp collects: the inputs of every matrix that it multiplies by.
MATRICES = ["time_mix_key", "time_mix_output", "channel_mix_key", "channel_mix_value"]


def importance():
    sizes = {name: 512 if name == "channel_mix_value" else 256 for name in MATRICES}
    return {
        f"blk.{i}.{name}.weight": np.exp(RANDOM.standard_normal(n) * 2).astype(np.float32)
        for i in range(2)
        for name, n in sizes.items()
    }


def write_gguf(path, means, count=8.0, kind="imatrix"):
    tensors = {}
    for name, mean in means.items():
        tensors[f"{name}.in_sum2"] = twin_quantize((mean * count)[None], "fp32")
        tensors[f"{name}.counts"] = twin_quantize(np.full((1, 1), count, np.float32), "fp32")
    values = {"general.type": kind, "imatrix.chunk_count": 2, "imatrix.chunk_size": 4}
    return gguf.write(path, values, tensors)


def write_legacy(path, means, chunks=4):
    data = struct.pack("<i", len(means))
    for name, mean in means.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", chunks, len(mean))
        data += (mean * chunks).astype("<f4").tobytes()
    path.write_bytes(data + struct.pack("<ii", chunks, 4) + b"text")
    return path


WRITERS = {"gguf": write_gguf, "legacy": write_legacy}


@pytest.fixture(params=["6", "7"])
def version(request):
    return request.param


@pytest.fixture
def source(tmp_path, version):
    return write_pth(tmp_path / "in.pth", views(CHECKPOINTS[version], "fp32"))


@pytest.mark.parametrize(
    ("form", "out", "dtype"),
    [
        ("gguf", "a.gguf", "q4_K_M"),
        ("legacy", "a.gguf", "q5_0"),
        ("gguf", "a.bin", "q4_1"),
        ("legacy", "a.bin", "q4_0"),
    ],
)
def test_each_matrix_is_quantised_by_its_importance(tmp_path, source, version, form, out, dtype):
    means = importance()
    file = WRITERS[form](tmp_path / "imatrix", means)
    summary = rwkv_convert.convert(source, tmp_path / out, dtype=dtype, imatrix=file)
    rwkv_convert.convert(source, tmp_path / f"plain-{out}", dtype=dtype)
    with_it, plain = (open_checkpoint(tmp_path / name) for name in (out, f"plain-{out}"))
    checked = 0
    for name, view in with_it.tensors.items():
        data, other = (
            (tmp_path / file).read_bytes()[v.offset :][: v.type.bytes_of(v.count)]
            for file, v in ((out, view), (f"plain-{out}", plain.tensors[name]))
        )
        _, layer, rest = name.split(".", 2) if name.startswith("blocks.") else ("", "", name)
        theirs = rest.replace("att.", "time_mix_").replace("ffn.", "channel_mix_")
        mean = means.get(f"blk.{layer}.{theirs}")
        if mean is None:
            assert data == other
            continue
        x = CHECKPOINTS[version][name]
        kind = WEIGHT_TYPES[dtype.removesuffix("_M")]
        assert data == quantize(x, kind, mean).tobytes() != other
        checked += 1
    assert checked == len(means)
    (note,) = summary.warnings
    assert "holds no importance of" in note and note.endswith(": quantised without")
    assert str(file) in note


def test_types_that_need_none(tmp_path, source):
    file = write_gguf(tmp_path / "imatrix", importance())
    for dtype in ("q8_0", "fp16"):
        summary = rwkv_convert.convert(source, tmp_path / f"{dtype}.bin", dtype=dtype, imatrix=file)
        rwkv_convert.convert(source, tmp_path / "plain.bin", dtype=dtype, force=True)
        assert (tmp_path / f"{dtype}.bin").read_bytes() == (tmp_path / "plain.bin").read_bytes()
        assert summary.warnings == ()


def test_a_matrix_that_no_token_came_to(tmp_path, source):
    means = importance()
    rwkv_convert.convert(
        source,
        tmp_path / "a.gguf",
        dtype="q4_0",
        imatrix=write_gguf(tmp_path / "none", means, count=0.0),
    )
    ones = {name: np.ones_like(mean) for name, mean in means.items()}
    rwkv_convert.convert(
        source, tmp_path / "b.gguf", dtype="q4_0", imatrix=write_legacy(tmp_path / "ones", ones)
    )
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


NAME = "blk.0.time_mix_key.weight"


def _gguf(**changed):
    return lambda path: write_gguf(path, importance(), **changed)


def _with(value):
    return lambda path: write_legacy(path, {NAME: np.full(256, value, np.float32)})


def _without_counts(path):
    ones = Tensor("fp32", (1, 256), np.ones(256, "<f4").view(np.uint8))
    return gguf.write(path, {"general.type": "imatrix"}, {f"{NAME}.in_sum2": ones})


REFUSED = {
    "another model's": (
        lambda path: write_gguf(path, {NAME: np.ones(512, np.float32)}),
        r"importance of 'blk\.0\.time_mix_key\.weight', expected 256 numbers, got 512\. Try",
    ),
    "a model": (_gguf(kind="model"), "'general.type', expected 'imatrix', got 'model'"),
    "no counts": (_without_counts, "counts', expected 1 number, got none"),
    "negative": (_with(-1), "expected finite numbers from 0 on"),
    "not a number": (_with(np.nan), "expected finite numbers from 0 on"),
    "empty": (lambda path: path.write_bytes(b""), "truncated"),
    "a text": (lambda path: path.write_text("importance"), "not an importance matrix"),
    "missing": (lambda path: None, "cannot be opened"),
    "nothing in it": (lambda path: write_gguf(path, {}), "expected that of some matrices"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    write, complaint = REFUSED[case]
    source = write_pth(tmp_path / "in.pth", views(CHECKPOINTS["7"], "fp32"))
    write(tmp_path / "imatrix")
    with pytest.raises(rwkv_convert.CheckpointError, match=complaint) as caught:
        rwkv_convert.convert(source, tmp_path / "a.bin", dtype="q4_0", imatrix=tmp_path / "imatrix")
    assert str(tmp_path / "imatrix") in str(caught.value)
    assert not (tmp_path / "a.bin").exists()


def test_it_is_not_overwritten(tmp_path, source):
    file = write_gguf(tmp_path / "imatrix.gguf", importance())
    with pytest.raises(rwkv_convert.OutputError, match="is the input"):
        rwkv_convert.convert(source, file, dtype="q4_0", imatrix=file, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("form", WRITERS)
def test_damaged_files_are_read_or_refused(tmp_path, form):
    source = write_pth(
        tmp_path / "in.pth",
        views(synth.checkpoint("7", n_layer=1, n_embd=32, head_size=32, n_vocab=8), "fp32"),
    )
    file = tmp_path / "imatrix"
    good = WRITERS[form](file, {NAME: np.ones(32, np.float32)}).read_bytes()
    numbers = random.Random(2)
    refused = 0
    for i in range(300):
        data = bytearray(good[: numbers.randrange(len(good))] if i % 3 == 0 else good)
        for _ in range(numbers.randrange(3)):
            if data:
                data[numbers.randrange(min(len(data), 150))] = numbers.choice([0, 1, 127, 128, 255])
        file.write_bytes(data)
        try:
            rwkv_convert.convert(
                source, tmp_path / "a.bin", dtype="q4_0", imatrix=file, force=True, threads=1
            )
        except rwkv_convert.ConvertError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 2000
    assert refused > 60
