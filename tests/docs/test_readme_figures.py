"""README.md's figures are those of docs/benchmarks.md, which a command writes."""

from __future__ import annotations

from pathlib import Path


def table(lines: list[str], first_cell: str) -> list[list[str]]:
    """The cells of the table whose first row begins with that cell, rule and head left out."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    start = next(i for i, row in enumerate(rows) if row[:1] == [first_cell])
    found = []
    for line, row in zip(lines[start + 2 :], rows[start + 2 :], strict=True):
        if not line.startswith("|"):
            break
        found.append(row)
    return found


def test_readme_figures_are_those_measured(repo: Path) -> None:
    benchmarks = (repo / "docs" / "benchmarks.md").read_text()
    peers = benchmarks.split("<!-- begin peers -->")[1].split("<!-- end peers -->")[0]
    measured = {
        (work, dtype): f"{ours} ({ratio})"
        for shape, dtype, threads, work, level, peer, ours, _, ratio in table(
            peers.splitlines(), "model"
        )
        if (shape, threads, level, peer) == ("0.4B", "2", "avx512_vnni", "llama.cpp")
    }
    section = (repo / "README.md").read_text().split("## How fast")[1].split("\n## ")[0]
    shown = {
        (work, dtype): cell
        for work, *cells in table(section.splitlines(), "")
        for dtype, cell in zip(("q4_0", "q8_0", "fp16"), cells, strict=True)
    }
    assert len(shown) == 9
    assert shown == measured
