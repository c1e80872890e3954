"""A short storm; `hatch run clients:soak` has long ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.storm import storm


@pytest.mark.slow
def test_those_who_behave_notice_nothing(pydoc_file: Path) -> None:
    report = asyncio.run(storm(pydoc_file, seconds=8, n_disconnects=200))
    assert report.faults == []
    assert report.counts["texts"] > 50 and report.counts["garbage"] > 50
    assert {server for _, server, _, _ in report.memory} == {1, 2}
    assert report.growth() < 30, str(report)
