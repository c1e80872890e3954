"""The twin against rwkv.cpp's expected logits and against the reference's golden ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from twin import ggmf, synth
from twin.block_types import (
    BLOCK_TYPES,
    QK,
    TYPES,
    Activations,
    Floats,
    block_sums,
    dequantize,
    matmul,
    pack,
    quantize,
    quantize_activations,
    unpack,
)
from twin.golden import FOLDER, GOLDEN, Golden, load_golden
from twin.model import Model, load

# name, the tolerance of its expected logits, ln_x_eps (rwkv.cpp has 1e-5 for v5)
TINY = {
    "4v0-660K-FP32": (1e-3, None),
    "5v2-730K-FP32": (1e-3, 1e-5),
    "6v0-3m-Q5_1": (0.3, None),
    "7v0-834K-FP32": (1e-3, None),
}


def open_checkpoint(
    checkpoint: synth.Checkpoint,
    type: str = "fp32",
    activations: Activations = "quantized",
    dtype: type[np.floating] = np.float64,
) -> Model:
    """A model of a checkpoint, without a file between."""
    tensors = ggmf.convert_reference(checkpoint, type)
    n_vocab, n_embed = checkpoint["emb.weight"].shape
    n_layer = sum(name.endswith("ln1.weight") for name in checkpoint)
    file = ggmf.ModelFile(ggmf.VERSION, n_vocab, n_embed, n_layer, type, tensors)
    return Model(file, activations=activations, dtype=dtype)


# --------------------------------------------------------------------------------------------------
# Whole models


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TINY)
def test_model_tiny_expected_logits(shared: Path, name: str, dtype: type[np.floating]) -> None:
    tolerance, ln_x_eps = TINY[name]
    model = load(shared / f"models/tiny-rwkv-{name}.bin", ln_x_eps=ln_x_eps, dtype=dtype)
    expected = np.fromfile(
        shared / f"models/expected-logits-{name.rsplit('-', 1)[0]}.bin", dtype="<f4"
    )
    logits = model.forward(b'"in')
    np.testing.assert_allclose(logits[-1], expected, rtol=0, atol=tolerance)


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(request.param)


def test_golden_covers_all_versions() -> None:
    assert {load_golden(name).version for name in GOLDEN} == set(synth.VERSIONS)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_model_golden_logits(golden: Golden, dtype: type[np.floating], tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    ggmf.write(path, ggmf.convert_reference(golden.checkpoint()))
    model = load(path, dtype=dtype)
    state = model.new_state()
    logits = model.forward(golden.tokens, state)
    np.testing.assert_allclose(logits, golden.logits, rtol=0, atol=3e-5)
    if golden.state is not None:
        np.testing.assert_allclose(state, golden.state, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_model_trained_checkpoint(
    converted: Callable[[str], Path], dtype: type[np.floating]
) -> None:
    """The shipped checkpoint, as rwkv-convert writes it, gives the reference's logits."""
    with np.load(FOLDER / "rwkv7-pydoc.npz") as golden:
        logits = load(converted("fp32"), dtype=dtype).forward(golden["tokens"].tolist())
        np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=5e-5)


def test_model_golden_ln_x_eps_matters(golden: Golden) -> None:
    """The golden logits tell 64e-5 from 1e-5, so they test the epsilon."""
    tensors = ggmf.convert_reference(golden.checkpoint())
    file = ggmf.ModelFile(101, golden.n_vocab, golden.n_embd, golden.n_layer, "fp32", tensors)
    if golden.version == "4":
        with pytest.raises(ValueError, match="ln_x_eps"):
            Model(file, ln_x_eps=1e-5)
    else:
        logits = Model(file, ln_x_eps=1e-5).forward(golden.tokens)
        assert np.abs(logits - golden.logits).max() > 1e-2


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_model_chunks_agree_with_whole(version: str) -> None:
    model = open_checkpoint(synth.checkpoint(version, n_embd=64, head_size=32))
    tokens = list(range(12))
    whole = model.forward(tokens)
    state = model.new_state()
    parts = [model.forward(tokens[a:b], state) for a, b in ((0, 1), (1, 6), (6, 8), (8, 12))]
    # float32 states between the chunks
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("type", BLOCK_TYPES)
@pytest.mark.parametrize("version", synth.VERSIONS)
def test_model_quantized_stays_near_fp32(version: str, type: str) -> None:
    checkpoint = synth.checkpoint(version)
    tokens = list(range(16))
    expected = open_checkpoint(checkpoint).forward(tokens)
    loss = {}
    for activations in ("quantized", "float"):
        logits = open_checkpoint(checkpoint, type, activations).forward(tokens)
        loss[activations] = np.sqrt(np.mean((logits - expected) ** 2)) / expected.std()
    # Random weights have no slack: a code's rounding shows in full, most in the gateless 5.1.
    limit = {4: 0.35, 5: 0.2, 8: 0.045}[BLOCK_TYPES[type].bits]
    assert loss["quantized"] < limit
    assert loss["float"] < limit


