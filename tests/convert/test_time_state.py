"""Initial states from state tuning: read, and put into model files."""

import json

import numpy as np
import pytest

import rwkv_convert
from convert import checkpoint_writers
from convert.checkpoint_writers import (
    View,
    rounded,
    views,
    write_legacy_pth,
    write_pth,
    write_safetensors,
)
from convert.test_cli import run
from rwkv_convert import CheckpointError, ModelError, OutputError, read_time_state
from twin import ggmf, synth

VERSIONS = [version for version in synth.VERSIONS if version != "4"]
NAME = "blocks.{}.att.time_state".format

WRITERS = {
    "zip": lambda path, tensors, type: write_pth(path, views(tensors, type)),
    "legacy": lambda path, tensors, type: write_legacy_pth(path, views(tensors, type)),
    "safetensors": write_safetensors,
}


@pytest.fixture
def tuned(tmp_path):
    """`tuned("fp32", n_layer=2)` is a random initial state as a `.pth`."""

    def make(type="fp32", **options):
        tensors = synth.time_state(**{"n_layer": 2, **options})
        return write_pth(tmp_path / f"tuned-{type}.pth", views(tensors, type))

    return make


# ---- into a model file


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q4_0"])
@pytest.mark.parametrize("layout", ["default", "rwkv.cpp"])
def test_a_state_of_its_own_file_is_written_as_one_of_the_checkpoint_s(
    tmp_path, version, dtype, layout
):
    """As it is, in fp32, among the checkpoint's tensors: what a merged checkpoint gives."""
    checkpoint = synth.checkpoint(version, n_layer=2)
    state = synth.time_state(n_layer=2)
    plain = write_pth(tmp_path / "plain.pth", views(checkpoint, "fp32"))
    merged = write_pth(tmp_path / "merged.pth", views({**checkpoint, **state}, "fp32"))
    alone = write_pth(tmp_path / "state.pth", views(state, "fp32"))
    options = {"dtype": dtype, "layout": layout}
    one = rwkv_convert.convert(plain, tmp_path / "one.bin", time_state=alone, **options)
    two = rwkv_convert.convert(merged, tmp_path / "two.bin", **options)
    rwkv_convert.convert(plain, tmp_path / "none.bin", **options)
    data = (tmp_path / "one.bin").read_bytes()
    assert data == (tmp_path / "two.bin").read_bytes()
    tensors = ggmf.read(tmp_path / "one.bin").tensors
    others = [(name, tensor) for name, tensor in tensors.items() if name not in state]
    for (name, tensor), (plain_name, plain_tensor) in zip(
        others, ggmf.read(tmp_path / "none.bin").tensors.items(), strict=True
    ):
        assert (name, tensor.data.tobytes()) == (plain_name, plain_tensor.data.tobytes())
    for name, expected in state.items():
        assert (tensors[name].type, tensors[name].shape) == ("fp32", expected.shape)
        assert tensors[name].data.tobytes() == expected.tobytes()
    assert one.warnings == two.warnings == ()
    assert (one.time_state, two.time_state) == (str(alone), str(merged))
    assert (one.source.has_time_state, two.source.has_time_state) == (False, True)


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16"])
def test_state_of_every_container_and_type(tmp_path, make_pth, container, type):
    state = synth.time_state(n_layer=2, seed=3)
    source = WRITERS[container](tmp_path / "state", state, type)
    rwkv_convert.convert(make_pth("6"), tmp_path / "out.bin", dtype="q5_1", time_state=source)
    tensors = ggmf.read(tmp_path / "out.bin").tensors
    for name, expected in rounded(state, type).items():
        assert tensors[name].data.tobytes() == expected.tobytes()


def test_state_takes_the_place_of_the_checkpoint_s(tmp_path):
    old, new = synth.time_state(seed=1), synth.time_state(seed=2)
    source = write_pth(tmp_path / "in.pth", views({**synth.checkpoint("7"), **old}, "fp32"))
    state = write_pth(tmp_path / "new.pth", views(new, "fp32"))
    rwkv_convert.convert(source, tmp_path / "out.bin", time_state=state)
    tensors = ggmf.read(tmp_path / "out.bin").tensors
    for name, expected in new.items():
        assert tensors[name].data.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", ["default", "rwkv.cpp"])
