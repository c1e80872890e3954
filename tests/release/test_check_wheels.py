"""`release/check_wheels.py` finds every kind of fault. `hatch run wheel-tools` brings its tools."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import rwkv_py
from release.conftest import Script

pytestmark = pytest.mark.slow
for tool in ("auditwheel", "abi3audit", "pefile", "macholib"):
    pytest.importorskip(tool, reason="run `hatch run wheel-tools` first")

TIME = (2026, 1, 1, 0, 0, 0)


@pytest.fixture
def check(script: Script) -> ModuleType:
    return script("check_wheels")


def make(path: Path, files: dict[str, bytes], time: tuple[int, ...] = TIME) -> Path:
    """A wheel with these files; the time is that of the last one."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, data) in enumerate(files.items()):
            last = i == len(files) - 1
            archive.writestr(zipfile.ZipInfo(name, time if last else TIME), data)
    return path


def found(check: ModuleType, wheel: Path, pattern: str) -> bool:
    sentences = list(check.wrong(wheel))
    return any(re.search(pattern, sentence) for sentence in sentences)


def test_pure_wheel_is_right(check: ModuleType, tmp_path: Path) -> None:
    wheel = make(tmp_path / "a-1-py3-none-any.whl", {"a.py": b"1", "b.py": b"2"})
    assert list(check.wrong(wheel)) == []


def test_times(check: ModuleType, tmp_path: Path) -> None:
    files = {"a.py": b"1", "b.py": b"2"}
    wheel = make(tmp_path / "a-1-py3-none-any.whl", files, (2026, 2, 2, 0, 0, 0))
    assert found(check, wheel, "times of files, expected one")


def test_path_of_the_machine(check: ModuleType, tmp_path: Path) -> None:
    wheel = make(tmp_path / "a-1-py3-none-any.whl", {"a.py": str(check.ROOT).encode()})
    assert found(check, wheel, r"a\.py, expected no path of this machine, got")


def test_platform(check: ModuleType, tmp_path: Path) -> None:
    wheel = make(tmp_path / "a-1-py3-none-solaris.whl", {"a.py": b"1"})
    assert found(check, wheel, "platform, expected one of release/targets.py, got solaris")


def test_newer_system(check: ModuleType, tmp_path: Path) -> None:
    """An extension that was compiled here asks for this system's C library."""
    name = "rwkv_py-1-cp311-cp311-manylinux_2_17_x86_64.whl"
    extension = Path(rwkv_py._core.__file__)
    files = {
        f"rwkv_py/{extension.name}": extension.read_bytes(),
        "rwkv_py-1.dist-info/RECORD": f"rwkv_py/{extension.name},,\n".encode(),
    }
    wheel = make(tmp_path / name, files)
    assert found(check, wheel, "symbols, expected those of manylinux_2_17_x86_64, got ")


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ("cp311-cp311-musllinux_1_2_x86_64", "_core.cpython-311-x86_64-linux-gnu.so"),
        ("cp311-cp311-manylinux_2_17_aarch64", "_core.cpython-311-x86_64-linux-gnu.so"),
        ("cp311-cp311-manylinux_2_17_x86_64", "_core.abi3.so"),
        ("cp312-abi3-manylinux_2_17_x86_64", "_core.cpython-312-x86_64-linux-gnu.so"),
    ],
)
def test_name_of_the_extension(check: ModuleType, tmp_path: Path, tags: str, name: str) -> None:
    wheel = make(tmp_path / f"rwkv_py-1-{tags}.whl", {f"rwkv_py/{name}": b""})
    platform = tags.rpartition("-")[2]
    (sentence,) = check.wrong_extension(wheel, platform)
    assert re.search("extension, expected rwkv_py/_core.*, got", sentence)


def test_libraries_that_are_asked_for(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KERNEL32.dll", "api-ms-win-crt-heap-l1-1-0.dll"):
        assert check.WINDOWS.fullmatch(name)
    for name in ("libstdc++-6.dll", "VCRUNTIME140.dll", "rwkv_runtime.dll"):
        assert not check.WINDOWS.fullmatch(name)
    for name in ("/usr/lib/libSystem.B.dylib", "@rpath/librwkv_runtime.0.1.dylib"):
        assert check.MACOS.fullmatch(name)
    for name in ("/opt/homebrew/lib/libomp.dylib", "/home/someone/librwkv_runtime.dylib"):
        assert not check.MACOS.fullmatch(name)


def test_same_bytes(check: ModuleType, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        make(folder / "a-1-py3-none-any.whl", {"a.py": b"1", "b.py": b"2"})
    assert list(check.differences(here, there)) == []
    make(there / "a-1-py3-none-any.whl", {"a.py": b"1", "b.py": b"3"})
    (sentence,) = check.differences(here, there)
    assert sentence.endswith("got others: ['b.py']")
    (there / "a-1-py3-none-any.whl").unlink()
    (sentence,) = check.differences(here, there)
    assert "expected the same in" in sentence


def test_no_wheels(
    check: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["check_wheels.py", str(tmp_path)])
    assert check.main() == 1
    assert "expected wheels, got none" in capsys.readouterr().err
