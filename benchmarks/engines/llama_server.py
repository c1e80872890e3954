"""llama.cpp's server, compiled from PyPI's source distribution of `llama-cpp-python`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from ..paths import cache
from ..peers import LLAMA_CPP, llama_settings

# No page to look at, nothing to fetch, no encryption, and nothing that is not asked for here.
SETTINGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "APP", "UI")),
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


def llama_server() -> Path:
    """The program `llama-server` for this processor, in the cache; the first call compiles it."""
    folder = cache() / "peers" / "llama_server"
    program = folder / "build" / "bin" / "llama-server"
    done = folder / "complete"
    if done.exists():
        return program
    print(f"compiling llama-server in {folder}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "install.log").open("w") as log:

        def run(*command: Path | str) -> None:
            finished = subprocess.run(list(map(str, command)), stdout=log, stderr=log)
            if finished.returncode != 0:
                raise SystemExit(f"{' '.join(map(str, command))}: failed, see {log.name}")

        pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir")
        run(*pip, "--no-binary=llama-cpp-python", "-d", folder, LLAMA_CPP)
        (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        archive.unlink()
        (source,) = folder.glob("llama_cpp_python-*/vendor/llama.cpp")
        run("cmake", "-S", source, "-B", folder / "build", *SETTINGS, *llama_settings(False))
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count()))
        run("cmake", "--build", folder / "build", "--target", "llama-server", "--parallel", jobs)
    done.touch()
    return program
