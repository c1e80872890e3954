"""`.pth` in both layouts: what is read, and what is refused."""

import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.checkpoint_writers import (
    View,
    decode,
    dictionary,
    global_,
    integer,
    integers,
    text,
    views,
    write_legacy_pth,
    write_pth,
)
from convert.hostile_pickles import hostile_pickles
from rwkv_convert import CheckpointError, UnsafePickleError
from rwkv_convert.checkpoint import TensorView
from rwkv_convert.containers import open_checkpoint
from rwkv_convert.element_types import BF16, FP32
from rwkv_convert.piece_reader import PieceReader

WRITERS = {"zip": write_pth, "legacy": write_legacy_pth}


def read_all(path):
    """Every tensor of a file, through the reader that the converter uses."""
    checkpoint = open_checkpoint(path)
    result = {}
    with PieceReader(path) as reader:
        for name, view in checkpoint.tensors.items():
            raw = reader.read(view, np.empty(view.count * view.type.size, np.uint8))
            type = {"fp32": "<f4", "fp16": "<f2"}.get(view.type.name, "<u2")
            result[name] = decode(raw.view(type), view.type.name).reshape(view.shape)
    return result


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5, -2, 0], np.float32),
    "a scalar": np.array(7, np.float32),
    "vector": np.arange(5, dtype=np.float32).reshape(1, 1, 5),
}


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16"])
def test_read_pth_types(tmp_path, layout, type):
    assert_same(read_all(WRITERS[layout](tmp_path / "a", views(ARRAYS, type))), ARRAYS)


@pytest.mark.parametrize("layout", WRITERS)
def test_read_pth_views_share_a_storage(tmp_path, layout):
    data = np.arange(24, dtype=np.float32)
    tensors = {
        "whole": View("0", "fp32", data, (4, 6), (6, 1)),
        "transposed": View("0", "fp32", data, (6, 4), (1, 6)),
        "offset": View("0", "fp32", data, (2, 6), (6, 1), offset=12),
        "columns": View("0", "fp32", data, (4, 2), (6, 1), offset=3),
        "every other": View("0", "fp32", data, (4, 3), (6, 2)),
        "permuted": View("0", "fp32", data, (3, 2, 4), (2, 1, 6)),
        "expanded": View("0", "fp32", data, (3, 6), (0, 1), offset=6),
        "overlapping": View("0", "fp32", data, (5, 4), (2, 1)),
        "parameter": View("0", "fp32", data, (24,), (1,), parameter=True),
        "another": View("1", "fp16", np.ones(3, "<f2"), (3,), (1,)),
    }
    expected = {
        name: np.lib.stride_tricks.as_strided(
            v.data[v.offset :], v.shape, [s * v.data.itemsize for s in v.strides]
        )
        for name, v in tensors.items()
    }
    assert_same(read_all(WRITERS[layout](tmp_path / "a", tensors)), expected)


@pytest.mark.parametrize("bytes_per_read", [0, 16, 1 << 20])  # never, sometimes, always whole
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_read_strided_views_of_any_kind(tmp_path_factory, monkeypatch, bytes_per_read, data):
    """Against numpy's own as_strided."""
    monkeypatch.setattr("rwkv_convert.piece_reader.BYTES_PER_READ", bytes_per_read)
    path = tmp_path_factory.getbasetemp() / "numbers"
    numbers = np.arange(4000, dtype="<u2")
    if not path.exists():
        path.write_bytes(numbers.tobytes())
    dimensions = data.draw(st.lists(st.integers(1, 6), min_size=0, max_size=4))
    strides = [data.draw(st.sampled_from([0, 1, 2, 3, 6, 7, 12, 36, 100])) for _ in dimensions]
    offset = data.draw(st.integers(0, 100))
    view = TensorView(BF16, 2 * offset, tuple(dimensions), tuple(strides))
    expected = np.lib.stride_tricks.as_strided(
        numbers[offset:], dimensions, [2 * s for s in strides]
    )
    with PieceReader(path) as reader:
        raw = reader.read(view, np.empty(2 * view.count + 8, np.uint8))
        np.testing.assert_array_equal(raw.view("<u2").reshape(view.shape), expected)
        pieces = view.split(data.draw(st.integers(1, 50)), 1)
        parts = [reader.read(p, np.empty(2 * p.count, np.uint8)).view("<u2") for p in pieces]
    np.testing.assert_array_equal(np.concatenate(parts), expected.reshape(-1))


