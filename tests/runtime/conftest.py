"""Fixtures for the tests of the runtime: kernel levels and model files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.engine import LEVELS
from twin import ggmf, synth
from twin.golden import load_golden

ModelFile = Callable[..., Path]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kernel level of this machine in turn: models opened in the test use it."""
    monkeypatch.setenv("RWKV_KERNELS", request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def golden_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`golden_file("rwkv-7-2x64")`: the fp32 model file of a golden checkpoint."""
    folder = tmp_path_factory.mktemp("golden")

    def model_file(name: str) -> Path:
        path = folder / f"{name}.bin"
        if not path.exists():
            ggmf.write(path, ggmf.convert_reference(load_golden(name).checkpoint()))
        return path

    return model_file


@pytest.fixture(scope="session")
def synth_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """`synth_file("5.2", "q4_1")`: the model file of a random checkpoint."""
    folder = tmp_path_factory.mktemp("synth")

    def model_file(version: str, type: str) -> Path:
        path = folder / f"rwkv-{version}-{type}.bin"
        if not path.exists():
            checkpoint = synth.checkpoint(version, seed=5)
            ggmf.write(path, ggmf.convert_reference(checkpoint, type), type)
        return path

    return model_file


@pytest.fixture(scope="session")
def matmul_probe(native_build: Path) -> Path:
    """The program that computes one matrix product: see native/tests/matmul_probe.cpp."""
    path = native_build / "tests" / "matmul_probe"
    assert path.is_file(), f"{path}: expected a built program. Try `hatch run native`."
    return path


@pytest.fixture(scope="session")
def main_rwkv(native_build: Path) -> Path:
    """The example program that feeds one token and keeps the state in files."""
    path = native_build / "examples" / "main_rwkv"
    assert path.is_file(), f"{path}: expected a built program. Try `hatch run native`."
    return path
