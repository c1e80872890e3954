"""What a small file can cost before it is refused: little, and of known size."""

import struct
import tracemalloc
import zipfile

import pytest

import rwkv_convert

MAX_BYTES = 80_000_000
"""Of memory at once, whatever the file says: objects for 20 000 tensors or 2 MB of JSON."""


def ggmf(path, names, n_layer=1):
    with path.open("wb") as file:
        file.write(struct.pack("<6i", 0x67676D66, 101, 1, 1, n_layer, 0))
        for name in names:
            encoded = name.encode()
            file.write(struct.pack("<5i", 2, len(encoded), 0, 1, 1) + encoded + bytes(4))


def safetensors(path, header):
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def pickle(path, opcodes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x04]" + opcodes + b".")


def many_members(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_200):
            archive.writestr(f"x/{i}", b"")


CASES = {
    "ggmf, many tensors": (
        lambda p: ggmf(p, (f"blocks.{i}.x" for i in range(30_000))),
        "expected at most 20000 tensors, got more",
    ),
    "ggmf, long names": (
        lambda p: ggmf(p, (f"{i}" + "x" * 1000 for i in range(20_001))),
        "expected at most 20000 tensors, got more",
    ),
    "ggmf, many layers": (
        lambda p: ggmf(p, ["emb.weight", *(f"blocks.{i}.att.k_k" for i in range(19_999))], 19_999),
        "expected at most 1000 layers, got number 19998",
    ),
    "safetensors, many tensors": (
        lambda p: safetensors(p, "{" + ",".join(f'"{i}":[]' for i in range(150_000)) + "}"),
        "expected at most 20000 tensors, got 150000",
    ),
    "safetensors, a list of lists": (
        lambda p: safetensors(p, '{"a":[' + "[]," * 690_000 + "[]]}"),
        "expected an object with dtype",
    ),
    "safetensors, a long header": (
        lambda p: safetensors(p, '{"a":' + " " * (2 << 20) + "1}"),
        "safetensors header, expected at most 2097152 bytes",
    ),
    "pickle, a memo": (lambda p: pickle(p, b"\x94" * 499_000), "expected a dict of tensors"),
    "pickle, dicts": (
        lambda p: pickle(p, (b"(" + b"}" * 40_000 + b"e") * 12),
        "expected a dict of tensors",
    ),
    "pickle, opcodes": (lambda p: pickle(p, b"Na" * 250_000), "more than 500000 opcodes"),
    "zip, many members": (many_members, "expected at most 20100 members, got 20200"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_file_that_asks_for_much_is_refused(tmp_path, case):
    write, message = CASES[case]
    write(tmp_path / "a")
    with pytest.raises(rwkv_convert.ConvertError, match=message) as error:
        rwkv_convert.info(tmp_path / "a")
    assert len(str(error.value)) < 2000


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_refusing_a_file_costs_little(tmp_path, case):
    write, message = CASES[case]
    write(tmp_path / "a")
    tracemalloc.start()
    try:
        with pytest.raises(rwkv_convert.ConvertError, match=message):
            rwkv_convert.info(tmp_path / "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES
