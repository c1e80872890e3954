"""Damaged files of every kind: only a ConvertError may come out, and nothing is left behind."""

import random
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rwkv_convert
from convert.checkpoint_writers import dictionary, views
from convert.fuzz_readers import KINDS, Fuzzer
from rwkv_convert.containers import open_checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_is_converted_or_refused(tmp_path, kind):
    fuzzer = Fuzzer(kind, tmp_path)
    fuzzer.converts()
    for _ in range(200):
        fuzzer.step()
    assert fuzzer.refused > 20


@given(
    data=st.binary(max_size=300),
    prefix=st.sampled_from([b"", b"PK\3\4", b"fmgg", b"GGUF\3\0\0\0", b"\x80\x02"]),
)
def test_random_bytes_are_refused(tmp_path_factory, data, prefix):
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(prefix + data)
    with pytest.raises(rwkv_convert.CheckpointError):
        open_checkpoint(path)


OPCODES = list(b"().N\x88\x89JKM\x8aGX\x8cU)t\x85\x86\x87]ae}suqr\x94hjc\x93RbQ\x80\x95012CBio\x81")


@given(program=st.lists(st.sampled_from(OPCODES), max_size=60), seed=st.integers(0, 2**32))
def test_random_programs_are_refused(tmp_path_factory, program, seed):
    """Opcodes in any order, among bytes of a real pickle."""
    path = tmp_path_factory.getbasetemp() / "program.pth"
    numbers = random.Random(seed)
    real = dictionary(views({"emb.weight": np.zeros((2, 2), np.float32)}, "fp32"))
    cut = numbers.randrange(2, len(real))
    pickle = real[:cut] + bytes(program) + real[cut:]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle)
        archive.writestr("a/data/0", bytes(16))
    try:
        open_checkpoint(path)
    except rwkv_convert.CheckpointError as error:
        assert str(error).isprintable()
