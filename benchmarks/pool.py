"""What the thread pool costs, and how it fares when another process takes a core.

    python -m benchmarks.pool --quick

The pool alone is measured by `bench_kernels --pool`. Then a model decodes with and without a
neighbour, a process that never rests, bound to the last core; both in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import command, machine, quiet, report
from .models import SHAPES, TYPES, into_page_cache, model_file
from .paths import BUILD
from .speed import numbers
from .units import count, number, percent
from .worker import Worker

# It says that it has begun, and ends with its parent, however that ends.
SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
print("spinning", flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextmanager
def neighbour(cpu: int) -> Iterator[int]:
    """A process that keeps one processor busy; gives its id."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPIN, str(cpu)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "spinning\n":
            raise RuntimeError(f"the neighbour on processor {cpu} ended with {process.wait()}")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def cores_left(threads: int, cores: int) -> float:
    """The share of processor time that a fair system leaves to threads beside a neighbour.

    The neighbour is bound to one core. Threads move to the other cores as long as there are any;
    the one that finds none has half a core.

    Args:
        threads: at most `cores`.
        cores: that both may use.
    """
    free = cores - 1
    return 1.0 if threads <= free else (free + 0.5) / threads


@dataclass
class Decoding:
    """One model's decoding, alone and beside a neighbour.

    Attributes:
        alone, beside: tokens per second, medians.
        kept: the median of the ratios beside / alone of neighbouring runs.
        cores_left: what a fair share of the processor alone would give.
        idle: processor seconds that the opened model uses in a second of waiting.
    """

    shape: str
    dtype: str
    level: str
    threads: int
    alone: float
    beside: float
    kept: float
    cores_left: float
    idle: float


def pool_costs(threads: list[int], seconds: float) -> list[dict[str, Any]]:
    """What native/bench/pool_costs.h describes, in seconds, for each number of threads."""
    command = [str(machine.BENCH_KERNELS), "--pool", "--json", "--seconds", str(seconds)]
    command += ["--threads", ",".join(map(str, threads))]
    done = subprocess.run(command, capture_output=True, check=True)
    costs: list[dict[str, Any]] = json.loads(done.stdout)
    return costs


def measure(args: argparse.Namespace, others: quiet.Others) -> list[Decoding]:
    """Decodes in turns, alone and beside a neighbour, with each number of threads."""
    path = model_file(SHAPES[args.shape], args.type)
    into_page_cache(path)
    cpu = max(os.sched_getaffinity(0))
    found = []
    with tqdm(total=len(args.threads) * args.repeats, disable=None, unit="turn") as bar:
        for threads in args.threads:
            bar.set_description(f"{args.shape} {args.type} {threads} threads")
            alone: list[float] = []
            beside: list[float] = []
            with Worker("runtime", path, threads) as worker:

                def decode(rates: list[float], worker: Worker = worker) -> None:
                    rates.append(1 / worker.ask("decode", seconds=args.seconds)["mean_seconds"])

                for _ in range(args.repeats):
                    others.look()
                    decode(alone)
                    with neighbour(cpu):
                        decode(beside)
                    bar.update()
                idle = worker.ask("idle", seconds=1.0)["processor_seconds"]
                found.append(
                    Decoding(
                        args.shape,
                        args.type,
                        worker.opened["kernels"],
                        threads,
                        statistics.median(alone),
                        statistics.median(beside),
                        statistics.median(b / a for a, b in zip(alone, beside, strict=True)),
                        cores_left(threads, machine.physical_cores()),
                        idle,
                    )
                )
    return found


def tables(costs: list[dict[str, Any]], found: list[Decoding]) -> list[report.Table]:
    """The pool alone; decoding beside a neighbour."""
    microseconds = ("region", "beyond_pieces", "run", "wake")
    alone = report.Table(
        "The pool alone, microseconds (last column: processor milliseconds)",
        [
            "threads",
            "empty region",
            "region beyond its 10 µs pieces",
            "run of one region",
            "waking all threads",
            "a second of idleness",
        ],
        [
            [
                str(c["threads"]),
                *(number(c[name] * 1e6) for name in microseconds),
                number(c["idle"] * 1e3),
            ]
            for c in costs
        ],
    )
    beside = report.Table(
        "Decoding, tokens per second, alone and beside a process that never rests, on one core",
        [
            "model",
            "alone",
            "beside it",
            "kept",
            "processor time left",
            "ms used in a second of idleness",
        ],
        [
            [
                f"{d.shape}, {d.dtype}, {d.level}, {count(d.threads, 'thread')}",
                number(d.alone),
                number(d.beside),
                percent(d.kept),
                percent(d.cores_left),
                number(d.idle * 1e3),
            ]
            for d in found
        ],
    )
    return [alone, beside]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pool", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--shape", choices=tuple(SHAPES), default="0.1B", help="default: 0.1B")
    add("--type", choices=TYPES, default="q4_0", help="default: q4_0")
    add("--threads", type=numbers, default=None, help="default: 1 and all physical cores")
    add("--repeats", type=int, default=None, help="turns (default: 9)")
    add("--seconds", type=float, default=None, help="length of a turn (default: 1)")
    add("--quick", action="store_true", help="three short turns")
    add("--output", type=Path, default=BUILD / "pool", help="where to: .json is added")
    args = command.parse(parser, arguments)
    cores = machine.physical_cores()
    args.threads = args.threads or sorted({1, cores})
    args.repeats = args.repeats or (3 if args.quick else 9)
    args.seconds = args.seconds or (0.3 if args.quick else 1.0)
    if not all(1 <= n <= cores for n in args.threads):
        parser.error(f"--threads: expected 1 to {cores}, the cores of this machine")
    return args


def _run(args: argparse.Namespace, others: quiet.Others) -> command.Found:
    costs = pool_costs(args.threads, args.seconds)
    found = measure(args, others)
    return tables(costs, found), {"pool": costs, "decoding": [asdict(d) for d in found]}


def main() -> None:
    """The command."""
    args = parse()
    machine.build_native()
    command.run("pool", args, _run)


if __name__ == "__main__":
    main()
