"""A part of `hatch run clients:schemathesis`, another in each run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="only in `hatch run clients:test`")


@pytest.mark.slow
def test_any_request_has_an_answer_that_our_openapi_file_knows(
    converted: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from clients.any_requests import FUZZING, run

    seed = random.SystemRandom().randrange(2**31)
    with capsys.disabled():
        print(f"\nschemathesis: seed {seed}")
    assert run(converted("q8_0", "pychat"), 500, seed, FUZZING) >= 500
