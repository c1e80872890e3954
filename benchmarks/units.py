"""Figures as text."""

from __future__ import annotations


def number(value: float) -> str:
    """Three digits that matter, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(share: float) -> str:
    """A share as whole percents."""
    return f"{100 * share:.0f} %"


def count(n: int, thing: str) -> str:
    """A number of things."""
    return f"{n} {thing}{'s' if n != 1 else ''}"
