"""The golden blocks that the native tests compare with are those of `gguf.quants`."""

from __future__ import annotations

from oracle.make_block_golden import GOLDEN, content


def test_block_types_golden_is_current() -> None:
    assert content() == GOLDEN.read_bytes()
