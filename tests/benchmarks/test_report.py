"""Tables, and the places in pages that they go to."""

from __future__ import annotations

import pytest
from benchmarks.report import Table, between
from benchmarks.units import number, percent

PAGE = "above\n<!-- begin speed -->\nold\n<!-- end speed -->\nbelow\n"


def test_between_replaces_the_section_alone() -> None:
    page = between(PAGE, "speed", "new\n")
    assert page == "above\n<!-- begin speed -->\n\nnew\n\n<!-- end speed -->\nbelow\n"
    assert between(page, "speed", "new") == page


def test_between_refuses_a_page_without_the_section() -> None:
    with pytest.raises(ValueError, match="section 'peers'"):
        between(PAGE, "peers", "new")


def test_markdown_aligns_figures_to_the_right() -> None:
    table = Table("Title", ["name", "figure"], [["a", "1"]])
    assert table.markdown() == "Title\n\n| name | figure |\n| --- | ---: |\n| a | 1 |\n"


def test_markdown_does_not_part_a_unit_from_its_number() -> None:
    text = Table("", ["name", "figure"], [["a", "9 (79 %, 2.00 ×)"]]).markdown()
    assert text.endswith("| a | 9 (79\N{NO-BREAK SPACE}%, 2.00\N{NO-BREAK SPACE}×) |\n")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (99.95, "100.0"), (12.34, "12.3"), (0.126, "0.13")]
)
def test_number_keeps_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_percent_is_whole() -> None:
    assert percent(0.856) == "86 %"