# --------------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("name", TINY)
def test_ggmf_tiny_written_as_read(shared: Path, name: str, tmp_path: Path) -> None:
    source = shared / f"models/tiny-rwkv-{name}.bin"
    file = ggmf.read(source)
    ggmf.write(tmp_path / "copy.bin", file.tensors, file.type)
    # Beyond magic and version: one of them is of version 100.
    assert (tmp_path / "copy.bin").read_bytes()[8:] == source.read_bytes()[8:]


@pytest.mark.parametrize(
    ("name", "version", "type", "config"),
    [
        ("4v0-660K-FP32", "4", "fp32", {"n_layer": 4, "n_embd": 128, "n_ffn": 256}),
        (
            "5v2-730K-FP32",
            "5.2",
            "fp32",
            {"n_layer": 12, "n_embd": 64, "head_size": 8, "n_ffn": 256},
        ),
        ("6v0-3m-Q5_1", "6", "q5_1", {"n_layer": 12, "n_embd": 128, "head_size": 8}),
        ("7v0-834K-FP32", "7", "fp32", {"n_layer": 12, "n_embd": 64, "rank_wide": 32}),
    ],
)
def test_convert_reference_gives_rwkv_cpp_tensors(
    shared: Path, name: str, version: str, type: str, config: dict[str, Any]
) -> None:
    """A checkpoint of a tiny model's size becomes a file with that model's names, shapes, types."""
    tensors = ggmf.convert_reference(
        synth.checkpoint(version, n_vocab=256, **config), type, layout="rwkv.cpp"
    )
    file = ggmf.read(shared / f"models/tiny-rwkv-{name}.bin")
    expected = {name: (t.type, t.shape) for name, t in file.tensors.items()}
    if version == "6":  # made from an fp32 file, not through fp16
        expected["emb.weight"] = ("fp16", (256, 128))
        expected["head.weight"] = ("fp16", (256, 128))
    assert {name: (t.type, t.shape) for name, t in tensors.items()} == expected


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("version", synth.VERSIONS)
def test_ggmf_round_trip(version: str, type: str, tmp_path: Path) -> None:
    tensors = ggmf.convert_reference(synth.checkpoint(version, n_embd=64, n_layer=2), type)
    ggmf.write(tmp_path / "model.bin", tensors, type)
    file = ggmf.read(tmp_path / "model.bin")
    assert (file.n_vocab, file.n_embed, file.n_layer, file.type) == (64, 64, 2, type)
    assert list(file.tensors) == list(tensors)
    for name, tensor in tensors.items():
        read = file.tensors[name]
        assert (read.type, read.shape) == (tensor.type, tensor.shape)
        np.testing.assert_array_equal(read.data, tensor.data)


# --------------------------------------------------------------------------------------------------
# Block types

blocks_of_floats = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.just(QK)),
    elements=st.floats(-60000, 60000, width=32),
)


@pytest.mark.parametrize("type", BLOCK_TYPES)
@given(data=st.data())
def test_blocks_pack_inverts_unpack(type: str, data: st.DataObject) -> None:
    """Any bytes whose d and m are no NaN (a NaN's payload need not survive)."""
    layout = BLOCK_TYPES[type]
    raw = data.draw(st.binary(min_size=layout.block_bytes, max_size=layout.block_bytes))
    blocks = unpack(type, np.frombuffer(raw, dtype=np.uint8))
    packed = pack(type, blocks.d, blocks.m, blocks.q + layout.zero)
    if not (np.isnan(blocks.d) | (blocks.m is not None and np.isnan(blocks.m))).any():
        assert packed.tobytes() == raw


@pytest.mark.parametrize("type", BLOCK_TYPES)
@given(x=blocks_of_floats)
def test_blocks_error_bound(type: str, x: Floats) -> None:
    """Values come back to within a step: half of one, a whole one where the top code is clipped."""
    values = dequantize(quantize(x, type)).astype(np.float64)
    layout = BLOCK_TYPES[type]
    if layout.has_min:
        step = (x.max(axis=1) - x.min(axis=1).astype(np.float64)) / (2**layout.bits - 1) / 2
    elif type == "q8_0":
        step = np.abs(x).max(axis=1) / 127.0 / 2
    else:
        step = np.abs(x).max(axis=1) / float(layout.zero)
    # fp16's rounding of d and m: 2^-11 of the value, or 2^-25 where it is subnormal, times a code
    rounding = np.abs(x).max(axis=1) * 2.0**-9 + 2.0**-25 * 128
    assert (np.abs(values - x) <= (step * 1.0001 + rounding)[:, None]).all()


