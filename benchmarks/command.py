"""What all benchmarks have in common as commands: the options of their output, and a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from . import machine, quiet, report

Found = tuple[Sequence[report.Table], dict[str, Any]]
"""Tables to show, and what they are made of, as JSON can hold it."""


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Adds --markdown and --docs, and returns the options; a --quick run is none for the docs."""
    add = parser.add_argument
    add("--markdown", action="store_true", help="print the tables as Markdown too")
    add("--docs", action="store_true", help="keep what is measured in docs/benchmarks/")
    args = parser.parse_args(arguments)
    if args.docs and getattr(args, "quick", False):
        parser.error("--docs: expected a full run, got --quick")
    return args


def run(
    name: str,
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace, quiet.Others], Found],
) -> None:
    """Measures, and shows what was found; keeps it if the docs want it and the machine was quiet.

    Args:
        name: of the file in docs/benchmarks/.
        args: of `parse`, and --output.
        measure: looks at the other processes whenever our own wait.
    """
    if args.docs:
        quiet.require(quiet.now())
    about = machine.describe()
    others = quiet.Others()
    tables, found = measure(args, others)
    result = {"machine": about, **found}
    report.publish(args, tables, result, args.output.with_suffix(".json"))
    if args.docs:
        quiet.require(others.median())
        report.keep(name, result)