def test_read_strided_view_with_gaps_larger_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("rwkv_convert.piece_reader.MAX_GAP_BYTES", 40)
    monkeypatch.setattr("rwkv_convert.piece_reader.MAX_SPAN_BYTES", 40)
    numbers = np.arange(1000, dtype="<f4")
    (tmp_path / "numbers").write_bytes(numbers.tobytes())
    view = TensorView(FP32, 0, (3, 40), (1, 25))
    with PieceReader(tmp_path / "numbers") as reader:
        raw = reader.read(view, np.empty(4 * view.count, np.uint8))
    np.testing.assert_array_equal(raw.view("<f4").reshape(3, 40), numbers.reshape(40, 25).T[:3])


@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    max_count=st.integers(32, 200),
)
def test_split_keeps_blocks_whole(shape, max_count):
    shape[-1] *= 32
    view = TensorView.contiguous(FP32, 0, tuple(shape))
    at = 0
    for piece in view.split(max_count, 32):
        assert piece.offset == 4 * at and piece.count % 32 == 0 and piece.count <= max_count
        at += piece.count
    assert at == view.count


def test_read_pth_ordered_dict_with_metadata(tmp_path):
    path = write_pth(tmp_path / "a.pth", views(ARRAYS, "fp32"), ordered=True)
    assert_same(read_all(path), ARRAYS)


def test_read_pth_without_byteorder(tmp_path):
    path = write_pth(tmp_path / "a.pth", views(ARRAYS, "fp32"), byteorder=None)
    assert_same(read_all(path), ARRAYS)


def test_read_pth_untyped_storage(tmp_path):
    view = View("0", "fp32", np.arange(4, dtype="<f4"), (4,), (1,))
    storage = (
        b"("
        + text("storage")
        + global_("torch.storage", "UntypedStorage")
        + text("0")
        + text("cpu")
        + integer(16)
        + b"tQ"
    )
    opcodes = (
        global_("torch._utils", "_rebuild_tensor_v3")
        + b"("
        + storage
        + integer(1)
        + integers([3])
        + integers([1])
        + b"\x89}"
        + global_("torch", "float32")
        + b"tR"
    )
    path = write_pth(tmp_path / "a.pth", {"x": view}, pickle=dictionary({"x": opcodes}))
    assert_same(read_all(path), {"x": np.float32([1, 2, 3])})


def test_read_pth_legacy_view_of_a_storage(tmp_path):
    """The sixth item of a legacy persistent id: (key of the view, offset, size)."""
    view = View("0", "fp32", np.arange(8, dtype="<f4"), (2,), (1,))
    storage = (
        b"("
        + text("storage")
        + global_("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + integer(8)
        + b"("
        + text("view")
        + integer(3)
        + integer(4)
        + b"ttQ"
    )
    opcodes = (
        global_("torch._utils", "_rebuild_tensor")
        + b"("
        + storage
        + integer(1)
        + integers([2])
        + integers([1])
        + b"tR"
    )
    path = write_legacy_pth(tmp_path / "a.pth", {"x": view}, pickle=dictionary({"x": opcodes}))
    assert_same(read_all(path), {"x": np.float32([4, 5])})


def test_read_pth_keeps_names_of_other_entries(tmp_path):
    tensors = {**views(ARRAYS, "fp32"), "epoch": integer(3), "config": b"}"}
    checkpoint = open_checkpoint(write_pth(tmp_path / "a.pth", tensors))
    assert checkpoint.other_entries == ["epoch", "config"]


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("case", hostile_pickles(__file__))
def test_hostile_pickle_is_refused(tmp_path, case, layout):
    marker = tmp_path / "executed"
    pickle = hostile_pickles(marker)[case]
    path = WRITERS[layout](tmp_path / "a.pth", views(ARRAYS, "fp32"), pickle=pickle)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert not marker.exists()
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("os.system", "'os.system'|os.system"),
        ("builtins.eval", "builtins.eval"),
        ("stack_global", "os.system"),
        ("newobj_ex", "NEWOBJ_EX"),
        ("inst", "INST"),
        ("ext1", "EXT1"),
        ("persistent id in text", "PERSID"),
        ("huge memo", "memo index 4294967295"),
        ("recursion: open containers", "nests more than 64"),
    ],
)
def test_hostile_pickle_is_refused_by_name(tmp_path, case, name):
    pickle = hostile_pickles(tmp_path / "executed")[case]
    with pytest.raises(UnsafePickleError, match=name):
        open_checkpoint(write_pth(tmp_path / "a.pth", {}, pickle=pickle))


