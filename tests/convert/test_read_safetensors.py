import json

import numpy as np
import pytest

from convert.checkpoint_writers import write_safetensors, write_safetensors_raw
from convert.test_read_pth import ARRAYS, assert_same, read_all
from rwkv_convert import CheckpointError
from rwkv_convert.containers import open_checkpoint


@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16"])
def test_read_safetensors(tmp_path, type):
    path = write_safetensors(tmp_path / "a.safetensors", ARRAYS, type)
    assert_same(read_all(path), ARRAYS)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


BAD = {
    "no json": (b"{not json", 0, "expected JSON"),
    "no utf-8": (b'{"\xff": 1}', 0, "expected JSON"),
    "endless number": (b'{"a": ' + b"9" * 5000 + b"}", 0, "expected JSON"),
    "deep nesting": (b'{"a":' + b"[" * 100_000, 0, "expected JSON"),
    "a list in an object": (b"{}  ", 8, "expected 12 bytes, got 20"),
    "tensor twice": (
        b'{"a": {"dtype":"F32","shape":[],"data_offsets":[0,4]}, "a": 1}',
        4,
        "'a': expected each name once, got it twice",
    ),
    "entry of text": ({"a": "x"}, 0, "expected an object with dtype"),
    "unknown dtype": ({"a": entry(dtype="F4")}, 8, "dtype, expected one of F32, .* got 'F4'"),
    "dtype of a number": ({"a": entry(dtype=4)}, 8, "dtype, expected one of"),
    "negative shape": ({"a": entry(shape=(-2,))}, 8, "shape, expected up to 8 counts"),
    "shape of floats": ({"a": entry(shape=(2.0,))}, 8, "shape, expected"),
    "shape of booleans": ({"a": entry(shape=(True, 2))}, 8, "shape, expected"),
    "many dimensions": ({"a": entry(shape=(1,) * 9)}, 8, "shape, expected"),
    "huge shape": ({"a": entry(shape=(2**62, 2**62))}, 8, "takes"),
    "shape that wraps": ({"a": entry(shape=(2**62, 4))}, 8, "takes"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets, expected"),
    "three offsets": ({"a": entry(offsets=(0, 8, 8))}, 8, "data_offsets, expected"),
    "offsets reversed": ({"a": entry(offsets=(8, 0))}, 8, "data_offsets, expected"),
    "offsets too far apart": ({"a": entry(offsets=(0, 12))}, 12, "takes 8 bytes"),
    "truncated": ({"a": entry()}, 4, "truncated, expected data up to byte"),
    "a hole": ({"a": entry(offsets=(4, 12))}, 12, "expected data from offset 0 on, got 4"),
    "an overlap": (
        {"a": entry(), "b": entry(offsets=(4, 12))},
        12,
        "expected data from offset 8 on, got 4",
    ),
    "something after the data": ({"a": entry()}, 12, "expected .* bytes, got"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_safetensors_is_refused(tmp_path, case):
    header, data, message = BAD[case]
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = write_safetensors_raw(tmp_path / "a.st", header, bytes(data))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100, 9 << 20])
def test_header_length_that_lies_is_refused(tmp_path, length):
    path = tmp_path / "a.st"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(10))
    with pytest.raises(CheckpointError, match="header, expected at most 12 bytes"):
        open_checkpoint(path)


def test_empty_tensors_are_read(tmp_path):
    arrays = {"none": np.zeros((0, 3), np.float32), **ARRAYS}
    assert_same(read_all(write_safetensors(tmp_path / "a.st", arrays, "fp32")), arrays)
