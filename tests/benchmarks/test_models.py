"""The synthetic checkpoints: real names and shapes, numbers that stay harmless."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from benchmarks.models import SHAPES, Random, Shape, model_file, ranks, tensors, write_checkpoint
from benchmarks.safetensors_file import read_safetensors

import rwkv_convert
from twin import layers, rwkv_v7
from twin.model import load

pytestmark = pytest.mark.slow

TOY = Shape("toy", n_layer=2, n_embd=128, n_vocab=300)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    write_checkpoint(TOY, path)
    return path


def test_ranks_of_the_released_shapes() -> None:
    assert ranks(768) == {"w": 64, "a": 64, "v": 32, "g": 128}
    assert ranks(1024) == {"w": 64, "a": 64, "v": 32, "g": 160}
    assert ranks(2048) == {"w": 96, "a": 96, "v": 64, "g": 256}


@pytest.mark.parametrize(
    ("name", "parameters"), [("0.1B", 191e6), ("0.4B", 451e6), ("1.5B", 1527e6)]
)
def test_sizes_are_those_of_the_released_models(name: str, parameters: float) -> None:
    count = sum(int(np.prod(t.shape)) for t in tensors(SHAPES[name]).values())
    assert count == pytest.approx(parameters, rel=0.01)


def test_checkpoint_is_one_that_the_converter_takes(checkpoint: Path, tmp_path: Path) -> None:
    info = rwkv_convert.info(checkpoint)
    assert (info.version, info.n_layer, info.n_embd, info.n_vocab) == ("7", 2, 128, 300)
    assert (info.n_head, info.head_size, info.n_ffn, info.unused) == (2, 64, 512, ())
    rwkv_convert.convert(checkpoint, tmp_path / "toy.bin", dtype="q4_0")


def test_checkpoint_holds_what_was_asked_for(checkpoint: Path) -> None:
    found = read_safetensors(checkpoint)
    asked = tensors(TOY)
    assert list(found) == list(asked)
    for name, tensor in asked.items():
        assert found[name].shape == tensor.shape, name
        values = found[name].astype(np.float64)
        if tensor.high > tensor.low:
            # fp16 rounds to 11 bits.
            slack = 2**-11 * max(abs(tensor.low), abs(tensor.high))
            assert tensor.low - slack <= values.min(), name
            assert values.max() <= tensor.high + slack, name
        else:
            # Four standard errors of an estimate from that many numbers.
            assert values.std() == pytest.approx(tensor.std, rel=4 / np.sqrt(2 * values.size)), name


def test_checkpoint_is_the_same_each_time(checkpoint: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    write_checkpoint(TOY, again)
    assert again.read_bytes() == checkpoint.read_bytes()


def zeros_of(model: Path, tokens: list[int], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The share of each layer's hidden values of the channel mix that relu makes zero."""
    shares = []

    def relu_squared(x: layers.Floats) -> layers.Floats:
        y = layers.relu_squared(x)
        shares.append(float(np.mean(y == 0)))
        return y

    monkeypatch.setattr(rwkv_v7, "relu_squared", relu_squared)
    load(model).forward(tokens)
    return shares


@pytest.mark.parametrize("relu_zeros", [0.5, 0.7])
def test_relu_makes_as_many_zeros_as_asked_for(
    relu_zeros: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, model = tmp_path / "toy.safetensors", tmp_path / "toy.bin"
    write_checkpoint(replace(TOY, relu_zeros=relu_zeros), source)
    rwkv_convert.convert(source, model, dtype="fp32")
    for share in zeros_of(model, list(range(60)), monkeypatch):
        assert share == pytest.approx(relu_zeros, abs=0.04)


@pytest.mark.slow
def test_trained_models_have_as_many_zeros(
    converted: Callable[[str], Path], repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repo / "examples/heldout_a.txt").read_bytes()[3000:3400]
    shares = zeros_of(converted("fp32"), list(text), monkeypatch)
    assert len(shares) == 6
    assert np.mean(shares) == pytest.approx(SHAPES["0.4B-relu70"].relu_zeros, abs=0.03)
    assert min(shares) > 0.55
    assert max(shares) < 0.8


def test_interrupted_checkpoint_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(Random, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(TOY, tmp_path / "toy.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_model_file_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKV_BENCH_CACHE", str(tmp_path))
    path = model_file(TOY, "q8_0")
    before = path.stat().st_mtime_ns
    assert model_file(TOY, "q8_0") == path
    assert path.stat().st_mtime_ns == before
    assert {p.name for p in tmp_path.iterdir()} == {"rwkv7-toy.safetensors", "rwkv7-toy-q8_0.bin"}


def test_peers_environments_need_no_converter() -> None:
    # The worker and the modules of the peers run where only numpy is installed.
    code = (
        "import sys; sys.modules['rwkv_convert'] = sys.modules['tqdm'] = None\n"
        "import benchmarks.worker, benchmarks.safetensors_file"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