def test_requantising_keeps_or_replaces_the_state(tmp_path, make_pth, tuned, layout):
    options = {"dtype": "q4_0", "layout": layout}
    fp16, bf16 = tmp_path / "fp16.bin", tuned("bf16")
    rwkv_convert.convert(make_pth("6"), fp16, time_state=tuned())
    kept = rwkv_convert.convert(fp16, tmp_path / "kept.bin", **options)
    assert kept.time_state == str(fp16)
    new = rwkv_convert.convert(fp16, tmp_path / "new.bin", time_state=bf16, **options)
    assert new.time_state == str(bf16)
    files = [
        ggmf.read(path).tensors for path in (fp16, tmp_path / "kept.bin", tmp_path / "new.bin")
    ]
    before, same, other = (file[NAME(1)] for file in files)
    assert before.type == same.type == other.type == "fp32"
    assert before.data.tobytes() == same.data.tobytes() != other.data.tobytes()
    np.testing.assert_array_equal(
        other.data.view("<f4"), read_time_state(bf16)[1].reshape(-1), strict=True
    )


def test_state_of_one_head(tmp_path):
    """Its first dimension is of size 1, and stays."""
    sizes = {"n_layer": 1, "n_embd": 32, "head_size": 32}
    state = synth.time_state(**sizes)
    for version in VERSIONS:
        checkpoint = {**synth.checkpoint(version, **sizes), **state}
        source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
        rwkv_convert.convert(source, tmp_path / "out.bin", force=True)
        assert ggmf.read(tmp_path / "out.bin").tensors[NAME(0)].shape == (1, 32, 32)


def test_what_else_the_file_holds_is_left_out_with_a_warning(tmp_path, make_pth):
    state = {"emb.weight": np.zeros((3, 3), np.float32), **synth.time_state(n_layer=2)}
    state[NAME(1)][0, 3, 4] = np.nan
    source = write_pth(tmp_path / "state.pth", views(state, "fp32"))
    summary = rwkv_convert.convert(make_pth(), tmp_path / "out.bin", time_state=source)
    assert summary.warnings == (
        f"{source}: all but the initial state is left out: 'emb.weight'",
        f"{source}: tensor '{NAME(1)}' holds NaN or infinite values",
    )


@pytest.mark.parametrize(
    ("version", "sizes", "message"),
    [
        ("4", {}, r"tuned-fp32\.pth: .*version 5 or later, got one for RWKV-4, which has no heads"),
        (
            "7",
            {"n_layer": 3},
            r"tuned-fp32\.pth: an initial state, expected 2 layers as in the model, got 3",
        ),
        (
            "7",
            {"n_layer": 1},
            r"tuned-fp32\.pth: an initial state, expected 2 layers as in the model, got 1",
        ),
        (
            "5.1",
            {"n_embd": 256},
            r"tuned-fp32\.pth: shape of tensor 'blocks\.0\.att\.time_state', expected "
            r"\(2, 64, 64\), got \(4, 64, 64\)",
        ),
        (
            "6",
            {"head_size": 32},
            r"tuned-fp32\.pth: shape of tensor 'blocks\.0\.att\.time_state', expected "
            r"\(2, 64, 64\), got \(4, 32, 32\)",
        ),
    ],
)
def test_state_of_another_model_is_refused(tmp_path, make_pth, tuned, version, sizes, message):
    with pytest.raises(ModelError, match=message):
        rwkv_convert.convert(make_pth(version), tmp_path / "out.bin", time_state=tuned(**sizes))
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (
            {"emb.weight": np.zeros(3)},
            ModelError,
            r"no initial state, expected .* got 'emb.weight'",
        ),
        (
            {NAME(1): np.zeros((2, 64, 64))},
            ModelError,
            rf"expected '{NAME(0)}' below '{NAME(1)}', got none",
        ),
        (None, CheckpointError, "cannot be opened"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path, make_pth, tensors, error, message):
    source = tmp_path / "state.pth"
    if tensors is not None:
        write_pth(source, views(tensors, "fp32"))
    with pytest.raises(error, match=message):
        rwkv_convert.convert(make_pth(), tmp_path / "out.bin", time_state=source)
    with pytest.raises(error, match=message):
        read_time_state(source)


def test_checkpoint_with_the_state_of_some_layers_is_refused(tmp_path):
    tensors = {**synth.checkpoint("7"), NAME(1): np.zeros((2, 64, 64), np.float32)}
    source = write_pth(tmp_path / "in.pth", views(tensors, "fp32"))
    with pytest.raises(ModelError, match=rf"missing '{NAME(0)}', '{NAME(2)}'; found"):
        rwkv_convert.convert(source, tmp_path / "out.bin")


