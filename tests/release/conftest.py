"""The scripts of release/ as modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]


@pytest.fixture
def script(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """`script("check_wheels")`: release/check_wheels.py."""
    monkeypatch.syspath_prepend(repo / "release")
    return importlib.import_module
