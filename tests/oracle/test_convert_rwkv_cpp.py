"""`--layout rwkv.cpp`: the tensors that rwkv.cpp's own converter and quantiser write, byte by byte.

They stand in our order, and layer 0's v0, v1, v2 of RWKV-7, which nothing uses, are left out.
"""

import numpy as np
import pytest
import torch

import rwkv_convert
from oracle.rwkv_cpp_converter import quantize_file, write_float
from twin import ggmf, synth

VERSIONS = ("4", "5.1", "5.2", "6", "7")
"""rwkv.cpp does not know the gated 5.1."""
QUANTIZED = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
EXPONENTIALS = {"4": ("time_decay",), "5.1": ("time_decay", "time_first"), "5.2": ("time_decay",)}


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def make(request, tmp_path):
    """`make(version)` is a state_dict and the `.pth` that torch saved it as."""

    def checkpoint(version):
        arrays = synth.checkpoint(version, layer0_v=True)
        state = {n: torch.from_numpy(a.copy()).to(request.param) for n, a in arrays.items()}
        torch.save(state, tmp_path / "in.pth")
        return state, tmp_path / "in.pth"

    return checkpoint


def assert_same_tensors(ours, theirs, version=""):
    """Equal bytes, but for the tensors made with exp, whose numbers may differ by 2 ulp."""
    assert ours.read_bytes()[:24] == theirs.read_bytes()[:24]  # the header
    ours, theirs = ggmf.read(ours).tensors, ggmf.read(theirs).tensors
    assert set(ours) == set(theirs) - ggmf.UNUSED
    for name, tensor in ours.items():
        other = theirs[name]
        assert (tensor.type, tensor.shape) == (other.type, other.shape), name
        if name.rpartition(".")[2] in EXPONENTIALS.get(version, ()):
            x, y = tensor.data.view("<f4"), other.data.view("<f4")
            np.testing.assert_array_max_ulp(x, y, maxulp=2)
        else:
            np.testing.assert_array_equal(tensor.data, other.data, err_msg=name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_float_files_equal_rwkv_cpp_s(tmp_path, make, version, dtype):
    state, source = make(version)
    write_float(state, tmp_path / "theirs.bin", half=dtype == "fp16")
    for layout in ("default", "rwkv.cpp"):
        rwkv_convert.convert(source, tmp_path / "ours.bin", dtype=dtype, layout=layout, force=True)
        assert_same_tensors(tmp_path / "ours.bin", tmp_path / "theirs.bin", version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_quantised_files_equal_rwkv_cpp_s(tmp_path, make, version, dtype):
    state, source = make(version)
    write_float(state, tmp_path / "half.bin", half=True)
    quantize_file(tmp_path / "half.bin", tmp_path / "theirs.bin", dtype)
    rwkv_convert.convert(source, tmp_path / "ours.bin", dtype=dtype, layout="rwkv.cpp")
    assert_same_tensors(tmp_path / "ours.bin", tmp_path / "theirs.bin", version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("half", [True, False])
def test_requantised_files_equal_rwkv_cpp_s(tmp_path, make, version, half):
    state, _ = make(version)
    write_float(state, tmp_path / "in.bin", half=half)
    quantize_file(tmp_path / "in.bin", tmp_path / "theirs.bin", "q5_1")
    rwkv_convert.convert(
        tmp_path / "in.bin", tmp_path / "ours.bin", dtype="q5_1", layout="rwkv.cpp"
    )
    assert_same_tensors(tmp_path / "ours.bin", tmp_path / "theirs.bin")


def test_rwkv_cpp_s_own_files_are_requantised(shared, tmp_path):
    """The tiny models that rwkv.cpp's tools wrote (one of them of ggmf version 100)."""
    for path in sorted((shared / "models").glob("tiny-rwkv-*-FP32.bin")):
        quantize_file(path, tmp_path / "theirs.bin", "q4_0")
        rwkv_convert.convert(
            path, tmp_path / "ours.bin", dtype="q4_0", layout="rwkv.cpp", force=True
        )
        assert_same_tensors(tmp_path / "ours.bin", tmp_path / "theirs.bin")


def test_the_shipped_checkpoint(examples, tmp_path):
    source = examples / "rwkv7-pydoc-L6-D256.pth"
    state = torch.load(source, weights_only=True)
    write_float(state, tmp_path / "half.bin", half=True)
    quantize_file(tmp_path / "half.bin", tmp_path / "theirs.bin", "q5_0")
    rwkv_convert.convert(source, tmp_path / "ours.bin", dtype="q5_0", layout="rwkv.cpp")
    assert_same_tensors(tmp_path / "ours.bin", tmp_path / "theirs.bin")


@pytest.mark.parametrize("version", VERSIONS[1:])
@pytest.mark.parametrize("dtype", ["fp16", "q4_0"])
def test_checkpoints_with_an_initial_state_equal_rwkv_cpp_s(tmp_path, version, dtype):
    """It writes the tensors as they are, though it does not know them."""
    arrays = synth.checkpoint(version, n_layer=2) | synth.time_state(n_layer=2)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(state, tmp_path / "in.pth")
    write_float(state, tmp_path / "theirs.bin", half=True)
    if dtype != "fp16":
        quantize_file(tmp_path / "theirs.bin", tmp_path / "quantized.bin", dtype)
        (tmp_path / "quantized.bin").replace(tmp_path / "theirs.bin")
    rwkv_convert.convert(tmp_path / "in.pth", tmp_path / "ours.bin", dtype=dtype, layout="rwkv.cpp")
    assert_same_tensors(tmp_path / "ours.bin", tmp_path / "theirs.bin", version)
