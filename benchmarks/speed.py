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

from . import command, figures, machine, quiet, report, tables
from .figures import Figure, Measurements, Opening
from .models import DEFAULT_SHAPES, SHAPES, TYPES, into_page_cache, model_file
from .paths import BUILD, DATA
from .units import number
from .work import Rates, Work, concurrent_limit, decode_limit, prefill_limit, work_of
from .worker import Worker

DEFAULT_TYPES = ["fp16", "q4_0", "q8_0", "q4_K", "q5_K", "q6_K"]

LOADS = 3
"""How often a model is opened to take the median time."""


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
    types = f"of {', '.join(TYPES)}, or all (default: {','.join(DEFAULT_TYPES)})"
    add("--types", type=_names(TYPES), default=None, help=types)
    add("--levels", default=None, help="kernel levels, or all (default: all but reference)")
    add("--threads", type=numbers, default=None, help="default: 1 and all physical cores")
    add("--prefill", type=numbers, default=None, help="default: 16,128,512,2048")
    add("--sequences", type=numbers, default=[1, 4, 16], help="default: 1,4,16")
    add("--repeats", type=int, default=None, help="medians of this many runs (default: 5)")
    add("--seconds", type=float, default=None, help="length of a run (default: 1)")
    add("--quick", action="store_true", help="two minutes: 0.1B, q4_0 and q8_0, best level")
    add("--output", type=Path, default=BUILD / "speed", help="where to: .json and .png are added")
    args = command.parse(parser, arguments)
    quick = args.quick
    args.shapes = args.shapes or (["0.1B"] if quick else DEFAULT_SHAPES)
    args.types = args.types or (["q4_0", "q8_0"] if quick else DEFAULT_TYPES)
    args.prefill = args.prefill or ([128, 512] if quick else [16, 128, 512, 2048])
    args.threads = args.threads or sorted({1, machine.physical_cores()})
    args.repeats = args.repeats or (2 if quick else 5)
    args.seconds = args.seconds or (0.3 if quick else 1.0)
    return args


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


def measure(args: argparse.Namespace, levels: list[str], limits: machine.Limits) -> Measurements:
    """Runs everything, each run after a measurement of the limits."""
    found = Measurements()
    others = quiet.Others()
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
            found.openings.append(
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
                        others.look()
                        rates = limits.measure(work.decode_bytes, threads, level)
                        answer = worker.ask(**task.request, seconds=args.seconds)
                        seconds.append(answer["seconds"])
                        shares.append(task.limit(work, rates) / answer["seconds"])
                    found.figures.append(
                        Figure(
                            shape,
                            dtype,
                            level,
                            threads,
                            task.name,
                            task.tokens / statistics.median(seconds),
                            statistics.median(shares),
                            others=others.median(),
                        )
                    )
                    bar.update()
    found.reading, found.multiplying = limits.reading(), limits.multiplying()
    return found


def publish(
    args: argparse.Namespace, command: str, about: dict[str, Any], found: Measurements
) -> None:
    """Prints the tables, writes the JSON, and keeps what --docs asks to keep.

    Raises:
        SystemExit: --docs, and the machine was not quiet all the time. The figures between whose
            runs it was are kept.
    """
    run = figures.run_name(command, about)
    found = found.named(run, about)
    shown = [
        *tables.speed(found.figures),
        *tables.peers(found.figures),
        *tables.agreements(found.agreements),
        *tables.openings(found.openings),
        *tables.limits(found),
    ]
    report.publish(args, shown, asdict(found), args.output.with_suffix(".json"))
    if args.docs:
        quiet_ones, disturbed = found.parted(quiet.QUIET)
        figures.keep(DATA / "speed.json", quiet_ones)
        print(f"{DATA / 'speed.json'}: kept. `hatch run bench:docs` writes the pages")
        if disturbed:
            raise SystemExit(
                f"--docs: other processes, expected at most {quiet.QUIET} cores in use, got more "
                "beside these, which were not kept: "
                + "; ".join(f"{' '.join(map(str, f.key))} ({f.others:.2f})" for f in disturbed)
            )


def plot(rows: list[Figure], path: Path, title: str) -> None:
    """Bars of the share of the limit: a panel for each shape and kind of work."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    threads = max(figure.threads for figure in rows)
    shown = [figure for figure in rows if figure.threads == threads]
    shapes = list(dict.fromkeys(figure.model for figure in shown))
    works = list(dict.fromkeys(figure.work for figure in shown))
    levels = list(dict.fromkeys(figure.level for figure in shown))
    types = list(dict.fromkeys(figure.type for figure in shown))
    value = {(f.model, f.work, f.level, f.type): f for f in shown}
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
                drawn = ax.bar(
                    at, [100 * (b.share or 0) for b in bars], 0.8 / len(levels), label=level
                )
                labels = [number(b.tokens_per_s) for b in bars]
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
    if args.docs:
        quiet.require(quiet.now())
    about = machine.describe()
    found = measure(args, levels, machine.Limits())
    picture = args.output.with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot(found.figures, picture, f"{about['cpu']}, {about['date']}")
    print(f"plot: {picture}")
    publish(args, "bench", about, found)


if __name__ == "__main__":
    main()
