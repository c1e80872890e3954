"""The same checkpoint in one file and in several gives the same model file."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.models import Shape

from benchmarks import conversion

pytestmark = pytest.mark.slow

TOY = Shape("toy", n_layer=2, n_embd=128, n_vocab=300)


def test_every_source_is_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKV_BENCH_CACHE", str(tmp_path))
    files = []
    for name, make in conversion.SOURCES.items():
        source = make(TOY)
        out = tmp_path / f"{name}.bin"
        seconds, size = conversion.convert(source, out, "q4_0")
        assert seconds > 0 and 10 << 20 < size < 512 << 20
        files.append(out.read_bytes())
    assert len(list(conversion.files_of(conversion.shards(TOY)))) == conversion.N_SHARDS
    assert files[0] == files[1] == files[2]
