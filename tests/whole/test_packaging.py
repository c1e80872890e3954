"""What is released, and that its parts agree with each other."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import rwkv_runtime
import rwkv_runtime.__main__ as rwkv_runtime_command

PACKAGES = ["rwkv-convert", "rwkv-runtime", "rwkv-py"]


def project(repo: Path, package: str) -> dict:
    return tomllib.loads((repo / "packages" / package / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_licence_of_each_package_is_the_projects(repo: Path, package: str, name: str) -> None:
    # A source distribution cannot reach above its folder, so each package keeps a copy.
    assert (repo / "packages" / package / name).read_bytes() == (repo / name).read_bytes()


@pytest.mark.parametrize("package", PACKAGES)
def test_licence_files_are_installed(repo: Path, package: str) -> None:
    stated = project(repo, package)["license-files"]
    installed = {file.name for file in importlib.metadata.files(package) or []}
    assert {"LICENSE", "NOTICE"} <= set(stated) <= installed


@pytest.mark.parametrize("package", PACKAGES)
def test_installed_version_is_that_of_the_sources(repo: Path, package: str) -> None:
    assert importlib.metadata.version(package) == project(repo, package)["version"]


def test_native_version_is_that_of_the_package(repo: Path) -> None:
    version = project(repo, "rwkv-runtime")["version"]
    header = (repo / "native/include/rwkv/rwkv.h").read_text()
    cmake = (repo / "native/CMakeLists.txt").read_text()
    numbers = [
        re.search(rf"#define RWKV_VERSION_{part} (\d+)", header)[1]
        for part in ("MAJOR", "MINOR", "PATCH")
    ]
    assert ".".join(numbers) == version
    assert re.search(r'#define RWKV_VERSION_STRING "(.+)"', header)[1] == version
    assert re.search(r"project\(\s*rwkv\s+VERSION\s+([\d.]+)", cmake)[1] == version


def test_changelog_tells_the_version_of_each_package(repo: Path) -> None:
    changelog = (repo / "CHANGELOG.md").read_text()
    for package in PACKAGES:
        version = project(repo, package)["version"]
        assert re.search(rf"^## \[{re.escape(version)}\]", changelog, re.M), (package, version)


@pytest.mark.parametrize("module", ["rwkv_convert", "rwkv_runtime", "rwkv_py"])
def test_module_is_typed(module: str) -> None:
    assert resources.files(module).joinpath("py.typed").is_file()


def test_convert_needs_numpy_and_tqdm_only(repo: Path) -> None:
    needed = {re.match(r"[\w-]+", d)[0] for d in project(repo, "rwkv-convert")["dependencies"]}
    assert needed == {"numpy", "tqdm"}


def test_runtime_needs_nothing(repo: Path) -> None:
    assert not project(repo, "rwkv-runtime").get("dependencies")


def test_runtime_paths() -> None:
    assert rwkv_runtime.library_path().parent == rwkv_runtime.lib_dir()
    assert (rwkv_runtime.include_dir() / "rwkv" / "rwkv.h").is_file()
    assert (rwkv_runtime.cmake_dir() / "rwkv-config.cmake").is_file()
    assert (rwkv_runtime.pkgconfig_dir() / "rwkv.pc").is_file()
    assert (rwkv_runtime.pkgconfig_dir() / "rwkv_cpp.pc").is_file()
    assert rwkv_runtime.world_vocabulary_path().stat().st_size > 1_000_000


def test_runtime_paths_missing_file_is_named() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"rwkv_runtime: 'lib/nothing\.so', expected a file"
    ):
        rwkv_runtime._installed("lib", "nothing.so")


@pytest.mark.parametrize(
    ("system", "place"),
    [
        ("linux", "lib/librwkv_runtime.so"),
        ("darwin", "lib/librwkv_runtime.dylib"),
        ("win32", "bin/rwkv_runtime.dll"),
    ],
)
def test_runtime_library_on_each_system(
    system: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(rwkv_runtime.resources, "files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(place)):
        rwkv_runtime.library_path()
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).touch()
    assert rwkv_runtime.library_path() == tmp_path / place


def test_runtime_is_linked_on_windows_by_its_import_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(rwkv_runtime.resources, "files", lambda _: tmp_path)
    (tmp_path / "lib" / "pkgconfig").mkdir(parents=True)
    (tmp_path / "lib" / "pkgconfig" / "rwkv.pc").touch()
    assert rwkv_runtime_command.main(["--libs"]) == 0
    assert capsys.readouterr().out.split() == [f"-L{tmp_path / 'lib'}", "-lrwkv_runtime"]


def test_runtime_of_a_wheel_has_no_static_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rwkv_runtime.resources, "files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Try `pip install .*--no-binary rwkv-runtime"):
        rwkv_runtime.static_libraries()


def test_one_library_is_loaded() -> None:
    """rwkv_py's extension finds the sibling package's library, not a copy of its own."""
    import rwkv_py  # noqa: F401

    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc/self/maps")
    loaded = set(re.findall(r"(/\S*librwkv_runtime\S*)", maps.read_text()))
    assert {Path(p).resolve() for p in loaded} == {rwkv_runtime.library_path().resolve()}
