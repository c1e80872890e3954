"""Our reader of GGUF against the PyPI package `gguf`."""

from pathlib import Path

import gguf
import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from rwkv_convert.containers import open_checkpoint
from rwkv_convert.gguf_table import ARCHITECTURES, FILE_TYPES, GGUF_TABLES
from rwkv_convert.gguf_values import GgufValue
from twin import gguf as twin
from twin import synth
from twin.block_types import dequantize, quantize


@pytest.mark.parametrize("version", ["6", "7"])
def test_names_are_those_of_llama_cpp(version):
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == f"rwkv{version}")
    known = {gguf.TENSOR_NAMES[kind].replace("{bid}", "{i}") for kind in gguf.MODEL_TENSORS[arch]}
    ours = {
        row.name.rpartition(".")[0].replace("blk.0.", "blk.{i}.") for row in GGUF_TABLES[version]
    }
    # Those that the fused one stands for; RWKV-7's layer 0 has the v's as fillers.
    assert known - ours <= {f"blk.{{i}}.time_mix_lerp_{c}" for c in "wkvrg"}
    assert ours <= known
    assert ARCHITECTURES[f"rwkv{version}"] == version


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("type", ["fp32", "fp16", "q8_0"])
def test_reader_finds_what_gguf_finds(tmp_path: Path, version: str, type: str):
    checkpoint = synth.checkpoint(version)
    tensors = {
        n: quantize(x, type if x.ndim == 2 and "first" not in n else "fp32")
        for n, x in twin.transform(checkpoint).items()
    }
    path = twin.write(tmp_path / "a.gguf", twin.values(checkpoint, version, 64), tensors)
    data = path.read_bytes()
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert set(theirs) == set(tensors)
    places = {t.data_offset: t for t in theirs.values()}
    ours = open_checkpoint(path)
    found = 0
    for view in ours.tensors.values():
        if view.offset in places:  # all but the parts of a fused one
            tensor = places[view.offset]
            assert tensor.tensor_type == view.type.gguf
            size = view.type.bytes_of(view.count)
            assert data[view.offset : view.offset + size] == tensor.data.tobytes()[:size]
            found += 1
    assert found == len(theirs)
    some = theirs["blk.1.channel_mix_key.weight"]
    np.testing.assert_array_equal(
        gguf.quants.dequantize(some.data, some.tensor_type),
        dequantize(tensors["blk.1.channel_mix_key.weight"]),
    )
    reader = gguf.GGUFReader(path)
    for key, value in ours.metadata.items():
        assert isinstance(value, GgufValue)
        field = reader.get_field(key)
        assert field is not None
        if value.count() is None:
            assert field.contents() == value.scalar()
        else:
            assert len(field.contents()) == value.count()


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q5_1"])
def test_gguf_lists_what_we_write(tmp_path: Path, version: str, dtype: str):
    checkpoint = synth.checkpoint(version, n_vocab=256)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    rwkv_convert.convert(source, tmp_path / "a.gguf", dtype=dtype)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    expected = twin.transform(checkpoint)
    assert set(found) == set(expected)
    step = {"fp32": 0, "fp16": 2e-3, "q5_1": 0.2}[dtype]
    for name, tensor in found.items():
        shape = expected[name].shape
        assert tuple(map(int, tensor.shape)) == shape[::-1]
        x = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        np.testing.assert_allclose(x, expected[name], atol=step, rtol=0, err_msg=name)
    keys = {field for field in reader.fields if not field.startswith("GGUF.")}
    known = {
        key.replace("{arch}", f"rwkv{version}")
        for group in vars(gguf.Keys).values()
        if isinstance(group, type)
        for key in vars(group).values()
        if isinstance(key, str)
    }
    assert keys <= known
    file_type = reader.get_field("general.file_type")
    name = {"fp32": "ALL_F32", "fp16": "MOSTLY_F16"}.get(dtype, f"MOSTLY_{dtype.upper()}")
    assert file_type is not None and gguf.LlamaFileType(file_type.contents()).name == name


def test_file_types_are_those_of_llama_cpp():
    for dtype, number in FILE_TYPES.items():
        name = {
            "fp32": "ALL_F32",
            "fp16": "MOSTLY_F16",
            "q4_K": "MOSTLY_Q4_K_S",
            "q5_K": "MOSTLY_Q5_K_S",
        }.get(dtype)
        assert gguf.LlamaFileType(number).name == (name or f"MOSTLY_{dtype.upper()}")