def test_checkpoint_of_version_4_with_a_state_is_refused(tmp_path):
    """It has no heads, so `info` never says that it begins with one."""
    tensors = {**synth.checkpoint("4", n_layer=2), **synth.time_state(n_layer=2)}
    source = write_pth(tmp_path / "in.pth", views(tensors, "fp32"))
    for use in (rwkv_convert.info, lambda path: rwkv_convert.convert(path, tmp_path / "out.bin")):
        with pytest.raises(ModelError, match=rf"of other versions '{NAME(0)}', '{NAME(1)}'"):
            use(source)
    assert not (tmp_path / "out.bin").exists()


def test_state_file_is_not_written_over(tmp_path, make_pth, tuned):
    with pytest.raises(OutputError, match="is the input"):
        rwkv_convert.convert(make_pth(), tuned(), time_state=tuned(), force=True)


def test_integers_are_no_state(tmp_path, make_pth, tuned, monkeypatch):
    monkeypatch.setitem(checkpoint_writers.STORAGES, "fp32", "IntStorage")
    source = tuned()
    monkeypatch.undo()
    for use in (
        lambda: rwkv_convert.convert(make_pth(), tmp_path / "out.bin", time_state=source),
        lambda: read_time_state(source),
    ):
        with pytest.raises(ModelError, match="expected bf16, fp16, fp32 or fp64"):
            use()


# ---- the command


def test_command(capsys, make_pth, tuned, tmp_path):
    state = tuned("bf16")
    out = tmp_path / "out.bin"
    code, output, errors = run(capsys, make_pth("7"), out, "--time-state", state)
    assert (code, errors) == (0, "")
    assert f"begins with the initial state of {state}" in output
    assert "begins with its own initial state" in run(capsys, "--info", out)[1]
    assert "initial state" not in run(capsys, "--info", make_pth("7"))[1]
    assert json.loads(run(capsys, "--info", out, "--json")[1])["has_time_state"] is True
    code, _, errors = run(capsys, make_pth("4"), out, "--force", "--time-state", state)
    assert code == 1 and "no heads" in errors


# ---- read


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16"])
def test_read(tmp_path, container, type):
    state = synth.time_state(n_layer=12, n_embd=64, head_size=16)
    source = WRITERS[container](tmp_path / "state", dict(sorted(state.items())), type)
    found = read_time_state(source)
    assert found.dtype == np.float32
    expected = np.stack([rounded(state, type)[NAME(i)] for i in range(12)])
    np.testing.assert_array_equal(found, expected, strict=True)


def test_read_of_model_files(tmp_path, make_pth, tuned):
    rwkv_convert.convert(make_pth("6"), tmp_path / "out.bin", dtype="q4_0", time_state=tuned())
    np.testing.assert_array_equal(read_time_state(tmp_path / "out.bin"), read_time_state(tuned()))


def test_read_transposed_views(tmp_path):
    """What `x.transpose(1, 2)` saves."""
    state = synth.time_state(n_layer=1, n_embd=64, head_size=32)
    view = views(state, "fp32")[NAME(0)]
    view.strides = (1024, 1, 32)
    found = read_time_state(write_pth(tmp_path / "state.pth", {NAME(0): view}))
    np.testing.assert_array_equal(found[0], state[NAME(0)].swapaxes(1, 2))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(2, 64, 64), (4, 64, 64)],
            rf"'{NAME(1)}': shape, expected \(2, 64, 64\), got \(4, 64, 64\)",
        ),
        ([(8192,)], r"shape, expected \(heads, size, size\), got \(8192,\)"),
        ([(2, 64, 32)], r"shape, expected \(heads, size, size\), got \(2, 64, 32\)"),
    ],
)
def test_read_refuses_odd_shapes(tmp_path, shapes, message):
    tensors = {NAME(i): np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    with pytest.raises(ModelError, match=message):
        read_time_state(write_pth(tmp_path / "state.pth", views(tensors, "fp32")))


def test_read_refuses_a_small_file_that_asks_for_much_memory(tmp_path):
    data = np.zeros(16 * 64 * 64, "<f4")
    view = View("0", "fp32", data, (16, 64, 64), (4096, 64, 1))  # shared by all layers
    source = write_pth(tmp_path / "state.pth", {NAME(i): view for i in range(4097)})
    assert source.stat().st_size < 2_000_000
    with pytest.raises(ModelError, match="expected at most 1073741824 bytes, got 1074003968"):
        read_time_state(source)


def test_a_state_is_no_checkpoint(tmp_path, tuned):
    with pytest.raises(
        ModelError, match=r"expected a model, got an initial state.*Try it as time_state=,"
    ):
        rwkv_convert.convert(tuned(), tmp_path / "out.bin")
    with pytest.raises(ModelError, match="Try it as time_state="):
        rwkv_convert.info(tuned())
