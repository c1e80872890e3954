"""A hook of mkdocs: `<!-- plot NAME -->` becomes bars of what docs/benchmarks/*.json says.

Bars are HTML, not pictures: they are as wide as the page, and follow its colours.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.figures import Figure
from benchmarks.units import number

from benchmarks import figures

DATA = Path(__file__).resolve().parents[1] / "benchmarks"
MODEL = "0.4B"


class Bar(NamedTuple):
    """One bar: what it is of, how long (0 to 1), the text behind it."""

    name: str
    share: float
    text: str
    ours: bool = True


def _html(title: str, about: str, groups: Iterable[tuple[str, list[Bar]]]) -> str:
    lines = [f'<figure class="bars"><figcaption>{escape(title)}<span>{escape(about)}</span>']
    lines.append("</figcaption>")
    for name, bars in groups:
        if name:
            lines.append(f'<div class="group">{escape(name)}</div>')
        lines += [
            f'<div class="bar{" ours" if bar.ours else ""}"><span>{escape(bar.name)}</span>'
            f'<i style="--share: {bar.share:.3f}">{escape(bar.text)}</i></div>'
            for bar in bars
        ]
    return "\n".join([*lines, "</figure>"])


def _speed(types: Callable[[Figure], bool]) -> str:
    """The model beside llama.cpp, for each machine; each group's longest bar is full."""
    everything = figures.read(DATA / "speed.json")
    parts = []
    for machine in everything.machines():
        here = everything.of(machine)
        chosen = [f for f in figures.best(here.figures, MODEL) if types(f)]
        if not chosen:
            continue
        groups = []
        for f in chosen:
            peer = figures.beside_llama_cpp(f)
            assert peer is not None
            longest = max(f.tokens_per_s, peer.tokens_per_s)
            ours = f"{number(f.tokens_per_s)}/s ({peer.ratio:.2f} ×)"
            theirs = f"{number(peer.tokens_per_s)}/s"
            groups.append(
                (
                    f"{f.type}, {f.work}",
                    [
                        Bar("this project", f.tokens_per_s / longest, ours),
                        Bar("llama.cpp", peer.tokens_per_s / longest, theirs, ours=False),
                    ],
                )
            )
        levels = ", ".join(dict.fromkeys(f.level for f in chosen))
        about = f"{machine}; level {levels}, {chosen[0].threads} threads. More is better"
        parts.append(_html(f"RWKV-7 {MODEL}, tokens per second", about, groups))
    return "\n\n".join(parts)


def _levels() -> str:
    """What each type loses, and what its file weighs."""
    costs = json.loads((DATA / "levels.json").read_text())["costs"]
    rows = sorted({c["type"]: c for c in costs}.values(), key=lambda c: -c["file_bytes"])
    exact = rows[0]["in_pieces"]
    lost = {c["type"]: c["in_pieces"] - exact for c in rows}
    loss = [
        Bar(c["type"], lost[c["type"]] / max(lost.values()), f"{abs(lost[c['type']]):.4f}")
        for c in rows[1:]
    ]
    size = [
        Bar(
            c["type"],
            c["file_bytes"] / rows[0]["file_bytes"],
            f"{c['file_bytes'] / 1e6:.1f} MB",
            ours=False,
        )
        for c in rows
    ]
    about = f"The checkpoint in examples/, beside {rows[0]['type']}. Less is better"
    groups = [("bits per byte lost", loss), ("size of the file", size)]
    return _html("What a type costs", about, groups)


PLOTS: dict[str, Callable[[], str]] = {
    "speed-4-bits": lambda: _speed(lambda f: f.type == "q4_0"),
    "speed": lambda: _speed(lambda f: True),
    "levels": _levels,
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the plots into a page."""
    return re.sub(r"<!-- plot (\S+) -->", lambda found: PLOTS[found[1]](), markdown)
