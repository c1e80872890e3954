"""Tables: on the terminal, as Markdown, and in docs/benchmarks.md."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from .paths import DOCS


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first `n_labels` columns are names, the others figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_labels: int = 1

    def print(self, console: Console) -> None:
        """On the terminal."""
        table = RichTable(title=self.title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i < self.n_labels else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["---" if i < self.n_labels else "---:" for i in range(len(self.columns))]
        lines = [self.columns, rule, *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}\n\n{text}\n"


def show(tables: Sequence[Table]) -> None:
    """Prints tables, as wide as the terminal, or as they need where there is none."""
    console = Console(width=None if os.isatty(1) else 200)
    for table in tables:
        table.print(console)


def markdown(head: str, tables: Sequence[Table]) -> str:
    """A line about the machine, then the tables."""
    return "\n".join([head + "\n", *(table.markdown() for table in tables)])


def between(text: str, section: str, new: str) -> str:
    """Replaces what stands between the markers of a section.

    Raises:
        ValueError: the text has no such section.
    """
    begin, end = f"<!-- begin {section} -->\n", f"<!-- end {section} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"expected one section '{section}' between markers")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{new.strip()}\n\n{end}{tail}"


def publish(
    args: Any,
    section: str,
    head: str,
    tables: Sequence[Table],
    result: dict[str, Any],
    json_path: Path,
) -> None:
    """Prints the tables, writes the JSON, and does what --markdown and --docs ask."""
    show(tables)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"JSON: {json_path}")
    text = markdown(head, tables)
    if args.markdown:
        print(text)
    if args.docs:
        DOCS.write_text(between(DOCS.read_text(), section, text))
        print(f"{DOCS}: rewrote section '{section}'")


def number(value: float) -> str:
    """Three digits that matter, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(share: float) -> str:
    """A share as whole percents."""
    return f"{100 * share:.0f} %"
