import struct

import numpy as np
import pytest

from rwkv_convert import CheckpointError
from rwkv_convert.containers import open_checkpoint
from twin import block_types, ggmf, synth


@pytest.fixture
def model_file(tmp_path):
    """A good file, and a way to change its bytes: `model_file(offset, format, values...)`."""
    path = tmp_path / "a.bin"
    tensors = ggmf.convert_reference(synth.checkpoint("4", n_layer=1), "fp32")
    ggmf.write(path, tensors)

    def change(offset=0, format="", *values):
        data = bytearray(path.read_bytes())
        struct.pack_into("<" + format, data, offset, *values)
        path.write_bytes(data)
        return path

    return change


@pytest.mark.parametrize("type", ["fp32", "fp16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_read_ggmf_agrees_with_the_twin(tmp_path, type):
    tensors = ggmf.convert_reference(synth.checkpoint("6"), type)
    ggmf.write(tmp_path / "a.bin", tensors, type)
    checkpoint = open_checkpoint(tmp_path / "a.bin")
    found = {n: (v.type.name, v.shape) for n, v in checkpoint.tensors.items()}
    assert found == {n: (t.type, t.shape) for n, t in tensors.items()}
    data = (tmp_path / "a.bin").read_bytes()
    for name, view in checkpoint.tensors.items():
        expected = tensors[name].data.tobytes()
        assert data[view.offset : view.offset + len(expected)] == expected


def test_read_ggmf_version_100(model_file):
    assert open_checkpoint(model_file(4, "i", 100)).container == "ggmf"


def test_read_ggmf_refuses_quantised_blocks_of_version_100(tmp_path):
    tensors = ggmf.convert_reference(synth.checkpoint("4", n_layer=1), "q4_0")
    ggmf.write(tmp_path / "a.bin", tensors, "q4_0")
    data = bytearray((tmp_path / "a.bin").read_bytes())
    struct.pack_into("<i", data, 4, 100)
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match="q8_0 blocks of ggmf version 100 had another layout"):
        open_checkpoint(tmp_path / "a.bin")


# The header is 24 bytes; the first tensor's follows: dimensions, name length, type, two sizes.
BAD = {
    "version": ((4, "i", 99), "ggmf version, expected 100 or 101, got 99"),
    "type of the file": ((20, "i", 77), "data type of the file, expected .* got number 77"),
    "retired type of the file": ((20, "i", 4), r"got q4_1_o \(retired\)"),
    "vocabulary": ((8, "i", 65), "expected the header's .65, 128., got .64, 128."),
    "width": ((12, "i", -1), "expected the header's .64, -1."),
    "layers": ((16, "i", 2), "expected the header's 2 layers, got 1"),
    "no dimensions": ((24, "i", 0), "expected 1 to 3 dimensions, got 0"),
    "many dimensions": ((24, "i", 2**31 - 1), "expected 1 to 3 dimensions"),
    "negative dimensions": ((24, "i", -1), "expected 1 to 3 dimensions"),
    "empty name": ((28, "i", 0), "expected a name of 1 to 1024 bytes, got 0"),
    "long name": ((28, "i", 2**30), "expected a name of 1 to 1024 bytes"),
    "retired type": ((32, "i", 5), r"data type, expected .* got q4_2 \(retired\)"),
    "k type": ((32, "i", 13), "data type, expected .* got q4_K"),
    "unknown type": ((32, "i", -3), "got number -3"),
    "dimension of 0": ((36, "i", 0), "expected dimensions of at least 1"),
    "negative dimension": ((36, "i", -128), "expected dimensions of at least 1"),
    "huge dimensions": ((36, "2i", 2**31 - 1, 2**31 - 1), "truncated, expected 184467440"),
    "rows that are no blocks": ((32, "2i", 2, 127), "expected a multiple of 32, got 127"),
    "no utf-8": ((44, "B", 0xFF), "expected a name in UTF-8"),
    "no embedding": ((44, "B", ord("E")), "expected a tensor 'emb.weight', got 'Emb.weight'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_ggmf_is_refused(model_file, case):
    change, message = BAD[case]
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(model_file(*change))


def test_ggmf_cut_anywhere_is_refused(model_file):
    path = model_file()
    data = path.read_bytes()
    starts = {view.offset for view in open_checkpoint(path).tensors.values()}
    for size in sorted(
        {1, 4, 23, 24, 30, 40, 45, len(data) - 1, *starts, *(s - 1 for s in starts)}
    ):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


def test_ggmf_with_a_tensor_twice_is_refused(tmp_path):
    one = block_types.quantize(np.zeros((4, 4), np.float32), "fp32")
    ggmf.write(tmp_path / "a.bin", {"emb.weight": one, "blocks.0.x": one, "blocks.0.y": one})
    data = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(data.replace(b"blocks.0.y", b"blocks.0.x"))
    with pytest.raises(
        CheckpointError, match=r"tensor 'blocks\.0\.x': expected each name once, got it twice"
    ):
        open_checkpoint(tmp_path / "a.bin")