@pytest.mark.parametrize("type", BLOCK_TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "tiny d", "max - min overflows"])
def test_blocks_undefined_become_zeros(type: str, bad: float | str) -> None:
    x = np.linspace(-1, 1, 2 * QK, dtype=np.float32)
    good = quantize(x, type).data.reshape(2, -1)[0]
    if bad == "tiny d":
        x[QK:] = 0
        x[QK] = 1e-38  # d is about 1e-39
    elif bad == "max - min overflows":
        x[QK : QK + 2] = -3e38, 3e38
    else:
        x[QK + 5] = bad
    with np.errstate(over="ignore"):
        data = quantize(x, type).data.reshape(2, -1)
    np.testing.assert_array_equal(data[0], good)  # only the bad block suffers
    if bad == "max - min overflows" and not BLOCK_TYPES[type].has_min:
        return  # such a block is defined: its d is beyond fp16, so infinite
    zeros = pack(
        type,
        np.zeros(1),
        np.zeros(1) if BLOCK_TYPES[type].has_min else None,
        np.full((1, QK), BLOCK_TYPES[type].zero),
    )
    np.testing.assert_array_equal(data[1], zeros[0])
    assert not dequantize(quantize(x, type))[QK:].any()


# --------------------------------------------------------------------------------------------------
# The quantised product


def test_activations_round_half_to_even() -> None:
    x = np.zeros(QK, dtype=np.float32)
    x[:7] = 127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5
    d, q = quantize_activations(x)
    assert d == 1
    assert q[0, :7].tolist() == [127, 0, 2, 2, 0, -2, -2]


def test_activations_edges() -> None:
    x = np.ones((6, QK), dtype=np.float32)
    x[0] = 0
    x[1] = 1e-37  # 127 / amax overflows
    x[2, 3] = np.nan
    x[3, 31] = np.inf
    x[4, 0] = -np.inf
    x[5] = 3e38
    d, q = quantize_activations(x)
    assert d[:2, 0].tolist() == [0, 0]
    assert np.isnan(d[2:5, 0]).all()
    assert not q[:5].any()
    assert d[5, 0] == np.float32(3e38) / np.float32(127)
    assert (q[5] == 127).all()


@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_matmul_equals_scalar_formula(type: str) -> None:
    """The vectorised product against the formula, one value after the other."""
    random = np.random.RandomState(0)
    matrix, x = random.standard_normal((5, 96)), random.standard_normal((3, 96))
    tensor = quantize(matrix, type)
    w = unpack(type, tensor.data)
    d_x, q_x = quantize_activations(x)
    expected = np.zeros((3, 5))
    for t in range(3):
        for row in range(5):
            for b in range(3):
                block = 3 * row + b
                codes = zip(w.q[block].tolist(), q_x[t, b].tolist(), strict=True)
                isum = sum(q_w * q for q_w, q in codes)
                expected[t, row] += float(w.d[block]) * float(d_x[t, b]) * isum
                if w.m is not None:
                    expected[t, row] += float(w.m[block]) * float(d_x[t, b]) * q_x[t, b].sum()
    np.testing.assert_allclose(matmul(tensor, x), expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(matmul(tensor, x), x @ dequantize(tensor).T, atol=0.2)
    plain = matmul(tensor, x, activations="float")
    np.testing.assert_allclose(plain, x @ dequantize(tensor).T.astype(np.float64), rtol=1e-13)


@given(
    w=arrays(np.int32, (2, 3, QK), elements=st.integers(-128, 127)),
    x=arrays(np.int32, (4, 3, QK), elements=st.integers(-127, 127)),
)
def test_block_sums_exact(w: np.ndarray, x: np.ndarray) -> None:
    expected = np.einsum("rbi,tbi->trb", w.astype(np.int64), x.astype(np.int64))
    np.testing.assert_array_equal(block_sums(w, x), expected)


def test_block_sums_largest() -> None:
    w = np.full((1, 1, QK), -128, dtype=np.int32)
    x = np.full((1, 1, QK), 127, dtype=np.int32)
    assert block_sums(w, x).item() == -128 * 127 * QK


@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_matmul_not_finite_shows(type: str) -> None:
    tensor = quantize(np.random.RandomState(0).standard_normal((4, 64)), type)
    x = np.ones((2, 64))
    x[1, 40] = np.inf
    y = matmul(tensor, x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
