"""Where things are."""

from __future__ import annotations

import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BUILD = REPO / "build" / "bench"
"""What is compiled and what is measured."""

DATA = REPO / "docs" / "benchmarks"
"""What was measured for the documentation."""

EXAMPLES = REPO / "examples"


def cache() -> Path:
    """Keeps models and peers, which take long to make: $RWKV_BENCH_CACHE, ~/.cache/rwkv-bench."""
    value = os.environ.get("RWKV_BENCH_CACHE")
    folder = Path(value) if value else Path.home() / ".cache" / "rwkv-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
