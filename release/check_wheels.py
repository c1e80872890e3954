"""What is wrong with the wheels in dist/: prints it; the exit code is 1 if there is anything.

auditwheel says which systems a wheel for Linux runs on, abi3audit which Pythons; what libraries of
Windows and macOS ask for is read here. `--same-as DIR` compares every file with that of the same
name there, which was built elsewhere: bytes must be equal.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pefile
from macholib.MachO import MachO
from targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
OURS = {"librwkv_runtime.so"}  # which rwkv-py finds in rwkv-runtime
WINDOWS = re.compile(r"(kernel32|ntdll|api-ms-win-.*)\.dll", re.IGNORECASE)
MACOS = re.compile(r"/usr/lib/lib(System\.B|c\+\+\.1)\.dylib|@rpath/librwkv(_runtime)?\..*dylib")


def wrong_for_linux(wheel: Path, platform: str) -> Iterator[str]:
    """What auditwheel and abi3audit have against a wheel."""
    with tempfile.TemporaryDirectory() as nothing:
        # No library of this machine answers for one of musl's.
        elsewhere = ["--ldpaths", nothing] if "musl" in platform else []
        shown = subprocess.run(
            [SCRIPTS / "auditwheel", "show", "--json", *elsewhere, wheel],
            capture_output=True,
            text=True,
        )
    if shown.returncode != 0:
        yield f"auditwheel, expected to understand it, got {shown.stderr.strip().splitlines()[-1:]}"
        return
    found = json.loads(shown.stdout)
    if found["sym_tag"] != platform:
        yield f"symbols, expected those of {platform}, got {found['sym_tag']}"
    needed = {
        lib for policy in found["policy_upgrades"].values() for lib in policy["libs_to_eliminate"]
    }
    allowed = OURS if wheel.name.startswith("rwkv_py-") else set()
    if "musl" in platform:
        allowed = allowed | {"libc.so"}  # musl itself, whatever its file is called
    if (needed | set(found["external_libs"])) - allowed:
        yield f"libraries, expected none besides {allowed or 'its own'}, got {needed}"
    if wheel.name.startswith("rwkv_py-"):
        yield from wrong_extension(wheel, platform)
    if "-abi3-" in wheel.name:
        audit = subprocess.run(
            [SCRIPTS / "abi3audit", "--strict", wheel], capture_output=True, text=True
        )
        if audit.returncode != 0:
            yield f"abi3audit, expected no violation, got {audit.stdout}{audit.stderr}"


def wrong_extension(wheel: Path, platform: str) -> Iterator[str]:
    """An extension of another name is none to the Python that a wheel is for."""
    python, abi = wheel.stem.split("-")[2:4]
    (soabi,) = (target.soabi for target in TARGETS if target.platform == platform)
    ending = "abi3" if abi == "abi3" else f"{python.replace('cp', 'cpython-')}-{soabi}"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
    if names != [f"rwkv_py/_core.{ending}.so"]:
        yield f"extension, expected rwkv_py/_core.{ending}.so, got {names}"


def needed_libraries(name: str, data: bytes) -> set[str]:
    """What a library for Windows or macOS asks for by name."""
    if name.endswith(".dll"):
        return {entry.dll.decode() for entry in pefile.PE(data=data).DIRECTORY_ENTRY_IMPORT}
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        headers = MachO(file.name).headers
    return {need for header in headers for _, _, need in header.walkRelocatables()}


def wrong_inside(wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel's files, whatever it is for."""
    machine = [str(folder).encode() for folder in (ROOT, Path.home()) if folder != Path("/")]
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            data = archive.read(info)
            for path in machine:
                if path in data:
                    yield f"{info.filename}, expected no path of this machine, got {path.decode()}"
            if info.filename.endswith((".dll", ".dylib")):
                system = WINDOWS if info.filename.endswith(".dll") else MACOS
                for need in sorted(needed_libraries(info.filename, data)):
                    if not system.fullmatch(need):
                        yield f"{info.filename}, expected to need the system's, got {need}"
        if len({info.date_time for info in archive.infolist()}) != 1:
            yield "times of files, expected one, that of the commit, got several"


def wrong(wheel: Path) -> Iterator[str]:
    """Everything that is wrong with a wheel."""
    yield from wrong_inside(wheel)
    platform = wheel.stem.rpartition("-")[2]
    if platform not in {"any", *(target.platform for target in TARGETS)}:
        yield f"platform, expected one of release/targets.py, got {platform}"
    if "linux_" in platform:
        yield from wrong_for_linux(wheel, platform)


def differences(here: Path, there: Path) -> Iterator[str]:
    """Files of `here` that are not the same in `there`; what differs inside of wheels."""
    for file in sorted(here.iterdir()):
        other = there / file.name
        if not other.is_file():
            yield f"{file.name}: expected the same in {there}, got none"
        elif file.read_bytes() != other.read_bytes():
            inside = []
            if file.suffix == ".whl":
                one, two = (zipfile.ZipFile(BytesIO(f.read_bytes())) for f in (file, other))
                names = {*one.namelist(), *two.namelist()}
                both = {*one.namelist()} & {*two.namelist()}
                inside = sorted(n for n in names if n not in both or one.read(n) != two.read(n))
            yield f"{file.name}: expected the same bytes in {there}, got others: {inside}"


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="release/check_wheels.py", description=__doc__)
    parser.add_argument("dist", type=Path, nargs="?", default=ROOT / "dist")
    parser.add_argument("--same-as", type=Path, metavar="DIR")
    asked = parser.parse_args()
    wheels = sorted(asked.dist.glob("*.whl"))
    found = [] if wheels else [f"{asked.dist}: expected wheels, got none"]
    for wheel in wheels:
        found += (f"{wheel.name}: {reason}" for reason in wrong(wheel))
    if asked.same_as:
        found += differences(asked.dist, asked.same_as)
    for sentence in found:
        print(sentence, file=sys.stderr)
    print(f"{len(wheels)} wheels checked, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
