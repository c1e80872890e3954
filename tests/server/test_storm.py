"""A short storm; `hatch run clients:soak` has long ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.storm import storm


@pytest.mark.slow
def test_those_who_behave_notice_nothing(pydoc_file: Path, tmp_path: Path) -> None:
    """And find all that was kept."""
    state_dir = tmp_path / "states"
    report = asyncio.run(storm(pydoc_file, seconds=8, n_disconnects=200, state_dir=state_dir))
    assert report.faults == []
    assert report.counts["texts"] > 50 and report.counts["garbage"] > 50
    assert min(report.counts[kind] for kind in ("responses", "states", "deleted")) > 3
    assert {server for _, server, _, _ in report.memory} == {1, 2}
    assert report.growth() < 30, str(report)
