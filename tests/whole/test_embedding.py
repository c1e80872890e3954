"""Programs link with the installed rwkv-runtime, each way that docs/guides/embedding.md shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import rwkv_convert
import rwkv_runtime
from convert.checkpoint_writers import views, write_pth
from twin import ggmf, synth

MODELS = ["bytes", "world", "gguf"]
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


class Example(NamedTuple):
    name: str
    source: str
    compiler: list[str]


EXAMPLES = [
    Example("embed-c", "main.c", [os.environ.get("CC", "cc"), "-std=c99"]),
    Example("embed-cpp", "main.cpp", [os.environ.get("CXX", "c++"), "-std=c++17"]),
]


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


def runtime(*arguments: str) -> list[str]:
    return run(sys.executable, "-m", "rwkv_runtime", *arguments).split()


def pkg_config(*arguments: str, module: str = "rwkv", folder: Path | None = None) -> list[str]:
    path = str(folder or rwkv_runtime.pkgconfig_dir())
    return run(sys.executable, "-m", "pkgconf", *arguments, module, PKG_CONFIG_PATH=path).split()


def cmake(example: Example, folder: Path, *options: str) -> Path:
    run("cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja",
        f"-Drwkv_DIR={rwkv_runtime.cmake_dir()}", *options)  # fmt: skip
    run("cmake", "--build", folder / "build")
    run("cmake", "--install", folder / "build", "--prefix", folder / "installed")
    return folder / "installed" / "bin" / example.name


def compiled(example: Example, folder: Path, *options: str) -> Path:
    program = folder / example.name
    source = folder / example.source
    run(*example.compiler, *WARNINGS, source, *options, "-o", program)
    return program


def cmake_shared(example: Example, folder: Path) -> Path:
    return cmake(example, folder)


def cmake_static(example: Example, folder: Path) -> Path:
    return cmake(example, folder, "-DEMBED_STATIC=ON")


def pkg_config_shared(example: Example, folder: Path) -> Path:
    return compiled(example, folder, *pkg_config("--cflags", "--libs"))


def pkg_config_static(example: Example, folder: Path) -> Path:
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    has_libc = subprocess.run(
        [EXAMPLES[0].compiler[0], "-static", empty, "-o", folder / "empty"], capture_output=True
    )
    if has_libc.returncode != 0:
        pytest.skip("the system has no static C library")
    return compiled(example, folder, "-static", *pkg_config("--static", "--cflags", "--libs"))


def module_shared(example: Example, folder: Path) -> Path:
    return compiled(example, folder, *runtime("--cflags", "--libs"))


def module_static(example: Example, folder: Path) -> Path:
    return compiled(example, folder, *runtime("--cflags", "--libs", "--static"))


Way = Callable[[Example, Path], Path]
SHARED = [cmake_shared, pkg_config_shared, module_shared]
STATIC = [cmake_static, pkg_config_static, module_static]


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, run_cli: Callable[..., object]
) -> dict[str, Path]:
    """Small random models: of bytes, of the World vocabulary, a GGUF file with the latter."""
    folder = tmp_path_factory.mktemp("models")
    for name, n_vocab in [("bytes", 256), ("world", 65536)]:
        weights = synth.checkpoint("7", n_layer=2, n_embd=64, n_vocab=n_vocab)
        ggmf.write(folder / f"{name}.bin", ggmf.convert_reference(weights, "fp16"), "fp16")
    write_pth(folder / "world.pth", views(weights, "bf16"))
    run_cli(
        "rwkv-convert", folder / "world.pth", folder / "model.gguf", "--dtype", "fp16", check=True
    )
    return {
        "bytes": folder / "bytes.bin",
        "world": folder / "world.bin",
        "gguf": folder / "model.gguf",
    }


@pytest.fixture
def copied(examples: Path, tmp_path: Path) -> Callable[[Example], Path]:
    """The example's files in a folder with nothing else."""

    def copy(example: Example) -> Path:
        return shutil.copytree(examples / example.name, tmp_path / example.name)

    return copy


