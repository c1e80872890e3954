"""A C program links with the installed rwkv-runtime, as examples/embed/CMakeLists.txt explains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rwkv_runtime


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def build_with_cmake(source: Path, folder: Path) -> Path:
    run(
        "cmake", "-S", source, "-B", folder, "-G", "Ninja", f"-Drwkv_DIR={rwkv_runtime.cmake_dir()}"
    )  # fmt: skip
    run("cmake", "--build", folder)
    return folder / "embed"


def build_with_pkg_config(source: Path, folder: Path) -> Path:
    def pkg_config(*args: str) -> list[str]:
        path = str(rwkv_runtime.pkgconfig_dir())
        return run(sys.executable, "-m", "pkgconf", *args, "rwkv", PKG_CONFIG_PATH=path).split()

    folder.mkdir(parents=True)
    (libdir,) = pkg_config("--variable=libdir")
    run(
        os.environ.get("CC", "cc"), "-std=c99", "-Wall", "-Werror", source / "main.c",
        *pkg_config("--cflags", "--libs"), f"-Wl,-rpath,{libdir}", "-o", folder / "embed",
    )  # fmt: skip
    return folder / "embed"


@pytest.mark.parametrize("build", [build_with_cmake, build_with_pkg_config])
def test_embedding(
    build: Callable[[Path, Path], Path],
    examples: Path,
    converted: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    program = build(examples / "embed", tmp_path / "build")
    text = run(program, converted("q4_0"), ".. function:: ")
    assert len(text) > 50
    assert run(program, converted("q4_0"), ".. function:: ") == text, "the same seed, another text"
    assert run(program, converted("q4_0"), "import ") != text
