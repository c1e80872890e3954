"""Where the files of the RWKV runtime are: library, header, CMake package, vocabulary.

The package holds no Python code that runs models: that is `rwkv-py`. It serves programs that link
with the library:

    cmake -S . -B build -Drwkv_DIR="$(python -m rwkv_runtime --cmake-dir)"
    cc main.c $(python -m rwkv_runtime --cflags --libs)
"""

import sys
from importlib import resources
from importlib.metadata import version
from pathlib import Path

__all__ = [
    "__version__",
    "cmake_dir",
    "include_dir",
    "lib_dir",
    "library_path",
    "pkgconfig_dir",
    "static_libraries",
    "world_vocabulary_path",
]

__version__: str = version("rwkv-runtime")

_LIBRARIES = {
    "win32": ("bin", "rwkv_runtime.dll"),
    "darwin": ("lib", "librwkv_runtime.dylib"),
}
_AGAIN = "Try installing rwkv-runtime again"


def _installed(*parts: str, remedy: str = _AGAIN) -> Path:
    # An installation in editable mode keeps this file and the built ones in different folders;
    # importlib.resources knows both, but for files only, hence each folder is found by a file.
    path = Path(str(resources.files(__name__).joinpath(*parts)))
    if not path.is_file():
        raise FileNotFoundError(
            f"rwkv_runtime: '{'/'.join(parts)}', expected a file of the package, found none at "
            f"{path}. {remedy}"
        )
    return path


def library_path() -> Path:
    """The shared library itself, for `ctypes.CDLL` or `dlopen`.

    Raises:
        FileNotFoundError: the installation is incomplete (so for every function here).
    """
    return _installed(*_LIBRARIES.get(sys.platform, ("lib", "librwkv_runtime.so")))


def static_libraries() -> list[str]:
    """What a linker is given for the static library: its path, then `-lstdc++` and such.

    Wheels from PyPI have none, as it would ask for the C++ library that they were compiled with.
    """
    archive = _installed(
        "lib",
        "librwkv_runtime.a",
        remedy="Try `pip install --force-reinstall --no-binary rwkv-runtime rwkv-runtime`, which "
        "compiles it",
    )
    lines = (pkgconfig_dir() / "rwkv.pc").read_text(encoding="utf-8").splitlines()
    (needs,) = (line.split()[1:] for line in lines if line.startswith("Libs.private:"))
    return [str(archive), *needs]


def lib_dir() -> Path:
    """The folder of the shared library, for a linker's `-L` and `-rpath`; where Windows looks."""
    return library_path().parent


def include_dir() -> Path:
    """The folder to compile with, as in `-I`: sources say `#include <rwkv/rwkv.h>`."""
    return _installed("include", "rwkv", "rwkv.h").parent.parent


def cmake_dir() -> Path:
    """The folder of the CMake package, for `-Drwkv_DIR=`; its targets: docs/guides/embedding.md."""
    return _installed("lib", "cmake", "rwkv", "rwkv-config.cmake").parent


def pkgconfig_dir() -> Path:
    """The folder of the pkg-config files, for `PKG_CONFIG_PATH`: `rwkv`, and `rwkv_cpp`."""
    return _installed("lib", "pkgconfig", "rwkv.pc").parent


def world_vocabulary_path() -> Path:
    """The RWKV World vocabulary (65536 tokens), for `rwkv_tokenizer_open`."""
    return _installed("share", "rwkv", "rwkv_vocab_v20230424.txt")
