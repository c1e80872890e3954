"""How fast the runtime is on this machine, and what share of the machine's limits that is.

python -m benchmarks.speed --quick
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import machine, report
from .models import DEFAULT_SHAPES, SHAPES, TYPES, into_page_cache, model_file
from .paths import BUILD
from .work import Rates, Work, concurrent_limit, decode_limit, prefill_limit, work_of
from .worker import Worker

LOADS = 3
"""How often a model is opened to take the median time."""


@dataclass
class Figure:
    """One measured number.

    Attributes:
        work: "decode", "prefill N" or "N sequences".
        tokens_per_s: of all sequences together; median of the repeats.
        share: of the machine's limit, measured beside each of them; median of the ratios.
    """

    shape: str
    dtype: str
    level: str
    threads: int
    work: str
    tokens_per_s: float
    share: float


@dataclass
class Opening:
    """What opening a model takes: seconds (median), resident bytes of the process afterwards."""

    shape: str
    dtype: str
    level: str
    threads: int
    seconds: float
    resident_bytes: int
    resident_before: int
    file_bytes: int


@dataclass(frozen=True)
class Task:
    """A piece of work for the worker, how many tokens a step of it yields, and its limit."""

    name: str
    request: dict[str, Any]
    tokens: int
    limit: Callable[[Work, Rates], float]


def tasks(prefills: list[int], sequences: list[int]) -> list[Task]:
    """Everything to be measured for one model, level and number of threads."""

    def prefill(n: int) -> Task:
        request = {"work": "prefill", "n_tokens": n}
        return Task(f"prefill {n}", request, n, lambda w, r: prefill_limit(w, r, n))

    def concurrent(n: int) -> Task:
        request = {"work": "concurrent", "n_sequences": n}
        return Task(f"{n} sequences", request, n, lambda w, r: concurrent_limit(w, r, n))

    return [
        Task("decode", {"work": "decode"}, 1, decode_limit),
        *(prefill(n) for n in prefills),
        *(concurrent(n) for n in sequences if n > 1),
    ]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    add = parser.add_argument
    shapes = f"of {', '.join(SHAPES)}, or all (default: {','.join(DEFAULT_SHAPES)})"
    add("--shapes", type=_names(SHAPES), default=None, help=shapes)
    add("--types", type=_names(TYPES), default=None, help=f"of {', '.join(TYPES)}, or all")
    add("--levels", default=None, help="kernel levels, or all (default: all but reference)")
    add("--threads", type=numbers, default=None, help="default: 1 and all physical cores")
    add("--prefill", type=numbers, default=None, help="default: 16,128,512,2048")
    add("--sequences", type=numbers, default=[1, 4, 16], help="default: 1,4,16")
    add("--repeats", type=int, default=None, help="medians of this many runs (default: 5)")
    add("--seconds", type=float, default=None, help="length of a run (default: 1)")
    add("--quick", action="store_true", help="two minutes: 0.1B, q4_0 and q8_0, best level")
    add("--output", type=Path, default=BUILD / "speed", help="where to: .json and .png are added")
    add_output_options(parser)
    args = parser.parse_args(arguments)
    quick = args.quick
    args.shapes = args.shapes or (["0.1B"] if quick else DEFAULT_SHAPES)
    args.types = args.types or (["q4_0", "q8_0"] if quick else ["fp16", "q4_0", "q8_0"])
    args.prefill = args.prefill or ([128, 512] if quick else [16, 128, 512, 2048])
    args.threads = args.threads or sorted({1, machine.physical_cores()})
    args.repeats = args.repeats or (2 if quick else 5)
    args.seconds = args.seconds or (0.3 if quick else 1.0)
    return args


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark offers beside its table."""
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown too")
    parser.add_argument(
        "--docs", action="store_true", help="put the tables into docs/benchmarks.md"
    )


def _names(known: Any) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = list(known) if text == "all" else text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"expected some of {', '.join(known)}, got {name!r}"
                )
        return chosen

    return names


