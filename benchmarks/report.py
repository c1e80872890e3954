"""Tables: on the terminal and as Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from .paths import DATA


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first column is names, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self, console: Console) -> None:
        """On the terminal."""
        table = RichTable(title=self.title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["---" if i == 0 else "---:" for i in range(len(self.columns))]
        lines = [self.columns, rule, *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        for unit in ("%", "×"):  # not parted from its number at the end of a line
            text = text.replace(f" {unit}", f"\N{NO-BREAK SPACE}{unit}")
        return f"{self.title}\n\n{text}\n" if self.title else f"{text}\n"


def show(tables: Sequence[Table]) -> None:
    """Prints tables, as wide as the terminal, or as they need where there is none."""
    console = Console(width=None if os.isatty(1) else 200)
    for table in tables:
        table.print(console)


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


def publish(args: Any, tables: Sequence[Table], result: dict[str, Any], json_path: Path) -> None:
    """Prints the tables, as Markdown too if --markdown asks, and writes the JSON."""
    show(tables)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"JSON: {json_path}")
    if args.markdown:
        print("\n".join(table.markdown() for table in tables))


def keep(name: str, result: dict[str, Any]) -> None:
    """Puts the result of a command whose tables are all of one run into docs/benchmarks/."""
    path = DATA / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path}: kept. `hatch run bench:docs` writes the pages")