def bad_zip(mutate):
    """A zip checkpoint whose bytes went through `mutate`."""

    def write(path):
        write_pth(path, views(ARRAYS, "fp32"))
        path.write_bytes(mutate(path.read_bytes()))

    return write


def bad_legacy(mutate):
    def write(path):
        write_legacy_pth(path, views(ARRAYS, "fp32"))
        path.write_bytes(mutate(path.read_bytes()))

    return write


def _set_member(path, name, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)


def _replace(old, new):
    def mutate(data):
        assert old in data
        return data.replace(old, new)

    return mutate


def _short_storage(path):
    tensors = views(ARRAYS, "fp32")
    write_pth(path, {**tensors, "a": View("0", "fp32", np.zeros(5, "<f4"), (2, 3), (3, 1))})


BAD = {
    "big-endian zip": (
        lambda p: write_pth(p, views(ARRAYS, "fp32"), byteorder=b"big"),
        "byte order, expected little, got 'big'",
    ),
    "big-endian legacy": (
        lambda p: write_legacy_pth(p, views(ARRAYS, "fp32"), little_endian=False),
        "byte order, expected little",
    ),
    "deflated": (
        lambda p: write_pth(p, views(ARRAYS, "fp32"), compression=zipfile.ZIP_DEFLATED),
        "expected a stored member, got a compressed or encrypted one",
    ),
    "another zip": (lambda p: _set_member(p, "word/document.xml", b"<x/>"), "no checkpoint"),
    "zip cut at the end": (bad_zip(lambda d: d[:-30]), "truncated"),
    "zip cut in half": (bad_zip(lambda d: d[: len(d) // 2]), "truncated"),
    "zip with its middle missing": (bad_zip(lambda d: d[:100] + d[200:]), "damaged|truncated"),
    "zip without a storage": (
        bad_zip(_replace(b"archive/data/1", b"archive/data/x")),
        "its data, expected a member 'archive/data/1' of the archive, got none",
    ),
    "zip whose storage is short": (_short_storage, "needs 6 elements, its storage '0' holds 5"),
    "zip with a member twice": (
        bad_zip(_replace(b"archive/data/1", b"archive/data/0")),
        "expected each member once",
    ),
    "legacy cut in the numbers": (bad_legacy(lambda d: d[:-3]), "truncated"),
    "legacy cut in the pickle": (bad_legacy(lambda d: d[:60]), "damaged pickle"),
    "legacy of another protocol": (
        bad_legacy(_replace(struct.pack("<i", 1001), struct.pack("<i", 1002))),
        "legacy protocol, expected 1001, got 1002",
    ),
    "a tensor": (
        lambda p: write_pth(p, {}, pickle=dictionary({"x": b"N"})[:2] + b"N."),
        "expected a dict of tensors, got a NoneType",
    ),
    "a nested dict": (
        lambda p: write_pth(p, {}, pickle=dictionary({"state_dict": b"}"})),
        "expected a dict of tensors, got 'state_dict'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pth_is_refused(tmp_path, case):
    write, message = BAD[case]
    write(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "a.pth")


def test_zip64_sizes_are_read(tmp_path):
    """torch.save writes zip64 records for large members; here a small one has them."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        tensors = views(ARRAYS, "fp32")
        archive.writestr("x/data.pkl", dictionary(tensors))
        for view in tensors.values():
            with archive.open(f"x/data/{view.storage}", "w", force_zip64=True) as member:
                member.write(view.data.tobytes())
    assert_same(read_all(path), ARRAYS)
