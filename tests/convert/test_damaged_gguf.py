"""A small GGUF file cut short at every length, and with bits of its first 4 KiB flipped.

Every bit of a file's first 4 KiB is flipped in test_read_gguf.py.
"""

import os
from pathlib import Path

import pytest

from convert.flipping import flipped
from rwkv_convert import ConvertError, convert
from rwkv_convert.containers import open_checkpoint
from rwkv_convert.identify import identify
from rwkv_convert.official_names import find_model
from twin import gguf, synth
from twin.block_types import quantize

HEAD_BITS = 8 * 4096
CHECKPOINT = synth.checkpoint(
    "7", n_layer=1, n_embd=32, head_size=32, n_vocab=8, rank=4, rank_wide=4, n_ffn=32
)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """A whole file."""
    path = tmp_path_factory.mktemp("good") / "a.gguf"
    tensors = {n: quantize(x, "fp32") for n, x in gguf.transform(CHECKPOINT).items()}
    values = gguf.values(CHECKPOINT, "7", 32)
    values["general.file_type"] = 0
    values["tokenizer.ggml.eos_token_id"] = 0
    return gguf.write(path, values, tensors).read_bytes()


def opens(path: Path) -> bool:
    """Whether the reader takes a file; if it does not, it must say why in one line."""
    try:
        checkpoint = open_checkpoint(path)
        identify(find_model(checkpoint))
    except ConvertError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
        return False
    for view in checkpoint.tensors.values():
        assert view.offset + view.type.bytes_of(view.count) <= path.stat().st_size
    return True


def check_truncations(path: Path, good: bytes, lengths: range) -> None:
    path.write_bytes(good)
    assert opens(path)
    padding = 32  # of the last tensor: a file may end without it
    for length in reversed(lengths):  # the same file, which takes half the time
        os.truncate(path, length)
        assert not opens(path) or length > len(good) - padding, length


def check_flips(path: Path, good: bytes, bits: range) -> None:
    path.write_bytes(good)
    refused = 0
    for bit in bits:
        with flipped(path, bit):
            refused += not opens(path)
    # Names of tensors, sizes, offsets and types matter; what a file says of its tokens does not.
    assert len(bits) // 4 < refused < len(bits)


def test_truncated(tmp_path, good):
    check_truncations(tmp_path / "a.gguf", good, range(0, len(good), 131))
    check_truncations(tmp_path / "a.gguf", good, range(len(good) - 200, len(good)))


def test_flipped_bits(tmp_path, good):
    check_flips(tmp_path / "a.gguf", good, range(0, HEAD_BITS, 67))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_truncation(tmp_path, good):
    check_truncations(tmp_path / "a.gguf", good, range(len(good)))


def test_damaged_files_leave_nothing(tmp_path, good):
    """What the reader takes is converted; what it refuses leaves no file behind."""
    out = tmp_path / "out"
    out.mkdir()
    path = tmp_path / "a.gguf"
    path.write_bytes(good)
    converted = 0
    for bit in range(5, HEAD_BITS, 401):
        with flipped(path, bit):
            opened = opens(path)
            try:
                convert(path, out / "a.bin", dtype="fp16", threads=1)
            except ConvertError:
                assert not opened
            else:
                converted += 1
                (out / "a.bin").unlink()
            assert not list(out.iterdir())
    assert converted
