"""Models for the tests of rwkv_py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rwkv_py import Engine, Model, Session
from twin import ggmf, synth

ModelFile = Callable[..., Path]


@pytest.fixture(scope="session")
def trained(converted: Callable[[str], Path]) -> Model:
    """The shipped checkpoint in q4_0: bytes, and text that looks like documentation."""
    return Model(converted("q4_0"))


@pytest.fixture
def session(trained: Model) -> Session:
    return Session(trained)


@pytest.fixture
def engine(trained: Model) -> Iterator[Engine]:
    """For any number of requests; what they have not written when the test ends is cancelled."""
    with Engine(trained) as engine:
        yield engine
        engine.close(cancel=True)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """`model_file("6", n_vocab=256)`: a random fp32 model of that version, as a file."""
    folder = tmp_path_factory.mktemp("models")

    def make(version: str, **shape: int) -> Path:
        name = "-".join([version, *(f"{key}{value}" for key, value in sorted(shape.items()))])
        path = folder / f"{name}.bin"
        if not path.exists():
            ggmf.write(path, ggmf.convert_reference(synth.checkpoint(version, n_layer=2, **shape)))
        return path

    return make
