"""A server at a level with wide arithmetic, which test builds have on every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names the library in Linux's way")
def test_texts_are_those_of_single_runs_that_cut_the_prompt_the_same_way(
    native_build: Path, repo: Path
) -> None:
    env = {**os.environ, "LD_LIBRARY_PATH": str(native_build), "RWKV_KERNELS": "reference_wide"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "",
               repo / "tests" / "server" / "wide_checks.py"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=repo, env=env)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
