"""Wheels that `hatch run wheels` made, where their users are: what they compute is what the library
computes that was compiled here, bit for bit.

A wheel for Linux is run here, by the dynamic linker and C library of an older Debian, by musl, on
an emulated processor of 2008, and on an emulated Arm; one for Windows by wine. Without wheels, or
without the system that one is for, a test is skipped and says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.engine import LEVELS

pytestmark = pytest.mark.slow

TOKENS = (3, 11, 7)
MODELS = [("4", "q4_0"), ("6", "q5_1"), ("7", "q8_0"), ("7", "fp16")]
# What stands for the disk of a Windows, 700 MB: that of `hatch run windows`.
WINE = Path(__file__).resolve().parents[2] / "build" / "windows" / "wine"
NEHALEM = ["qemu-x86_64", "-cpu", "Nehalem"]  # x86-64 without AVX
ARM = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
ARM_LEVELS = ("reference", "neon", "neon_dotprod")


@dataclass(frozen=True)
class Place:
    """Where programs are run that were linked with a wheel's libraries."""

    name: str
    tag: str  # of the wheel
    zig: str  # what compiles programs for it
    runner: list[str]  # what runs them; {root} is the repository's
    levels: tuple[str, ...] = ("reference", "avx2")


PLACES = [
    Place("here", "manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17", []),
    Place("Nehalem", "manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17", NEHALEM, ("reference",)),
    Place(
        "glibc 2.31",  # mmdebstrap --variant=extract --include=libc6 bullseye build/old-glibc
        "manylinux_2_17_x86_64",
        "x86_64-linux-gnu.2.17",
        [
            "{root}/build/old-glibc/lib/x86_64-linux-gnu/ld-2.31.so",
            "--library-path",
            "{root}/build/old-glibc/lib/x86_64-linux-gnu",
        ],
    ),
    Place("musl", "musllinux_1_2_x86_64", "x86_64-linux-musl", ["/lib/ld-musl-x86_64.so.1"]),
    Place(
        "Arm",
        "manylinux_2_17_aarch64",
        "aarch64-linux-gnu.2.17",
        ARM,
        ARM_LEVELS,
    ),
    Place(
        "Arm, musl",  # build/arm-musl and the like: CONTRIBUTING.md says how to make them
        "musllinux_1_2_aarch64",
        "aarch64-linux-musl",
        ["qemu-aarch64", "-L", "{root}/build/arm-musl"],
        ARM_LEVELS,
    ),
    Place("Windows", "win_amd64", "x86_64-windows-gnu", ["/usr/lib/wine/wine64"]),
]

Programs = Callable[[Place], Path]


@pytest.fixture(scope="session")
def wheel(repo: Path) -> Callable[[str, str], Path]:
    """`wheel("rwkv_runtime", "win_amd64")`: the one in dist/, or wherever RWKV_WHEELS says."""
    dist = Path(os.environ.get("RWKV_WHEELS") or repo / "dist")

    def found(package: str, tag: str) -> Path:
        wheels = list(dist.glob(f"{package}-*-{tag}.whl"))
        if not wheels:
            pytest.skip(f"{dist} has no wheel of {package} for {tag}: run `hatch run wheels` first")
        (only,) = wheels
        return only

    return found


