"""What RWKV-PEFT saves, merged: against numpy, for every version."""

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import rounded, views, write_pth, write_safetensors
from convert.layout_writers import fla_7
from rwkv_convert import ModelError, OptionError
from twin import synth

pytestmark = pytest.mark.slow

SIZES = {"n_layer": 2, "n_embd": 64, "head_size": 32, "n_vocab": 40}
RANK = 8
RANDOM = np.random.default_rng(5)


def random(*shape):
    return (0.1 * RANDOM.standard_normal(shape)).astype(np.float32)


def lora(name, w):
    return {name + ".lora_A": random(RANK, w.shape[1]), name + ".lora_B": random(w.shape[0], RANK)}


def matrices(checkpoint):
    """What RWKV-PEFT trains: the matrices of time mix and channel mix."""
    return {
        n.removesuffix(".weight"): a
        for n, a in checkpoint.items()
        if n.startswith("blocks.") and n.endswith(".weight") and a.ndim == 2
    }


def double(x):
    return x.astype(np.float64)


def merge_lora(w, name, factors, first):
    alpha = 24
    return double(w) + alpha / RANK * (
        double(factors[name + ".lora_B"]) @ double(factors[name + ".lora_A"])
    )


def merge_pissa(w, name, factors, first):
    return (
        double(w)
        - double(first[name + ".init_lora_B"]) @ double(first[name + ".init_lora_A"])
        + double(factors[name + ".lora_B"]) @ double(factors[name + ".lora_A"])
    )


def merge_disha(w, name, factors, first):
    d = double(factors[name + ".disha"])
    return double(w) + np.stack([d[i % len(d)] for i in range(w.shape[1])], axis=1)


