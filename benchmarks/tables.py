"""Tables of what was measured: for the terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase

from . import figures
from .figures import Figure, Measurements, Opening
from .report import Table
from .units import count, number, percent

Marks = Mapping[str, str]
"""What stands behind a figure to tell its run; nothing for a run that is not there."""


NO_MARKS: Marks = {}


def marks(measurements: Measurements) -> dict[str, str]:
    """A letter for each run; none, if there is but one."""
    runs = list(measurements.runs)
    return dict(zip(runs, ascii_lowercase, strict=False)) if len(runs) > 1 else {}


def speed(rows: Sequence[Figure], marked: Marks = NO_MARKS) -> list[Table]:
    """A table for each model: tokens per second, and the share of the machine's limit."""
    tables = []
    works = list(dict.fromkeys(f.work for f in rows))
    for model in _in_order(f.model for f in rows):
        lines: dict[str, dict[str, str]] = {}
        for f in _sorted(f for f in rows if f.model == model):
            share = "" if f.share is None else f" ({percent(f.share)})"
            label = f"{f.type}, {f.level}, {count(f.threads, 'thread')}"
            cell = f"{number(f.tokens_per_s)}{marked.get(f.run, '')}{share}"
            lines.setdefault(label, {})[f.work] = cell
        title = f"{model}: tokens per second, all sequences together (share of the limit)"
        tables.append(_grid(title, model, works, lines))
    return tables


def peers(rows: Sequence[Figure], marked: Marks = NO_MARKS) -> list[Table]:
    """A table for each model: tokens per second of ours and the peer's, and the ratio."""
    tables = []
    rows = [f for f in rows if f.peers]
    works = list(dict.fromkeys(f.work for f in rows))
    for model in _in_order(f.model for f in rows):
        lines: dict[str, dict[str, str]] = {}
        for f in _sorted(f for f in rows if f.model == model):
            for peer in f.peers:
                label = f"{f.type}, {f.level}, {count(f.threads, 'thread')}; {peer.name}"
                rates = f"{number(f.tokens_per_s)} : {number(peer.tokens_per_s)}"
                cell = f"{rates}{marked.get(f.run, '')} = {peer.ratio:.2f} ×"
                lines.setdefault(label, {})[f.work] = cell
        title = f"{model}: tokens per second, ours : the peer's = ratio"
        tables.append(_grid(title, model, works, lines))
    return tables


def agreements(rows: Sequence[figures.Agreement]) -> list[Table]:
    """Whether the peers compute the same."""
    if not rows:
        return []
    return [
        Table(
            "Whether the peer computes the same: logits after 16 random tokens, beside ours",
            ["model, type; peer", "largest difference", "largest logit", "same first token"],
            [
                [
                    f"{a.model}, {a.type}; {a.peer}",
                    f"{a.largest:.2g}",
                    f"{a.scale:.2g}",
                    f"{a.same_token} of {a.tokens}",
                ]
                for a in rows
            ],
        )
    ]


def openings(rows: Sequence[Opening]) -> list[Table]:
    """What opening takes, a table for each model."""
    return [
        Table(
            f"{model}: opening a model whose file is in the page cache",
            [model, "file MB", "seconds", "resident MB (before)", "resident / file"],
            [
                [
                    f"{o.type}, {o.level}, {count(o.threads, 'thread')}",
                    number(o.file_bytes / 1e6),
                    f"{o.seconds:.3f}",
                    f"{o.resident_bytes / 1e6:.0f} ({o.resident_before / 1e6:.0f})",
                    f"{(o.resident_bytes - o.resident_before) / o.file_bytes:.3f}",
                ]
                for o in rows
                if o.model == model
            ],
        )
        for model in _in_order(o.model for o in rows)
    ]


def limits(measurements: Measurements) -> list[Table]:
    """What the machine can do at best."""
    reading = Table(
        "Limits: reading, GB/s",
        ["buffer", "median", "least", "most"],
        [
            [
                f"{number(r.bytes / 1e6)} MB, {count(r.threads, 'thread')}",
                *(number(rate / 1e9) for rate in (r.bytes_per_s, r.least, r.most)),
            ]
            for r in measurements.reading
        ],
    )
    multiplying = Table(
        "Limits: 10^9 multiply-adds per second",
        ["level", "int8", "bf16", "fp32"],
        [
            [
                f"{m.level}, {count(m.threads, 'thread')}",
                *(number(rate / 1e9) if rate else "-" for rate in (m.int8, m.bf16, m.fp32)),
            ]
            for m in measurements.multiplying
        ],
    )
    return [table for table in (reading, multiplying) if table.rows]


def digest(rows: Sequence[Figure], model: str) -> Table:
    """One model beside llama.cpp at its best: a line for each work, a column for each type."""
    chosen = figures.best(rows, model)
    types = list(dict.fromkeys(f.type for f in chosen))
    cells = {}
    for f in chosen:
        peer = figures.beside_llama_cpp(f)
        if peer is not None:
            cells[f.work, f.type] = f"{number(f.tokens_per_s)} ({peer.ratio:.2f} ×)"
    works = list(dict.fromkeys(f.work for f in chosen))
    return Table("", ["", *types], [[w, *(cells.get((w, t), "-") for t in types)] for w in works])


def _grid(
    title: str, corner: str, columns: Sequence[str], lines: Mapping[str, Mapping[str, str]]
) -> Table:
    rows = [[label, *(line.get(c, "-") for c in columns)] for label, line in lines.items()]
    return Table(title, [corner, *columns], rows)


def _in_order(models: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(models))


def _sorted(rows: Iterable[Figure]) -> list[Figure]:
    """By type as measured, then level, lowest first, then threads."""
    rows = list(rows)
    types = list(dict.fromkeys(f.type for f in rows))
    order = {t: i for i, t in enumerate(types)}
    return sorted(rows, key=lambda f: (order[f.type], figures.LEVELS.index(f.level), f.threads))
