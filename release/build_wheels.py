"""Wheels for every system, cross-compiled by zig: `hatch run wheels`.

Source distributions are made first, and every wheel from them. Whoever builds the same commit in
another folder gets the same bytes: times are the commit's, and no path of the machine gets in.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from targets import TARGETS, Target

UV = Path(sysconfig.get_path("scripts")) / "uv"
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["rwkv-convert", "rwkv-runtime", "rwkv-py"]
# What pyproject.toml asks for to build, as --no-isolation needs it in a Python that is not ours.
BUILDERS = [
    "build",
    "hatchling>=1.27",
    "scikit-build-core[hatchling]>=1.0",
    "nanobind>=3",
    "cmake>=3.24",
    "ninja",
]


def run(*command: str | Path, **environment: str) -> None:
    """Runs a command with `environment` added; raises if it fails."""
    subprocess.run([*map(str, command)], check=True, env={**os.environ, **environment})


def commit_time() -> str:
    """When HEAD was committed, in seconds since 1970: the time of every file in a wheel."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def unpacked_sources(folder: Path) -> dict[str, Path]:
    """Makes the source distributions in `folder`/sdist, and unpacks each: package -> folder."""
    sources = {}
    for package in PACKAGES:
        run(
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--sdist",
            "-o",
            folder / "sdist",
            ROOT / "packages" / package,
        )
        stem = package.replace("-", "_")
        (archive,) = (folder / "sdist").glob(f"{stem}-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "src", filter="data")
        sources[package] = folder / "src" / archive.name.removesuffix(".tar.gz")
    return sources


def wheel(python: Path, source: Path, out: Path, **environment: str) -> Path:
    """Builds one wheel in the new folder `out`, with the builders that `python` has."""
    shutil.rmtree(out, ignore_errors=True)
    run(
        python,
        "-m",
        "build",
        "--no-isolation",
        "--skip-dependency-check",
        "--wheel",
        "-o",
        out,
        source,
        **environment,
    )
    (built,) = out.glob("*.whl")
    return built


def cross(source: Path, name: str, target: Target, *defines: str) -> dict[str, str]:
    """The environment in which CMake compiles `source` for a target, in source/build/name.

    From there the sources have the paths that they have in a checkout from build/name, so that a
    compiler's cache knows them.
    """
    return {
        "SKBUILD_BUILD_DIR": str(source / "build" / name),
        # zig's linker leaves symbols out, and not a program afterwards, which this machine may not
        # have, and which would spoil the signature of a library for macOS.
        "SKBUILD_INSTALL_STRIP": "false",
        "SKBUILD_CMAKE_ARGS": ";".join(
            [
                f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'native' / 'cmake' / 'zig.cmake'}",
                f"-DRWKV_ZIG_TARGET={target.zig}",
                "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
                *defines,
            ]
        ),
    }


def retagged(built: Path, platform: str, out: Path) -> Path:
    """The wheel for the platform that it was compiled for, in `out`."""
    name = subprocess.run(
        [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", platform, built],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    out.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(built.parent / name, out / name))


def python_with_builders(version: str, folder: Path) -> Path:
    """A Python of that version with the builders: ours, or one in an environment of its own."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return Path(sys.executable)
    environment = folder / f"python-{version}"
    run(UV, "venv", "-q", "--clear", "--no-python-downloads", "--python", version, environment)
    python = environment / "bin" / "python"
    run(UV, "pip", "install", "-q", "--python", python, *BUILDERS)
    return python


def build(targets: Iterable[Target], folder: Path, out: Path, pythons: list[str]) -> None:
    """All wheels and source distributions into `out`; what is made on the way into `folder`."""
    os.environ["SOURCE_DATE_EPOCH"] = commit_time()
    shutil.rmtree(folder / "src", ignore_errors=True)
    shutil.rmtree(folder / "sdist", ignore_errors=True)
    sources = unpacked_sources(folder)
    out.mkdir(parents=True, exist_ok=True)
    for archive in (folder / "sdist").iterdir():
        shutil.copyfile(archive, out / archive.name)
    ours = Path(sys.executable)
    builders = {version: python_with_builders(version, folder) for version in pythons}
    convert = wheel(ours, sources["rwkv-convert"], folder / "rwkv-convert")
    shutil.copyfile(convert, out / convert.name)
    for target in targets:
        place = folder / target.name
        source = sources["rwkv-runtime"]
        built = wheel(
            ours,
            source,
            place / "runtime",
            **cross(source, target.name, target, "-DRWKV_INSTALL_STATIC=OFF"),
        )
        runtime = retagged(built, target.platform, out)
        if target.soabi is None:
            continue
        installed = place / "installed"  # where rwkv-py's CMake finds the library
        shutil.rmtree(installed, ignore_errors=True)
        with zipfile.ZipFile(runtime) as packed:
            packed.extractall(installed)
        for version in pythons:
            source = sources["rwkv-py"]
            built = wheel(
                builders[version],
                source,
                place / f"py-{version}",
                **cross(
                    source,
                    f"{target.name}-{version}",
                    target,
                    # Python's headers define what those of some C libraries have defined, and
                    # without all of Python's nanobind takes stderr from GCC's C++ library alone.
                    "-DCMAKE_CXX_FLAGS=-Wno-macro-redefined -include cstdio",
                    f"-Drwkv_DIR={installed / 'rwkv_runtime' / 'lib' / 'cmake' / 'rwkv'}",
                ),
                # By which scikit-build-core names the extension, if it is not for the stable ABI.
                SETUPTOOLS_EXT_SUFFIX=f".cpython-{version.replace('.', '')}-{target.soabi}.so",
            )
            retagged(built, target.platform, out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hatch run wheels", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "wheels", metavar="DIR")
    parser.add_argument("--python", default="3.11,3.12", metavar="VERSION,...")
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"all, unless named: {', '.join(target.name for target in TARGETS)}",
    )
    asked = parser.parse_args()
    unknown = set(asked.targets) - {target.name for target in TARGETS}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    targets = [t for t in TARGETS if not asked.targets or t.name in asked.targets]
    out = asked.out.resolve()
    build(targets, asked.folder.resolve(), out, [v for v in asked.python.split(",") if v])
    run(sys.executable, ROOT / "release" / "check_wheels.py", out)


if __name__ == "__main__":
    main()