def needs_library(program: Path) -> bool:
    return b"librwkv_runtime.so" in program.read_bytes()


@pytest.mark.slow  # .ci/run runs these against the wheel
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
@pytest.mark.parametrize("build", [*SHARED, *STATIC], ids=lambda way: way.__name__)
def test_builds_and_writes(
    build: Way, example: Example, copied: Callable[[Example], Path], models: dict[str, Path]
) -> None:
    program = build(example, copied(example))
    assert needs_library(program) == (build in SHARED)
    for name in MODELS:
        text = run(program, models[name], "The ")
        assert len(text) > 50, name
        assert run(program, models[name], "The ") == text, f"{name}: the same seed, another text"
    assert run(program, models["world"], "A ") != text


def test_texts_do_not_depend_on_their_neighbours(
    copied: Callable[[Example], Path], converted: Callable[[str], Path]
) -> None:
    program = module_shared(EXAMPLES[1], copied(EXAMPLES[1]))
    model = converted("q4_0")
    together = run(program, model, ".. function:: ", "import ").split("--------\n")
    alone = run(program, model, ".. function:: ")
    assert together[0] + "--------\n" == alone
    assert together[1].startswith("import ")
    assert len(together) == 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_error_is_told(example: Example, copied: Callable[[Example], Path], tmp_path: Path) -> None:
    program = module_shared(example, copied(example))
    done = subprocess.run([program, tmp_path / "no.bin", "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{example.name}: ")
    assert "no.bin: cannot be opened" in done.stderr


@pytest.mark.slow  # likewise
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_sanitizers(
    example: Example, copied: Callable[[Example], Path], models: dict[str, Path]
) -> None:
    folder = copied(example)
    for static in [[], ["--static"]]:
        program = compiled(
            example, folder, "-g", *SANITIZERS, *runtime("--cflags", "--libs", *static)
        )
        for name in MODELS:
            assert run(program, models[name], "The ")


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_valgrind(
    example: Example, copied: Callable[[Example], Path], models: dict[str, Path]
) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    program = module_shared(example, copied(example))
    valgrind = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"]
    for name in ["bytes", "gguf"]:
        assert run(*valgrind, program, models[name], "The ", RWKV_THREADS="2")


def test_vocabulary_is_named(tmp_path: Path) -> None:
    file = rwkv_runtime.world_vocabulary_path()
    assert runtime("--vocabulary") == [str(file)]
    (named,) = pkg_config("--variable=vocabulary")
    assert Path(named).samefile(file)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(p LANGUAGES C)\n"
        "find_package(rwkv CONFIG REQUIRED)\n"
        "file(WRITE ${CMAKE_BINARY_DIR}/p.txt ${RWKV_VOCABULARY})\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path, "-G", "Ninja",
        f"-Drwkv_DIR={rwkv_runtime.cmake_dir()}")  # fmt: skip
    assert Path((tmp_path / "p.txt").read_text()).samefile(file)


