"""The documentation shows what docs/benchmarks/*.json says, and nothing else."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from benchmarks import figures, pages  # noqa: E402


@pytest.mark.parametrize("page", pages.SECTIONS)
def test_page_is_what_the_data_gives(page: str) -> None:
    """Else `hatch run bench:docs` was forgotten, or somebody wrote between the markers."""
    assert (REPO / page).read_text() == pages.expected(page)


def test_every_section_is_written_by_the_command() -> None:
    for page in [REPO / "README.md", *(REPO / "docs").rglob("*.md")]:
        marked = re.findall(r"<!-- begin (\S+) -->", page.read_text())
        written = pages.SECTIONS.get(str(page.relative_to(REPO)), {})
        assert sorted(marked) == sorted(written), page


def test_each_figure_is_there_once_and_tells_its_machine() -> None:
    everything = pages.speed_file()
    assert everything.figures
    keys = [(figures.machine_name(everything.runs[f.run]), *f.key) for f in everything.figures]
    assert len(keys) == len(set(keys))
    for run in everything.runs.values():
        assert run["commit"]
        assert "dirty" not in run["commit"]


def test_digest_states_machine_level_and_commit() -> None:
    readme = (REPO / "README.md").read_text()
    digest = readme.split("<!-- begin digest -->")[1].split("<!-- end digest -->")[0]
    everything = pages.speed_file()
    chosen = figures.best(everything.of(everything.machines()[0]).figures, pages.DIGEST_MODEL)
    assert chosen
    for f in chosen:
        run = everything.runs[f.run]
        for word in (figures.machine_name(run), f"`{f.level}`", f"{f.threads} threads"):
            assert word in " ".join(digest.split()), word
        assert run["commit"] in digest


def test_changed_data_makes_the_pages_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in pages.DATA.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(pages, "DATA", tmp_path)
    assert pages.stale() == []
    everything = pages.speed_file()
    changed = figures.best(everything.figures, pages.DIGEST_MODEL)[0]
    everything.figures[everything.figures.index(changed)] = replace(changed, tokens_per_s=1.25)
    (tmp_path / "speed.json").write_text(figures.as_text(everything))
    assert pages.stale() == ["README.md", "docs/README.md", "docs/benchmarks.md", "docs/models.md"]