def merge_blocks(w, name, factors, first):
    d = double(factors.get(name + ".bone", factors.get(name + ".disha")))
    r = d.shape[1]
    result = double(w)
    for i in range(0, w.shape[0], r):
        for j in range(0, w.shape[1], r):
            block = double(w[i : i + r, j : j + r])
            result[i : i + r, j : j + r] = block + block @ d[j // r] + d[j // r]
    return result


def blocks(kind):
    return lambda n, w: {f"{n}.{kind}": random(w.shape[1] // 16, 16, 16)}


KINDS = {
    "LoRA": (lora, merge_lora, {"merge_alpha": 24}),
    "PiSSA": (lora, merge_pissa, {}),
    "DiSHA": (lambda n, w: {n + ".disha": random(24, w.shape[0])}, merge_disha, {}),
    "Bat": (blocks("disha"), merge_blocks, {}),
    "Bone": (blocks("bone"), merge_blocks, {}),
}


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_merged_file_is_that_of_the_merged_checkpoint(tmp_path, monkeypatch, version, kind):
    monkeypatch.setattr("rwkv_convert.conversion.PIECE", 1024)  # several pieces to a matrix
    make, merge, options = KINDS[kind]
    checkpoint = rounded(synth.checkpoint(version, **SIZES), "bf16")
    targets = matrices(checkpoint)
    assert 10 <= len(targets) <= 18
    factors = {f: a for n, w in targets.items() for f, a in make(n, w).items()}
    factors = rounded(factors, "bf16")
    replaced = {n: a + 1 for n, a in checkpoint.items() if n.endswith(("ln1.bias", "ln_x.weight"))}
    first = {}
    if kind == "PiSSA":
        for n, w in targets.items():
            first |= {f.replace("lora_", "init_lora_"): a for f, a in lora(n, w).items()}
        first = rounded(first, "bf16")
        options = {"merge_init": write_pth(tmp_path / "init_pissa.pth", views(first, "bf16"))}
    merged = {**checkpoint, **replaced}
    for n, w in targets.items():
        merged[n + ".weight"] = merge(w, n, factors, first).astype(np.float32)

    out = tmp_path / "out.bin"
    base = write_pth(tmp_path / "base.pth", views(checkpoint, "bf16"))
    tuned = write_pth(tmp_path / "tuned.pth", views({**factors, **replaced}, "fp32"))
    reference = write_safetensors(tmp_path / "merged.st", merged, "fp32")
    summary = rwkv_convert.convert(
        base, out, dtype="fp32", merge=tuned, force=True, threads=2, **options
    )
    found = out.read_bytes()
    rwkv_convert.convert(reference, out, dtype="fp32", force=True)
    expected = out.read_bytes()
    assert len(found) == len(expected)
    ours, numpys = (np.frombuffer(data, np.uint8) for data in (found, expected))
    # Sums in another order: the last bit of a float64, which may turn one of fp32 in 10^8.
    assert np.count_nonzero(ours != numpys) <= 4
    assert f"{len(targets)} matrices changed, {len(replaced)} tensors replaced" in summary.notes[-1]

    rwkv_convert.convert(base, out, dtype="fp32", force=True)
    assert np.count_nonzero(np.frombuffer(out.read_bytes(), np.uint8) != numpys) > 50_000


def test_merge_into_another_layout_and_quantised(tmp_path):
    checkpoint = synth.checkpoint("7", **SIZES)
    factors = {f: a for n, w in matrices(checkpoint).items() for f, a in lora(n, w).items()}
    tuned = write_safetensors(tmp_path / "tuned.st", factors, "fp32")
    files = []
    for name, tensors in (("a", checkpoint), ("b", fla_7(checkpoint))):
        source = write_safetensors(tmp_path / f"{name}.st", tensors, "fp32")
        out = tmp_path / f"{name}.bin"
        rwkv_convert.convert(source, out, dtype="q4_0", merge=tuned, merge_alpha=8)
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_time_state_of_a_fine_tuning_is_taken(tmp_path, make_pth):
    state = synth.time_state(n_layer=2)
    tuned = write_safetensors(tmp_path / "tuned.st", state, "fp32")
    out = tmp_path / "a.bin"
    rwkv_convert.convert(make_pth("7"), out, merge=tuned)
    merged = out.read_bytes()
    rwkv_convert.convert(make_pth("7"), out, time_state=tuned, force=True)
    assert out.read_bytes() == merged


BASE = synth.checkpoint("7", n_layer=1, n_embd=64, n_vocab=16)
KEY = "blocks.0.att.key"
REFUSED = {
    "no alpha": (
        lora(KEY, BASE[KEY + ".weight"]),
        {},
        "expected LoRA's alpha, which the file does not hold, got none. Try merge_alpha=",
    ),
    "an alpha for nothing": (
        {KEY + ".disha": random(8, 64)},
        {"merge_alpha": 8},
        "expected LoRA, as there is an alpha, got none",
    ),
    "a matrix that is not there": (
        {"blocks.7.att.key.lora_A": random(4, 64)},
        {"merge_alpha": 8},
        r"tensors that belong to in\.pth, got 'blocks\.7\.att\.key\.lora_A'",
    ),
    "a tensor that is not there": (
        {"blocks.0.att.extra": random(64)},
        {},
        r"belong to in\.pth, got 'blocks\.0\.att\.extra'",
    ),
    "half of it": ({KEY + ".lora_A": random(4, 64)}, {"merge_alpha": 8}, "got 'lora_A'"),
    "two kinds": (
        {KEY + ".disha": random(8, 64), KEY + ".bone": random(2, 32, 32)},
        {},
        "got 'bone', 'disha'",
    ),
    "ranks that differ": (
        {KEY + ".lora_A": random(4, 64), KEY + ".lora_B": random(64, 5)},
        {"merge_alpha": 8},
        r"key\.lora_B', expected \(64, 4\), got \(64, 5\)",
    ),
    "of another width": (
        {KEY + ".lora_A": random(4, 32), KEY + ".lora_B": random(64, 4)},
        {"merge_alpha": 8},
        r"key\.lora_A', expected \(rank, 64\), got \(4, 32\)",
    ),
    "DiSHA of another width": (
        {KEY + ".disha": random(8, 32)},
        {},
        r"expected \(rank, 64\), got \(8, 32\)",
    ),
    "blocks that do not divide": (
        {KEY + ".bone": random(2, 30, 30)},
        {},
        r"expected \(64 / r, r, r\), with r a divisor of 64 too, got \(2, 30, 30\)",
    ),
    "a flat bone": ({KEY + ".bone": random(8, 64)}, {}, "with r a divisor"),
    "a vector's": ({"ln_out.lora_A": random(4, 64)}, {"merge_alpha": 8}, "rows of at most 65536"),
    "a replacement of another shape": (
        {"ln_out.weight": random(65)},
        {},
        r"shape of tensor 'ln_out\.weight'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path, case):
    tensors, options, message = REFUSED[case]
    base = write_pth(tmp_path / "in.pth", views(BASE, "fp32"))
    tuned = write_safetensors(tmp_path / "tuned.st", tensors, "fp32")
    with pytest.raises(ModelError, match=message):
        rwkv_convert.convert(base, tmp_path / "out.bin", merge=tuned, **options)
    assert not (tmp_path / "out.bin").exists()


def test_initial_factors_must_fit(tmp_path):
    base = write_pth(tmp_path / "in.pth", views(BASE, "fp32"))
    factors = lora(KEY, BASE[KEY + ".weight"])
    tuned = write_safetensors(tmp_path / "tuned.st", factors, "fp32")
    other = {f.replace("key.lora", "value.init_lora"): a for f, a in factors.items()}
    init = write_safetensors(tmp_path / "init.st", other, "fp32")
    out = tmp_path / "out.bin"
    with pytest.raises(ModelError, match=r"expected 'blocks\.0\.att\.key\.init_lora_A' and"):
        rwkv_convert.convert(base, out, merge=tuned, merge_init=init)
    right = {f.replace("lora", "init_lora"): a for f, a in factors.items()}
    write_safetensors(init, {**right, **other}, "fp32")
    with pytest.raises(ModelError, match=r"factors of tuned\.st, got 'blocks\.0\.att\.value\.init"):
        rwkv_convert.convert(base, out, merge=tuned, merge_init=init)


def test_model_file_is_no_base(tmp_path, make_pth):
    rwkv_convert.convert(make_pth("7"), tmp_path / "a.bin")
    tuned = write_safetensors(tmp_path / "tuned.st", {"ln_out.bias": random(128)}, "fp32")
    with pytest.raises(ModelError, match="expected a checkpoint to merge into, got a ggmf file"):
        rwkv_convert.convert(tmp_path / "a.bin", tmp_path / "b.bin", merge=tuned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge_alpha": 8}, "merge_alpha: expected it with merge="),
        ({"merge_init": "a"}, "merge_init: expected it with merge="),
        ({"merge": "a", "merge_init": "b", "merge_alpha": 8}, "PiSSA has no alpha"),
        ({"merge": "a", "merge_alpha": 0}, "expected a positive number, got 0"),
        ({"merge": "a", "merge_alpha": float("nan")}, "expected a positive number, got nan"),
    ],
)
def test_contradicting_options_are_refused(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        rwkv_convert.convert(tmp_path / "in.pth", tmp_path / "out.bin", **options)
