"""The programs of docs/guides/other-languages.md, where their languages are at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import rwkv_runtime


def write_program(repo: Path, name: str, folder: Path) -> Path:
    page = (repo / "docs/guides/other-languages.md").read_text(encoding="utf-8")
    block = re.search(rf'^```\w+ title="{re.escape(name)}"\n(.*?)^```$', page, re.M | re.S)
    assert block is not None, name
    path = folder / name
    path.write_text(block[1], encoding="utf-8")
    return path


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=120,
        env={**os.environ, **env},
    )  # fmt: skip


def continues(model: Path, *command: str | Path, **env: str) -> None:
    done = run(*command, model, "import ", **env)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 50
    failed = run(*command, model.parent / "no.bin", "import ", **env)
    assert failed.returncode == 1
    assert "no.bin: cannot be opened" in failed.stderr


def test_rust(repo: Path, converted: Callable[[str], Path], tmp_path: Path) -> None:
    if shutil.which("rustc") is None:
        pytest.skip("rustc is not installed")
    source = write_program(repo, "main.rs", tmp_path)
    lib = rwkv_runtime.lib_dir()
    built = run(
        "rustc", "--edition", "2021", source, "-L", lib, "-l", "rwkv_runtime",
        "-C", f"link-arg=-Wl,-rpath,{lib}", "-o", tmp_path / "main",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    continues(converted("q4_0"), tmp_path / "main")


def test_node(repo: Path, converted: Callable[[str], Path], tmp_path: Path) -> None:
    """NODE_PATH names the folder that koffi is installed in, where that is not node's own."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if run("node", "-e", "require('koffi')").returncode != 0:
        pytest.skip("koffi is not installed: `npm install koffi`, and set NODE_PATH")
    source = write_program(repo, "main.js", tmp_path)
    continues(converted("q4_0"), "node", source, RWKV_LIBRARY=str(rwkv_runtime.library_path()))