def test_module_tells_places() -> None:
    assert runtime("--cmake-dir") == [str(rwkv_runtime.cmake_dir())]
    assert runtime("--version") == [rwkv_runtime.__version__]
    assert runtime("--cflags") == [f"-I{rwkv_runtime.include_dir()}"]
    assert runtime("--libs", "--static")[0] == str(rwkv_runtime.lib_dir() / "librwkv_runtime.a")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to print, expected an option"),
        (["--static"], "expected --libs beside it"),
        (["--cflags", "--version"], "cannot be printed together"),
    ],
)
def test_module_refuses(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rwkv_runtime", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr


OUTER = """\
cmake_minimum_required(VERSION 3.24)
project(outer LANGUAGES C CXX)
add_subdirectory({native} rwkv)
if(CMAKE_BUILD_TYPE)
  message(FATAL_ERROR "our build type was changed")
endif()
add_executable(embed-c {source})
target_link_libraries(embed-c PRIVATE rwkv::runtime)
"""


def outer(folder: Path, repo: Path, *options: str) -> None:
    source = repo / "examples" / "embed-c" / "main.c"
    text = OUTER.format(native=repo / "native", source=source)
    (folder / "CMakeLists.txt").write_text(text)
    run("cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", *options)


def sources(repo: Path) -> None:
    if not (repo / "native").is_dir():
        pytest.skip("needs the sources")


def test_another_project_installs_nothing_of_ours(repo: Path, tmp_path: Path) -> None:
    sources(repo)
    outer(tmp_path, repo)
    assert "librwkv" not in (tmp_path / "build/rwkv/cmake_install.cmake").read_text()


@pytest.mark.slow
def test_added_to_another_project_static_only(
    repo: Path, tmp_path: Path, copied: Callable[[Example], Path], models: dict[str, Path]
) -> None:
    """The project's own program; then another one, from what that project installs."""
    sources(repo)
    outer(tmp_path, repo, "-DBUILD_SHARED_LIBS=OFF", "-DRWKV_INSTALL=ON")
    run("cmake", "--build", tmp_path / "build")
    text = run(tmp_path / "build" / "embed-c", models["world"], "The ")
    prefix = tmp_path / "prefix"
    run("cmake", "--install", tmp_path / "build", "--prefix", prefix)
    assert not list(prefix.rglob("*.so*"))

    (package,) = prefix.rglob("rwkv-config.cmake")
    program = cmake(EXAMPLES[0], copied(EXAMPLES[0]), f"-Drwkv_DIR={package.parent}")
    assert not needs_library(program)
    assert run(program, models["world"], "The ") == text

    (file,) = prefix.rglob("rwkv.pc")
    flags = pkg_config("--cflags", "--libs", folder=file.parent)
    program = compiled(EXAMPLES[0], tmp_path / "embed-c", *flags)
    assert run(program, models["world"], "The ") == text
    assert not list(prefix.rglob("rwkv_cpp.pc"))  # there is no librwkv


# ---- librwkv, the C interface of rwkv.cpp

RWKV_CPP = """\
cmake_minimum_required(VERSION 3.24)
project(program LANGUAGES C)
find_package(rwkv CONFIG REQUIRED)
add_executable(program {sources})
target_compile_options(program PRIVATE {options})
target_link_libraries(program PRIVATE rwkv::rwkv_cpp m)
install(TARGETS program)
set_target_properties(program PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
"""


def rwkv_cpp_by_cmake(sources: list[Path], folder: Path) -> Path:
    text = RWKV_CPP.format(sources=" ".join(map(str, sources)), options=" ".join(WARNINGS))
    (folder / "CMakeLists.txt").write_text(text)
    return cmake(Example("program", "", []), folder)


def rwkv_cpp_by_pkg_config(sources: list[Path], folder: Path) -> Path:
    flags = pkg_config("--cflags", "--libs", module="rwkv_cpp")
    compiler = [*EXAMPLES[0].compiler, *WARNINGS]
    run(*compiler, *sources, *flags, "-lm", "-o", folder / "program")
    return folder / "program"


@pytest.mark.parametrize("build", [rwkv_cpp_by_cmake, rwkv_cpp_by_pkg_config])
def test_program_written_for_rwkv_cpp(
    build: Callable[[list[Path], Path], Path], repo: Path, tmp_path: Path
) -> None:
    """It says `#include <rwkv.h>` and is linked with librwkv alone."""
    names = ["rwkv_cpp_program.c", "rwkv_cpp_checks.c"]
    program = build([repo / "native" / "tests" / name for name in names], tmp_path)
    assert b"librwkv.so" in program.read_bytes() and not needs_library(program)
    source = tmp_path / "source.bin"
    ggmf.write(source, ggmf.convert_reference(synth.checkpoint("7"), "fp16"), "fp16")
    assert run(program, "quantize", source, tmp_path / "ours.bin", "Q4_0") == "0\n"
    rwkv_convert.convert(source, tmp_path / "expected.bin", dtype="q4_0", layout="rwkv.cpp")
    assert (tmp_path / "ours.bin").read_bytes() == (tmp_path / "expected.bin").read_bytes()
