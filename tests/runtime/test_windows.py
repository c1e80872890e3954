"""The example program for Windows, run by wine, computes what it computes here, bit for bit.

`hatch run windows` builds and runs it; without that, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.engine import LEVELS

TOKENS = (3, 11, 7)
MODELS = [
    ("4", "q4_0"),
    ("5.2", "q5_1"),
    ("6", "q4_1"),
    ("7", "q8_0"),
    ("7", "fp16"),
    ("7", "fp32"),
]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def main_rwkv_exe(repo: Path) -> Path:
    path = repo / "build" / "windows" / "bin" / "main_rwkv.exe"
    if not path.is_file():
        pytest.skip("build/windows has no programs: run `hatch run windows` first")
    return path


@pytest.fixture(scope="session")
def wine(main_rwkv_exe: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """What runs programs, and its environment.

    Windows' services begin with the first program, have its output, and end some seconds after the
    last: here they begin by themselves, and stay until the end.
    """
    program = shutil.which("wine64") or shutil.which("wine") or "/usr/lib/wine/wine64"
    prefix = main_rwkv_exe.parents[1] / "wine"
    environment = {
        **os.environ,
        "WINEDEBUG": "-all",
        "WINEPREFIX": str(prefix),
        "LC_ALL": "C.UTF-8",  # wine reads names of files and arguments as the locale says
    }
    staying = subprocess.Popen(
        [program, "cmd", "/c", "pause"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    yield program, environment
    staying.communicate(b"\n", timeout=60)


@pytest.fixture(scope="session")
def run(main_rwkv: Path, main_rwkv_exe: Path, wine: tuple[str, dict[str, str]]) -> Run:
    """`run(on_windows, level, *arguments)`: the program's run."""
    program, environment = wine

    def run_main(
        on_windows: bool, level: str, *arguments: object
    ) -> subprocess.CompletedProcess[str]:
        command = [program, main_rwkv_exe] if on_windows else [main_rwkv]
        return subprocess.run(
            [*map(str, command), *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            env={**environment, "RWKV_KERNELS": level},
            timeout=120,
        )

    return run_main


def steps(run: Run, on_windows: bool, level: str, model: Path, folder: Path) -> list[bytes]:
    """State and logits after each token, as the program wrote them in `folder`."""
    state, logits = folder / "состояние.f32", folder / "logits-对数.f32"
    written = []
    for i, token in enumerate(TOKENS):
        done = run(on_windows, level, model, token, state if i > 0 else "", state, logits)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        written += [state.read_bytes(), logits.read_bytes()]
    return written


@pytest.mark.parametrize("level", [name for name in LEVELS if name in ("reference", "avx2")])
@pytest.mark.parametrize(("version", "type"), MODELS)
def test_windows_computes_the_same_bits(
    run: Run,
    synth_file: Callable[[str, str], Path],
    tmp_path: Path,
    level: str,
    version: str,
    type: str,
) -> None:
    folders = [tmp_path / "здесь", tmp_path / "там"]
    for folder in folders:
        folder.mkdir()
    model = synth_file(version, type)
    here, there = (steps(run, i == 1, level, model, folder) for i, folder in enumerate(folders))
    assert there == here


def test_windows_takes_paths_of_any_length(
    run: Run, synth_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = tmp_path.joinpath(*["глубже-深い-é" * 6] * 8)
    folder.mkdir(parents=True)
    assert len(str(folder)) > 500
    model = shutil.copy(synth_file("7", "q4_0"), folder / "модель.bin")
    short = tmp_path / "short"
    short.mkdir()
    here = steps(run, False, "reference", model, short)
    assert steps(run, True, "reference", model, folder) == here


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{folder}/нет.bin", 0, "", "s", "l"), "нет.bin: cannot be opened: No such file"),
        (("{folder}", 0, "", "s", "l"), "cannot be opened: expected a file, got a folder"),
        (("NUL", 0, "", "s", "l"), "expected a regular file, got a device or a pipe"),
        (("{model}", 0, "", "{folder}/no/s", "{folder}/l"), "no/s: No such file or directory"),
        (("{model}", 0, "{folder}", "s", "l"), "not a state of this model"),
        ((), "usage: main_rwkv MODEL TOKEN"),
    ],
)
def test_windows_says_what_is_wrong(
    run: Run,
    synth_file: Callable[[str, str], Path],
    tmp_path: Path,
    arguments: tuple[object, ...],
    words: str,
) -> None:
    model = synth_file("7", "q4_0")
    done = run(True, "reference", *(str(a).format(folder=tmp_path, model=model) for a in arguments))
    assert done.returncode in (1, 2) and words in done.stderr
    assert list(tmp_path.iterdir()) == []
