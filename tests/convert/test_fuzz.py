"""Damaged files of every kind: only a ConvertError may come out, and nothing is left behind."""

import random
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rwkv_convert
from convert.checkpoint_writers import (
    dictionary,
    views,
    write_legacy_pth,
    write_pth,
    write_safetensors,
)
from rwkv_convert.containers import open_checkpoint
from twin import ggmf, gguf, synth
from twin.block_types import quantize

CHECKPOINT = synth.checkpoint("7", n_layer=1, n_embd=32, head_size=32, n_vocab=8, rank=4)


def _ggmf(path):
    ggmf.write(path, ggmf.convert_reference(CHECKPOINT, "fp16"), "fp16")
    return path


def _gguf(path):
    tensors = {n: quantize(x, "fp32") for n, x in gguf.transform(CHECKPOINT).items()}
    return gguf.write(path, gguf.values(CHECKPOINT, "7", 32), tensors)


KINDS = {
    "zip": lambda path: write_pth(path, views(CHECKPOINT, "bf16")),
    "legacy": lambda path: write_legacy_pth(path, views(CHECKPOINT, "bf16")),
    "safetensors": lambda path: write_safetensors(path, CHECKPOINT, "bf16"),
    "ggmf": _ggmf,
    "gguf": _gguf,
}

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, *b"().N}]qrhRQbuse\x85\x86\x93\x94\x8a"]


def mutate(data: bytes, numbers: random.Random) -> bytes:
    """A few random changes, most of them where the structure is: near the ends."""
    changed = bytearray(data)
    for _ in range(numbers.randint(1, 8)):
        if not changed:
            break
        near = numbers.choice([len(changed), 4000, 300])
        at = numbers.randrange(min(len(changed), near))
        if numbers.random() < 0.3:
            at = len(changed) - 1 - at
        action = numbers.randrange(6)
        if action < 3:
            changed[at] = numbers.choice([*INTERESTING, numbers.randrange(256)])
        elif action == 3:
            changed[at : at + 4] = numbers.choice([b"\xff" * 4, bytes(4), b"\0\0\0\x80"])
        elif action == 4:
            del changed[at : at + numbers.choice([1, 2, 8, 100])]
        else:
            start = numbers.randrange(len(changed))
            changed[at:at] = changed[start : start + numbers.choice([1, 4, 30])]
    if numbers.random() < 0.1:
        del changed[numbers.randrange(len(changed) + 1) :]
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_is_converted_or_refused(tmp_path, kind):
    numbers = random.Random(kind)
    source, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    good = KINDS[kind](source).read_bytes()
    refused = 0
    for _ in range(400):
        source.write_bytes(mutate(good, numbers))
        try:
            rwkv_convert.convert(source, out / "a.bin", dtype="q4_0", force=True, threads=1)
        except rwkv_convert.ConvertError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 2000
            assert all(path.name == "a.bin" for path in out.iterdir())
    assert refused > 40


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
