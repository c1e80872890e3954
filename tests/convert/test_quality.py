"""`--quality best`: the same types, with scales that are searched for."""

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from rwkv_convert.quantize import quantize
from rwkv_convert.weight_types import WEIGHT_TYPES
from twin import synth

TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K", "iq4_nl"]


def errors(x, data, type):
    """The squared error of each block of 32."""
    kind = WEIGHT_TYPES[type]
    values = kind.dequantize(data.reshape(-1, kind.size)).reshape(x.shape)
    return ((values.astype(np.float64) - x) ** 2).reshape(-1, 32).sum(axis=1)


@pytest.mark.parametrize("offset", [0, 1.5])
@pytest.mark.parametrize("type", TYPES)
def test_error_is_less(type, offset):
    x = np.random.default_rng(1).standard_normal((64, 512)).astype(np.float32) + np.float32(offset)
    ones = np.ones(512, np.float32)
    fast = errors(x, quantize(x, WEIGHT_TYPES[type]), type).sum()
    best = errors(x, quantize(x, WEIGHT_TYPES[type], ones), type).sum()
    assert best <= fast
    if type in ("q4_0", "q4_1", "q5_0", "q5_1"):
        assert best < 0.95 * fast


@pytest.mark.parametrize(("type", "lowest"), [("q4_0", -8), ("q5_0", -16)])
def test_error_is_the_least_there_is(type, lowest):
    """Within 2 % over all, of a scan over every scale of fp16 that may do."""
    x = np.random.default_rng(2).standard_normal((8, 256)).astype(np.float32)
    found = errors(x, quantize(x, WEIGHT_TYPES[type], np.ones(256, np.float32)), type)
    blocks = x.reshape(-1, 32)
    least = np.full(len(blocks), np.inf)
    for share in np.linspace(0.6, 1.3, 1500):
        for sign in (1, -1):
            d = sign * np.abs(blocks).max(axis=1, keepdims=True) * share / -lowest
            d = d.astype(np.float16).astype(np.float64)
            q = np.clip(np.rint(blocks / d), lowest, -lowest - 1)
            least = np.minimum(least, ((q * d - blocks) ** 2).sum(axis=1))
    assert found.sum() < 1.02 * least.sum()


@pytest.fixture
def checkpoint(tmp_path):
    model = synth.checkpoint("7", n_layer=2, n_vocab=256, n_embd=256, n_ffn=512)
    return write_pth(tmp_path / "model.pth", views(model, "fp32"))


@pytest.mark.parametrize("name", ["model.bin", "model.gguf"])
def test_files_are_alike_but_for_the_numbers(run_cli, tmp_path, checkpoint, name):
    fast, best = tmp_path / f"fast-{name}", tmp_path / f"best-{name}"
    command = ("rwkv-convert", checkpoint)
    assert run_cli(*command, fast, "--dtype", "q4_0").returncode == 0
    assert run_cli(*command, best, "--dtype", "q4_0", "--quality", "best").returncode == 0
    a, b = fast.read_bytes(), best.read_bytes()
    assert len(a) == len(b) and a != b
    assert rwkv_convert.info(fast).types == rwkv_convert.info(best).types
    again = tmp_path / f"again-{name}"
    rwkv_convert.convert(checkpoint, again, dtype="q4_0", quality="fast")
    assert again.read_bytes() == a


def test_refusals(tmp_path, checkpoint):
    out = tmp_path / "out.bin"
    with pytest.raises(rwkv_convert.OptionError, match="quality: expected one of fast, best, got"):
        rwkv_convert.convert(checkpoint, out, dtype="q4_0", quality="better")
    with pytest.raises(rwkv_convert.OptionError, match=r"quality: expected fast for the layout"):
        rwkv_convert.convert(checkpoint, out, dtype="q4_0", quality="best", layout="rwkv.cpp")
    for option, value in (("types", "q4_0"), ("blocks", np.zeros(1, np.uint8))):
        with pytest.raises(rwkv_convert.OptionError, match=f"{option}: expected names of the mod"):
            rwkv_convert.convert(checkpoint, out, dtype="q4_0", **{option: {"nothing": value}})
    with pytest.raises(rwkv_convert.OptionError, match=r"blocks: 'head.weight', expected 69632 b"):
        blocks = {"head.weight": np.zeros(1, np.uint8)}
        rwkv_convert.convert(checkpoint, out, dtype="q4_0", blocks=blocks)
    assert not out.exists()


@pytest.mark.parametrize("name", ["model.bin", "model.gguf"])
def test_types_and_blocks_of_single_tensors(tmp_path, checkpoint, name):
    """They are written as they are, wherever the pieces of the work begin."""
    key = "blocks.1.ffn.key.weight"
    with rwkv_convert.ModelWeights(checkpoint) as weights:
        values = weights.read(key)
    kind = WEIGHT_TYPES["q5_1"]
    blocks = quantize(-values, kind).reshape(-1)
    out = tmp_path / name
    rwkv_convert.convert(checkpoint, out, dtype="q4_0", types={key: "q5_1"}, blocks={key: blocks})
    with rwkv_convert.ModelWeights(out) as weights:
        found = weights.read(key)
        other = weights.read("blocks.0.ffn.key.weight")
    assert np.array_equal(found.reshape(-1, 32), kind.dequantize(blocks.reshape(-1, kind.size)))
    assert rwkv_convert.info(out).types["q5_1"].tensors == 1
    with rwkv_convert.ModelWeights(checkpoint) as weights:
        assert 0 < np.abs(other - weights.read("blocks.0.ffn.key.weight")).max() < 0.1


@pytest.mark.parametrize("version", ["4", "5.1", "5.2", "6", "7"])
def test_weights_are_those_of_the_file(tmp_path, make_pth, version):
    """`ModelWeights` of a checkpoint and of its fp32 file are the same, under the same names."""
    checkpoint = make_pth(version)
    rwkv_convert.convert(checkpoint, tmp_path / "fp32.bin", dtype="fp32")
    with (
        rwkv_convert.ModelWeights(checkpoint) as a,
        rwkv_convert.ModelWeights(tmp_path / "fp32.bin") as b,
    ):
        assert a.names == b.names and a.version == b.version == version
        for name in a.names:
            values = a.read(name)
            assert values.shape == a.shape(name) and np.array_equal(values, b.read(name))
