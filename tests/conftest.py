"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from forks import Forks

# The same examples in every run: what breaks a test is a change, and not luck. No deadline, since
# the machine may be busy. `--hypothesis-profile=search` looks for others, and for more of them.
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("suite")

REPO = Path(__file__).resolve().parent.parent

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def examples(repo: Path) -> Path:
    """The folder with the shipped checkpoints and the text they never saw."""
    return repo / "examples"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models too foreign or too large to ship; `RWKV_SHARED` says where it is."""
    value = os.environ.get("RWKV_SHARED")
    if not value:
        pytest.skip("RWKV_SHARED is not set: the shared models are not at hand")
    folder = Path(value)
    assert folder.is_dir(), f"RWKV_SHARED: expected a folder, got {value}"
    return folder


@pytest.fixture(scope="session")
def native_build(repo: Path) -> Path:
    """The build folder of `hatch run native`: `main_rwkv` and the C examples are in it."""
    folder = repo / "build" / "native"
    if not (folder / "CMakeCache.txt").is_file():
        pytest.skip("build/native does not exist: run `hatch run native` first")
    return folder


def _run_cli(
    command: str | os.PathLike[str],
    *args: str | os.PathLike[str],
    check: bool = False,
    timeout: float = 120,
    env: dict[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment as a user would, capturing its output as text.

    `command` is a name installed beside the interpreter (`rwkv-convert`, `rwkv`) or a path.
    `env` is added to the present environment. With `check`, a failure raises with the output.
    """
    scripts = str(Path(sys.executable).parent)
    program = shutil.which(command, path=os.pathsep.join([scripts, os.environ.get("PATH", "")]))
    assert program is not None, f"{command}: expected an installed command, found none"
    done = subprocess.run(
        [program, *(os.fspath(a) for a in args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        input=stdin if stdin is not None else "",
    )
    return _checked(done) if check else done


def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, done.args))}: exit code {done.returncode}\n"
            f"{done.stdout}{done.stderr}"
        )
    return done


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """The command `rwkv`, imported once and run many times."""
    with Forks(tmp_path_factory.mktemp("forks")) as forks:
        yield forks


@pytest.fixture(scope="session")
def run_cli(forks: Forks) -> RunCli:
    """`run_cli("rwkv-convert", "in.pth", "out.bin", check=True)` -> CompletedProcess of str.

    `rwkv` is not started by a new interpreter where nothing depends on it: most of its time is
    that of imports.
    """

    def run(
        command: str, *args: str | os.PathLike[str], check: bool = False, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        if command != "rwkv" or options.keys() - {"stdin"}:
            return _run_cli(command, *args, check=check, **options)
        stdin = options.get("stdin") or ""
        ended = forks.run(*args, stdin=stdin.encode("utf-8", "surrogateescape"), seconds=250)
        assert ended.stdout is not None
        assert ended.stderr is not None
        done = subprocess.CompletedProcess(
            [command, *map(os.fspath, args)], ended.code, ended.stdout, ended.stderr
        )
        return _checked(done) if check else done

    return run


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`converted("q4_0")` is a shipped checkpoint as a model file, made once per run and type.

    It is the one that writes documentation; `converted("q8_0", "pychat")` the one that answers.
    """
    folder = tmp_path_factory.mktemp("converted")

    def model_file(dtype: str, name: str = "pydoc") -> Path:
        path = folder / f"rwkv7-{name}-{dtype}.bin"
        if not path.exists():
            checkpoint = REPO / "examples" / f"rwkv7-{name}-L6-D256.pth"
            _run_cli("rwkv-convert", checkpoint, path, "--dtype", dtype, check=True)
        return path

    return model_file
