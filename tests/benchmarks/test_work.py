"""Counting what a token costs, and the limits that follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.work import (
    Rates,
    Work,
    concurrent_limit,
    decode_limit,
    prefill_limit,
    work_of,
)

from rwkv_py import Model

pytestmark = pytest.mark.slow

BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}
LOW_RANK = {"w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"}


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q4_0", "q5_1", "q8_0"])
def test_work_counts_what_the_engine_packs(converted: Callable[[str], Path], dtype: str) -> None:
    path = converted(dtype)
    model = Model(path)
    work = work_of(path)
    # Matrices begin at multiples of 64 bytes.
    n_matrices = 2 + model.info.n_layer * (6 + 8)
    assert 0 <= model.info.weight_bytes - work.packed_bytes <= 64 * n_matrices


def test_work_counts_q4_0_by_hand(converted: Callable[[str], Path]) -> None:
    # RWKV-7, 6 layers of C = 256, ranks 32 32 32 64, V = 256; head, embedding, low rank in q8_0.
    work = work_of(converted("q4_0"))
    C, L, V = 256, 6, 256
    matrices = L * (4 * C * C + 8 * C * C)
    low_rank = L * 2 * C * (32 + 32 + 64) + (L - 1) * 2 * C * 32
    assert work.int_macs == matrices + low_rank
    assert (work.fp_macs, work.head_macs, work.head_is_int) == (0, V * C, True)
    assert work.prefill_bytes == matrices // 32 * 18 + low_rank // 32 * 34
    assert work.decode_bytes == work.prefill_bytes + (V + 1) * C // 32 * 34
    assert work.packed_bytes == work.prefill_bytes + 2 * V * C // 32 * 34


def test_work_of_fp16_is_floating_point(converted: Callable[[str], Path]) -> None:
    work = work_of(converted("fp16"))
    assert work.int_macs == 0
    assert not work.head_is_int
    assert work.prefill_bytes == 2 * work.fp_macs


WORK = Work(
    decode_bytes=300,
    prefill_bytes=200,
    packed_bytes=400,
    int_macs=1000,
    fp_macs=50,
    head_macs=500,
    head_is_int=True,
)
SLOW_MEMORY = Rates(read=10, int8=1e6, bf16=0, fp32=1e6)
FAST_MEMORY = Rates(read=1e9, int8=100, bf16=0, fp32=10)


def test_decode_limit_is_the_time_to_read() -> None:
    assert decode_limit(WORK, SLOW_MEMORY) == 30


def test_prefill_limit_is_the_multiplications() -> None:
    # 8 tokens of 1000 / 100 + 50 / 10 seconds, and the head once.
    assert prefill_limit(WORK, FAST_MEMORY, 8) == 8 * (10 + 5) + 5


def test_prefill_limit_is_not_below_reading_once() -> None:
    assert prefill_limit(WORK, SLOW_MEMORY, 8) == 30


def test_prefill_limit_takes_bf16_for_many_rows_only() -> None:
    rates = Rates(read=1e9, int8=100, bf16=1000, fp32=10)
    assert prefill_limit(WORK, rates, 31) == 31 * (10 + 5) + 5
    assert prefill_limit(WORK, rates, 32) == 32 * (1 + 5) + 5


def test_concurrent_limit_has_the_head_for_each() -> None:
    assert concurrent_limit(WORK, FAST_MEMORY, 4) == 4 * (15 + 5)
    assert concurrent_limit(WORK, SLOW_MEMORY, 4) == 30
