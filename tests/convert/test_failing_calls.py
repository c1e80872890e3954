"""Every system call of a conversion fails once: an error of ours, and no half or temporary file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convert.fuzz_readers import KINDS

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="LD_PRELOAD, a C compiler")
def test_every_call_fails_once(tmp_path):
    shim = tmp_path / "failing_calls.so"
    source = HERE / "failing_calls.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    files = tmp_path / "files"
    files.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-m", "convert.failing_conversions", files]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(KINDS)
    for line in lines:
        for call in ("open", "read", "write", "fsync", "fstat", "close", "rename"):
            assert f"'{call}" in line, line
