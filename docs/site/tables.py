"""A hook of mkdocs: the first column of a table of many columns stays in sight."""

from __future__ import annotations

import re

NARROW = 3
"""Tables of up to so many columns are read on a phone as they are."""

_HEAD = re.compile(r"<table>(\s*<thead>.*?</thead>)", re.S)


def on_page_content(html: str, **_: object) -> str:
    """Mark wide tables with the attribute `data-wide`; docs/assets/site.css does the rest."""

    def mark(found: re.Match[str]) -> str:
        columns = len(re.findall(r"<th[ >]", found[1]))
        return f'<table data-wide="{columns}">{found[1]}' if columns > NARROW else found[0]

    return _HEAD.sub(mark, html)