@pytest.fixture(scope="session")
def programs(
    repo: Path, wheel: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Programs:
    """The folder of main_rwkv and rwkv_cpp_program, linked with what a place's wheel has in it."""
    made: dict[str, Path] = {}

    def compiled(place: Place) -> Path:
        pytest.importorskip("ziglang", reason="no compiler for every system: run `hatch run zig`")
        if place.tag in made:
            return made[place.tag]
        folder = tmp_path_factory.mktemp("programs")
        with zipfile.ZipFile(wheel("rwkv_runtime", place.tag)) as archive:
            archive.extractall(folder)
        package = folder / "rwkv_runtime"
        tests = repo / "native" / "tests"
        for name, header, library, sources in [
            ("main_rwkv", ".", "rwkv_runtime", [repo / "native/examples/main_rwkv.c"]),
            (
                "rwkv_cpp_program",
                "rwkv_cpp",
                "rwkv",
                [tests / "rwkv_cpp_program.c", tests / "rwkv_cpp_checks.c"],
            ),
        ]:
            command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-target", place.zig]
            command += [
                *sources,
                f"-I{package / 'include' / header}",
            ]
            if "windows" in place.zig:  # which looks for libraries beside the program
                out = package / "bin" / f"{name}.exe"
                command += [package / "lib" / f"lib{library}.dll.a"]  # no -l of zig's finds it
            else:
                out = folder / name
                command += [
                    f"-L{package / 'lib'}",
                    f"-l{library}",
                    f"-Wl,-rpath,{package / 'lib'}",
                    "-lm",
                ]
            subprocess.run([*map(str, command), "-o", str(out)], check=True)
        made[place.tag] = package / "bin" if "windows" in place.zig else folder
        return made[place.tag]

    return compiled


@pytest.fixture(params=PLACES, ids=lambda place: place.name)
def place(request: pytest.FixtureRequest, repo: Path, programs: Programs) -> Place:
    """Each place that is there."""
    place: Place = request.param
    runner = [part.format(root=repo) for part in place.runner]
    if runner and shutil.which(runner[0]) is None:
        pytest.skip(f"no {runner[0]} here")
    if "-L" in runner and not Path(runner[-1]).is_dir():
        pytest.skip(f"no {runner[-1]} here")
    programs(place)
    if place.name == "Windows" and not WINE.is_dir():  # wine makes its folder, and says so
        WINE.parent.mkdir(parents=True, exist_ok=True)
        wine = {**os.environ, "WINEDEBUG": "-all", "WINEPREFIX": str(WINE)}
        command = [*runner, "cmd", "/c", "exit"]
        subprocess.run(command, env=wine, check=True, capture_output=True)
    return Place(place.name, place.tag, place.zig, runner, place.levels)


def run(
    place: Place, programs: Programs, level: str | None, name: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    folder = programs(place)
    program = folder / (f"{name}.exe" if place.name == "Windows" else name)
    environment = {**os.environ, "WINEDEBUG": "-all", "WINEPREFIX": str(WINE)}
    environment.pop("RWKV_KERNELS", None)
    if level is not None:
        environment["RWKV_KERNELS"] = level
    return subprocess.run(
        [*place.runner, str(program), *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=120,
    )


def steps(program: Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> list[bytes]:
    """State and logits after each token, as main_rwkv wrote them in `folder`, which is new."""
    folder.mkdir()
    state, logits = folder / "state", folder / "logits"
    written = []
    for i, token in enumerate(TOKENS):
        done = program(token, state if i > 0 else "", state, logits)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        written += [state.read_bytes(), logits.read_bytes()]
    return written


def native_steps(
    main_rwkv: Path, level: str, model: Path, folder: Path, runner: Sequence[str] = ()
) -> list[bytes]:
    def program(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*runner, str(main_rwkv), str(model), *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "RWKV_KERNELS": level},
        )

    return steps(program, folder)


@pytest.mark.parametrize("level", ["reference", "avx2", "neon", "neon_dotprod"])
@pytest.mark.parametrize(("version", "type"), MODELS)
def test_wheel_computes_the_same_bits(
    repo: Path,
    place: Place,
    programs: Programs,
    main_rwkv: Path,
    synth_file: Callable[[str, str], Path],
    tmp_path: Path,
    level: str,
    version: str,
    type: str,
) -> None:
    if level not in place.levels:
        pytest.skip(f"no level {level} there")
    runner: list[str] = []
    if level not in LEVELS:
        main_rwkv, runner = repo / "build" / "arm" / "examples" / "main_rwkv", ARM
        if "neon" not in level or not main_rwkv.is_file():
            pytest.skip(f"no level {level} here: run `hatch run arm` first if it is of Arm")
    model = synth_file(version, type)
    there = steps(
        lambda *a: run(place, programs, level, "main_rwkv", model, *a), tmp_path / "there"
    )
    assert there == native_steps(main_rwkv, level, model, tmp_path / "here", runner)


def test_wheel_on_a_processor_without_avx2_takes_the_level_reference(
    programs: Programs, main_rwkv: Path, synth_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    nehalem = next(place for place in PLACES if place.name == "Nehalem")
    if shutil.which(NEHALEM[0]) is None:
        pytest.skip("no qemu-x86_64 here")
    model = synth_file("7", "q4_0")
    there = steps(
        lambda *a: run(nehalem, programs, None, "main_rwkv", model, *a), tmp_path / "there"
    )
    assert there == native_steps(main_rwkv, "reference", model, tmp_path / "here")
    done = run(nehalem, programs, "avx2", "main_rwkv", model, 3, "", tmp_path / "s", tmp_path / "l")
    assert done.returncode == 1 and "avx2" in done.stderr


def test_drop_in_of_a_wheel_quantises_the_same_bytes(
    place: Place,
    programs: Programs,
    native_build: Path,
    synth_file: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    model = synth_file("7", "fp16")
    asked = ("rwkv_cpp_program", "quantize", model, tmp_path / "there", "Q4_0")
    done = run(place, programs, None, *asked)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
    here = native_build / "tests" / "rwkv_cpp_program"
    subprocess.run([here, "quantize", model, tmp_path / "here", "Q4_0"], check=True)
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


@pytest.mark.parametrize(("python", "tag"), [("3.11", "cp311-cp311"), ("3.12", "cp312-abi3")])
def test_wheels_install_and_run_without_a_compiler(
    python: str,
    tag: str,
    wheel: Callable[[str, str], Path],
    synth_file: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """With nothing on PATH but the new environment; then once more on a processor without AVX."""
    uv = pytest.importorskip("uv", reason="run `hatch run wheel-tools` first").find_uv_bin()
    platform = "manylinux_2_17_x86_64"
    wheels = [
        wheel("rwkv_runtime", platform),
        wheel("rwkv_py", f"{tag}-{platform}"),
        wheel("rwkv_convert", "any"),
    ]
    environment = tmp_path / "environment"
    made = subprocess.run(
        [uv, "venv", "--no-python-downloads", "--seed", "--python", python, environment],
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        pytest.skip(f"no Python {python} here: {made.stderr}")
    alone = {**os.environ, "PATH": str(environment / "bin")}
    alone.pop("PYTHONPATH", None)
    assert shutil.which("cc", path=alone["PATH"]) is None
    executable = environment / "bin" / "python"
    install = [executable, "-m", "pip", "install", "-q", "--only-binary", ":all:", *wheels]
    subprocess.run(install, check=True, env=alone)
    model = synth_file("7", "q4_0")
    info = subprocess.run(
        [environment / "bin" / "rwkv", "info", model], env=alone, capture_output=True, text=True
    )
    assert info.returncode == 0 and "q4_0" in info.stdout.lower(), info.stderr
    script = (
        "import rwkv_py, sys\n"
        "session = rwkv_py.Session(rwkv_py.Model(sys.argv[1]))\n"
        "print(session.feed([3, 11, 7]).tobytes().hex())"
    )
    command = [executable, "-c", script, model]
    alone["RWKV_KERNELS"] = "reference"
    here = subprocess.run(command, env=alone, check=True, capture_output=True).stdout
    del alone["RWKV_KERNELS"]
    qemu = shutil.which(NEHALEM[0])
    if qemu is None:
        pytest.skip("no qemu-x86_64 here")
    there = subprocess.run(
        [qemu, *NEHALEM[1:], *command], env=alone, check=True, capture_output=True
    ).stdout
    assert there == here


@pytest.mark.parametrize(
    ("debian", "python", "tag"),
    [("bookworm", "3.11", "cp311-cp311"), ("trixie", "3.13", "cp312-abi3")],
)
def test_wheels_for_arm_install_and_run_in_debians_python(
    debian: str,
    python: str,
    tag: str,
    repo: Path,
    wheel: Callable[[str, str], Path],
    main_rwkv: Path,
    synth_file: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """Under qemu-aarch64, with numpy's wheel for Arm."""
    uv = pytest.importorskip("uv", reason="run `hatch run wheel-tools` first").find_uv_bin()
    root = repo / "build" / f"arm-{debian}"
    qemu = shutil.which("qemu-aarch64")
    if qemu is None or not root.is_dir():
        pytest.skip(
            f"no qemu-aarch64, or no Debian in {root}: run `mmdebstrap --variant=extract "
            f"--architectures=arm64 --include=base-files,python3,libstdc++6 {debian} {root}`"
        )
    platform = "manylinux_2_17_aarch64"
    wheels = [wheel("rwkv_runtime", platform), wheel("rwkv_py", f"{tag}-{platform}")]
    packages = tmp_path / "packages"
    # numpy's wheel needs a newer system than ours: glibc 2.28.
    options = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", python]
    install = [uv, "pip", "install", "-q", *options, "--only-binary", ":all:", "--target", packages]
    subprocess.run([*install, *wheels], check=True)

    def there(*arguments: object) -> str:
        command = [qemu, "-L", root, root / "usr" / "bin" / f"python{python}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(packages), "RWKV_KERNELS": "reference"}
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    model = synth_file("7", "q4_0")
    assert "q4_0" in there(packages / "bin" / "rwkv", "info", model).lower()
    script = (
        "import rwkv_py, sys\n"
        "session = rwkv_py.Session(rwkv_py.Model(sys.argv[1]))\n"
        f"print([session.feed([token]).tobytes().hex() for token in {TOKENS}][-1])"
    )
    last = native_steps(main_rwkv, "reference", model, tmp_path / "here")[-1]
    assert there("-c", script, model).strip() == last.hex()