def numbers(text: str) -> list[int]:
    """An option's value: whole numbers with commas."""
    return [int(part) for part in text.split(",")]


def choose_levels(wanted: str | None, quick: bool) -> list[str]:
    """The levels to measure, of those that run here."""
    here = machine.levels()
    if wanted == "all":
        return here
    if wanted is None:
        return here[-1:] if quick else [level for level in here if level != "reference"]
    for level in wanted.split(","):
        if level not in here:
            raise SystemExit(f"--levels: expected some of {', '.join(here)}, got {level!r}")
    return wanted.split(",")


def measure(
    args: argparse.Namespace, levels: list[str], limits: machine.Limits
) -> tuple[list[Figure], list[Opening]]:
    """Runs everything, each run after a measurement of the limits."""
    figures: list[Figure] = []
    openings: list[Opening] = []
    plan = tasks(args.prefill, args.sequences)
    runs = [
        (shape, dtype, level, threads)
        for shape in args.shapes
        for dtype in args.types
        for level in levels
        for threads in args.threads
    ]
    for shape in args.shapes:  # made first, so that the bar tells the time of measuring
        for dtype in args.types:
            model_file(SHAPES[shape], dtype)
    with tqdm(total=len(runs) * (1 + len(plan)), disable=None, unit="figure") as bar:
        for shape, dtype, level, threads in runs:
            where = f"{shape} {dtype} {level} {threads} threads"
            path = model_file(SHAPES[shape], dtype)
            work = work_of(path)
            into_page_cache(path)
            bar.set_description(f"{where}: loading")
            opened = []
            for i in range(LOADS):
                worker = Worker("runtime", path, threads, level=level)
                opened.append(worker.opened)
                if i < LOADS - 1:
                    worker.__exit__(None, None, None)
            openings.append(
                Opening(
                    shape,
                    dtype,
                    level,
                    threads,
                    statistics.median(entry["load_seconds"] for entry in opened),
                    opened[-1]["resident_bytes"],
                    opened[-1]["resident_before"],
                    os.stat(path).st_size,
                )
            )
            bar.update()
            with worker:
                for task in plan:
                    bar.set_description(f"{where}: {task.name}")
                    seconds, shares = [], []
                    for _ in range(args.repeats):
                        rates = limits.measure(work.decode_bytes, threads, level)
                        answer = worker.ask(**task.request, seconds=args.seconds)
                        seconds.append(answer["seconds"])
                        shares.append(task.limit(work, rates) / answer["seconds"])
                    figures.append(
                        Figure(
                            shape,
                            dtype,
                            level,
                            threads,
                            task.name,
                            task.tokens / statistics.median(seconds),
                            statistics.median(shares),
                        )
                    )
                    bar.update()
    return figures, openings


