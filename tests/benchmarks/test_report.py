"""Tables and the page they go to."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.report import Table, between, markdown, number, percent

PAGE = "above\n<!-- begin speed -->\nold\n<!-- end speed -->\nbelow\n"


def test_between_replaces_the_section_alone() -> None:
    page = between(PAGE, "speed", "new\n")
    assert page == "above\n<!-- begin speed -->\n\nnew\n\n<!-- end speed -->\nbelow\n"
    assert between(page, "speed", "new") == page


def test_between_refuses_a_page_without_the_section() -> None:
    with pytest.raises(ValueError, match="section 'peers'"):
        between(PAGE, "peers", "new")


def test_page_has_the_sections_that_the_commands_rewrite(repo: Path) -> None:
    page = (repo / "docs" / "benchmarks.md").read_text()
    for section in ("speed", "peers", "pool", "bits-per-byte"):
        assert "new" in between(page, section, "new")


def test_markdown_aligns_figures_to_the_right() -> None:
    table = Table("Title", ["name", "figure"], [["a", "1"]])
    assert markdown("head", [table]) == (
        "head\n\nTitle\n\n| name | figure |\n| --- | ---: |\n| a | 1 |\n"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (99.95, "100.0"), (12.34, "12.3"), (0.126, "0.13")]
)
def test_number_keeps_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_percent_is_whole() -> None:
    assert percent(0.856) == "86 %"
