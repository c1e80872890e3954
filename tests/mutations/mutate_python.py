"""Does a test notice? mutmut's mutations of the core of rwkv_py, in a copy of it.

Run with `hatch run mutate-python [MODULE...]`, such as `hatch run mutate-python prompt reading`. A
module takes minutes; all of them hours. Afterwards, in `build/mutations/python`, `mutmut results`
lists what was not noticed and `mutmut show NAME` shows it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import rwkv_py._core
import rwkv_runtime

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "packages" / "rwkv-py" / "src" / "rwkv_py"
SCRATCH = REPO / "build" / "mutations" / "python"

# The modules that may be mutated, and the tests that should notice.
TESTS = {
    "_arguments": "arguments session sampling",
    "_options": "options",
    "beginning": "session arguments time_state engine",
    "engine": "engine engine_bounds engine_session request",
    "generation": "session engine sampling",
    "prefix_cache": "prefix_cache prefix_cache_text",
    "probabilities": "probabilities request",
    "prompt": "prefix_cache_text session arguments",
    "reading": "prefix_cache prefix_cache_text session",
    "request": "request engine",
    "sampling": "sampling session",
    "sequence": "prefix_cache prefix_cache_text session engine_session",
    "session": "session session_in_use state_file",
    "task": "engine engine_session request",
    "text_stream": "text_stream session_in_use",
    "time_state": "time_state",
}

# The installed package is editable: without this, the tests would import what is not mutated.
CONFTEST = """
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))
sys.meta_path[:] = [f for f in sys.meta_path if "rwkv_py" not in type(f).__module__]
"""


def prepare(modules: list[str]) -> None:
    """Copy the package with its extension, and the tests, to where mutmut works."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    shutil.copytree(SOURCE, SCRATCH / "src" / "rwkv_py")
    shutil.copy2(str(rwkv_py._core.__file__), SCRATCH / "src" / "rwkv_py")
    shutil.copytree(REPO / "tests", SCRATCH / "tests")
    (SCRATCH / "examples").symlink_to(REPO / "examples")
    shutil.copy2(REPO / "pytest.ini", SCRATCH)
    (SCRATCH / "conftest.py").write_text(CONFTEST)
    files = dict.fromkeys(f"tests/py/test_{t}.py" for m in modules for t in TESTS[m].split())
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/rwkv_py/{module}.py" for module in modules],
        "also_copy": ["tests", "examples", "pytest.ini", "conftest.py"],
        "pytest_add_cli_args_test_selection": list(files),
    }
    lines = ["[mutmut]", *(f"{k} =\n    " + "\n    ".join(v) for k, v in settings.items())]
    (SCRATCH / "setup.cfg").write_text("\n".join(lines) + "\n")


def main(modules: list[str]) -> int:
    """Mutate these modules, or all; return mutmut's exit code."""
    unknown = set(modules) - TESTS.keys()
    if unknown:
        raise SystemExit(
            f"mutations: expected modules of {', '.join(TESTS)}, got {', '.join(unknown)}"
        )
    prepare(modules or list(TESTS))
    # The extension looks for the library beside itself, where its copy has none.
    library = str(rwkv_runtime.lib_dir())
    return subprocess.run(
        ["mutmut", "run", "--max-children", "2"],
        cwd=SCRATCH,
        env={**os.environ, "LD_LIBRARY_PATH": library},
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
