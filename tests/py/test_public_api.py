"""What `import rwkv_py` gives, and that what its documentation shows is true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rwkv_py
from rwkv_py import Model, Session, _core

MODULES = [
    module.name
    for module in pkgutil.walk_packages(rwkv_py.__path__, "rwkv_py.")
    if "._" not in module.name
]


def test_public_names_exist_and_are_documented() -> None:
    assert len(set(rwkv_py.__all__)) == len(rwkv_py.__all__)
    for name in rwkv_py.__all__:
        thing = getattr(rwkv_py, name)
        assert name == "__version__" or thing.__doc__, name


def test_every_public_method_is_documented() -> None:
    for name in rwkv_py.__all__:
        thing = getattr(rwkv_py, name)
        if not inspect.isclass(thing):
            continue
        for member, value in vars(thing).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(getattr(thing, member)), f"{name}.{member}"


def test_every_exception_is_an_rwkv_error() -> None:
    for name, thing in vars(rwkv_py.errors).items():
        if inspect.isclass(thing) and issubclass(thing, Exception):
            assert issubclass(thing, rwkv_py.RwkvError)
            assert name in rwkv_py.__all__


@pytest.mark.parametrize("module", ["rwkv_py", *MODULES])
def test_docstrings_run(
    module: str, converted: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples in the docstrings; `model.bin` is the shipped checkpoint in q4_0."""
    if module.startswith("rwkv_py.ray"):
        pytest.importorskip("ray", reason="only in `hatch run ray:test`")
    (tmp_path / "model.bin").symlink_to(converted("q4_0"))
    monkeypatch.chdir(tmp_path)
    model = Model("model.bin")
    session = Session(model)
    names = {**vars(rwkv_py), "model": model, "session": session}
    results = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert results.failed == 0


def test_abi_mismatch_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "abi_version", lambda: _core.ABI_VERSION + 1)
    with pytest.raises(ImportError, match=r"expected ABI \d+, got \d+\. Try `pip"):
        importlib.reload(rwkv_py)


def test_core_stub_names_what_core_has(repo: Path) -> None:
    """`_core.pyi` is written by hand: it must not fall behind."""
    stub = ast.parse((repo / "packages/rwkv-py/src/rwkv_py/_core.pyi").read_text())
    typed = {
        node.name: {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        | {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]
        for node in stub.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    classes = {name: thing for name, thing in vars(_core).items() if inspect.isclass(thing)}
    assert typed.keys() == classes.keys()
    for name, thing in classes.items():
        members = {m for m in vars(thing) if not m.startswith("_")}
        assert members == {m for m in typed[name] if not m.startswith("_")}, name
    functions = {n.name for n in stub.body if isinstance(n, ast.FunctionDef)}
    constants = {n.target.id for n in stub.body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]
    native = {name for name in vars(_core) if not name.startswith("_")} - classes.keys()
    assert functions | constants == native


def test_modules_are_there_but_imported_when_they_are_used() -> None:
    """As `import rwkv_py; rwkv_py.evaluate.perplexity(...)` is documented."""
    program = (
        "import sys, rwkv_py\n"
        "assert {'evaluate', 'speed'} <= set(dir(rwkv_py))\n"
        "assert not {'rwkv_py.evaluate', 'rwkv_py.speed'} & set(sys.modules)\n"
        "rwkv_py.evaluate.perplexity, rwkv_py.speed.measure\n"
        "try: rwkv_py.nonsense\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "module 'rwkv_py' has no attribute 'nonsense'\n", done.stderr