def tables(
    figures: list[Figure], openings: list[Opening], limits: machine.Limits
) -> list[report.Table]:
    """Tokens per second with the share of the limit; opening; the limits themselves."""
    works = list(dict.fromkeys(figure.work for figure in figures))
    rows: dict[tuple[str, str, str, int], dict[str, Figure]] = {}
    for figure in figures:
        key = (figure.shape, figure.dtype, figure.level, figure.threads)
        rows.setdefault(key, {})[figure.work] = figure
    speed = report.Table(
        "Tokens per second (all sequences together) and share of the machine's limit",
        ["model", "type", "level", "threads", *works],
        [
            [
                *map(str, key),
                *(
                    f"{report.number(row[w].tokens_per_s)} ({report.percent(row[w].share)})"
                    for w in works
                ),
            ]
            for key, row in rows.items()
        ],
        n_labels=4,
    )
    opening = report.Table(
        "Opening a model whose file is in the page cache",
        [
            "model",
            "type",
            "level",
            "threads",
            "file MB",
            "seconds",
            "resident MB",
            "resident / file",
        ],
        [
            [
                o.shape,
                o.dtype,
                o.level,
                str(o.threads),
                report.number(o.file_bytes / 1e6),
                f"{o.seconds:.3f}",
                f"{o.resident_bytes / 1e6:.0f} (before: {o.resident_before / 1e6:.0f})",
                f"{(o.resident_bytes - o.resident_before) / o.file_bytes:.3f}",
            ]
            for o in openings
        ],
        n_labels=4,
    )
    measured = limits.as_json()
    reading = report.Table(
        "Limits: reading, GB/s",
        ["buffer MB", "threads", "median", "least", "most"],
        [
            [
                report.number(entry["bytes"] / 1e6),
                str(entry["threads"]),
                *(report.number(entry[k] / 1e9) for k in ("bytes_per_s", "least", "most")),
            ]
            for entry in measured["read"]
        ],
        n_labels=2,
    )
    multiplying = report.Table(
        "Limits: 10^9 multiply-adds per second",
        ["level", "threads", "int8", "bf16", "fp32"],
        [
            [
                entry["level"],
                str(entry["threads"]),
                *(
                    report.number(entry[k] / 1e9) if entry[k] else "-"
                    for k in ("int8", "bf16", "fp32")
                ),
            ]
            for entry in measured["multiply"]
        ],
        n_labels=2,
    )
    return [speed, opening, reading, multiplying]


def plot(figures: list[Figure], path: Path, title: str) -> None:
    """Bars of the share of the limit: a panel for each shape and kind of work."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    threads = max(figure.threads for figure in figures)
    shown = [figure for figure in figures if figure.threads == threads]
    shapes = list(dict.fromkeys(figure.shape for figure in shown))
    works = list(dict.fromkeys(figure.work for figure in shown))
    levels = list(dict.fromkeys(figure.level for figure in shown))
    types = list(dict.fromkeys(figure.dtype for figure in shown))
    value = {(f.shape, f.work, f.level, f.dtype): f for f in shown}
    grid, axes = pyplot.subplots(
        len(works),
        len(shapes),
        figsize=(4.5 * len(shapes), 2.2 * len(works)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for row, work in enumerate(works):
        for column, shape in enumerate(shapes):
            ax = axes[row][column]
            for i, level in enumerate(levels):
                at = [
                    x + (i - (len(levels) - 1) / 2) * 0.8 / len(levels) for x in range(len(types))
                ]
                bars = [value[shape, work, level, dtype] for dtype in types]
                drawn = ax.bar(at, [100 * b.share for b in bars], 0.8 / len(levels), label=level)
                labels = [report.number(b.tokens_per_s) for b in bars]
                ax.bar_label(drawn, labels, fontsize=6)
            ax.set_title(f"{shape}, {work}", fontsize=9)
            ax.set_xticks(range(len(types)), types, fontsize=8)
            ax.set_ylim(0, 110)
            ax.grid(axis="y", alpha=0.3)
            if column == 0:
                ax.set_ylabel("% of the limit", fontsize=8)
    axes[0][0].legend(fontsize=7)
    grid.suptitle(
        f"Share of the machine's limit, {threads} threads; figures: tokens/s\n{title}", fontsize=8
    )
    grid.savefig(path, dpi=150)


def main() -> None:
    """The command."""
    args = parse()
    machine.build_native()
    levels = choose_levels(args.levels, args.quick)
    about = machine.describe()
    limits = machine.Limits()
    figures, openings = measure(args, levels, limits)
    result = {
        "machine": about,
        "limits": limits.as_json(),
        "figures": [asdict(figure) for figure in figures],
        "openings": [asdict(opening) for opening in openings],
    }
    head = machine.sentence(about)
    report.publish(
        args,
        "speed",
        head,
        tables(figures, openings, limits),
        result,
        args.output.with_suffix(".json"),
    )
    picture = args.output.with_suffix(".png")
    plot(figures, picture, f"{about['cpu']}, {about['date']}")
    print(f"plot: {picture}")


if __name__ == "__main__":
    main()
