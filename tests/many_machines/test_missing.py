"""Without Ray."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("rwkv_py.ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "pyarrow", sys)  # whether or not it is there
    with pytest.raises(ImportError, match=r"expected the package ray.*pip install rwkv-py\[ray\]"):
        importlib.import_module("rwkv_py.ray")
