"""Checkpoints that torch and safetensors themselves wrote."""

import collections

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rwkv_convert
from convert.test_read_pth import read_all
from twin import synth

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def assert_same(found, state):
    assert list(found) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.detach().float().numpy(), err_msg=name)


def tensors(dtype):
    base = torch.arange(240, dtype=torch.float32).to(dtype)
    grid = base.view(12, 20)
    return {
        "vector": torch.ones(5, dtype=dtype),
        "scalar": torch.tensor(3.0, dtype=dtype),
        "empty": torch.empty(0, 4, dtype=dtype),
        "grid": grid,
        "transposed": grid.t(),
        "rows": grid[3:7],
        "columns": grid[:, 5:9],
        "steps": grid[::2, ::3],
        "permuted": base.view(2, 3, 40).permute(2, 0, 1),
        "expanded": grid[0].expand(6, 20),
        "parameter": torch.nn.Parameter(grid[:2].clone()),
        "(1, 1, C)": torch.ones(1, 1, 7, dtype=dtype),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read_what_torch_saves(tmp_path, dtype, zip, protocol):
    state = tensors(dtype)
    torch.save(
        state,
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=zip,
        pickle_protocol=protocol,
    )
    assert_same(read_all(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("zip", [True, False])
def test_read_state_dict_of_a_module(tmp_path, zip):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    state = module.state_dict()
    assert isinstance(state, collections.OrderedDict) and state._metadata
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zip)
    assert_same(read_all(tmp_path / "a.pth"), state)


def test_read_other_types_beside_the_weights(tmp_path):
    state = {
        "int64": torch.tensor([1, 2]),
        "bool": torch.tensor([True]),
        "uint16": torch.tensor([1, 2], dtype=torch.uint16),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "complex": torch.ones(2, dtype=torch.complex64),
        "fp32": torch.ones(3),
    }
    torch.save(state, tmp_path / "a.pth")
    from rwkv_convert.containers import open_checkpoint

    types = {n: v.type.name for n, v in open_checkpoint(tmp_path / "a.pth").tensors.items()}
    assert types == {
        "int64": "int64",
        "bool": "bool",
        "uint16": "uint16",
        "float8": "fp8_e4m3",
        "complex": "complex64",
        "fp32": "fp32",
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_read_what_safetensors_saves(tmp_path, dtype):
    state = {n: t.detach().contiguous().clone() for n, t in tensors(dtype).items()}
    save_file(state, tmp_path / "a.safetensors")
    found = read_all(tmp_path / "a.safetensors")
    assert_same({n: found[n] for n in state}, state)


@pytest.mark.parametrize(
    "value",
    [
        [torch.ones(2)],
        torch.ones(2),
        torch.nn.Linear(2, 2),
        {"weights": np.ones(3)},
        {"sparse": torch.eye(3).to_sparse()},
    ],
    ids=["list", "tensor", "module", "numpy", "sparse"],
)
@pytest.mark.parametrize("zip", [True, False])
def test_refuse_what_is_no_dict_of_tensors(tmp_path, value, zip):
    torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=zip)
    with pytest.raises(rwkv_convert.CheckpointError):
        rwkv_convert.info(tmp_path / "a.pth")


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_torch_and_safetensors_files_convert_alike(tmp_path, version):
    state = {n: torch.from_numpy(a).bfloat16() for n, a in synth.checkpoint(version).items()}
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safetensors")
    files = {}
    for name in ("zip", "legacy", "safetensors"):
        rwkv_convert.convert(tmp_path / name, tmp_path / f"{name}.bin", dtype="q4_0")
        files[name] = (tmp_path / f"{name}.bin").read_bytes()
    assert files["zip"] == files["legacy"]
    assert len(files["safetensors"]) == len(files["zip"])  # it sorts the tensors
