"""Fixtures of the converter's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convert.checkpoint_writers import views, write_pth
from twin import synth


@pytest.fixture
def make_pth(tmp_path: Path) -> Callable[..., Path]:
    """`make_pth("7", "bf16", n_layer=2)` is a random checkpoint of that version."""

    def make(version: str = "7", type: str = "fp32", **options: int | bool) -> Path:
        checkpoint = synth.checkpoint(version, **{"n_layer": 2, **options})
        return write_pth(tmp_path / f"{version}-{type}.pth", views(checkpoint, type))

    return make
