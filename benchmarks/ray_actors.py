"""What Ray costs: two actors of one thread beside one process of two, and an actor that is lost.

    hatch run ray:bench --quick

All have the same rows to write, tokens that are drawn at random, and the same cores. One process is
an `Engine`; actors are those of `rwkv_py.ray.generate`. How long they take to begin (processes,
imports, the model) is measured by itself, with a single row for each: it counts once, however many
rows there are. An actor is lost by SIGKILL when half of the rows are there.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rwkv_py import Engine, Model

from . import command, quiet, report
from .models import SHAPES, TYPES, into_page_cache, model_file
from .paths import BUILD
from .units import count, number, percent

MARK = "RWKV_BENCH_RAY"
SEED = 1
ACTORS = 2


@dataclass
class Run:
    """All rows, written once.

    Attributes:
        what: by whom.
        begin: seconds until the first row could be written, which one process is not charged for.
        seconds: for all rows, without `begin`.
        tokens: written, of all rows.
    """

    what: str
    begin: float
    seconds: float
    tokens: int


def measure(args: argparse.Namespace, others: quiet.Others) -> list[Run]:
    """Let one process write the rows, then actors, then actors of which one is lost."""
    path = model_file(SHAPES[args.shape], args.type)
    into_page_cache(path)
    generator = random.Random(SEED)
    prompts = [
        [generator.randrange(1, 60_000) for _ in range(args.prompt)] for _ in range(args.rows)
    ]
    writing: dict[str, Any] = {"max_tokens": args.tokens, "stop_tokens": [], "seed": SEED}
    tokens = args.rows * args.tokens
    runs = []
    with Model(path, threads=ACTORS) as model, Engine(model) as engine:
        engine.generate_batch(prompts[:1], **writing)
        others.look()
        begun = time.perf_counter()
        engine.generate_batch(prompts, **writing)
        seconds = time.perf_counter() - begun
        others.look()
        runs.append(Run(f"one process, {count(ACTORS, 'thread')}", 0.0, seconds, tokens))

    import ray

    os.environ[MARK] = uuid.uuid4().hex  # what its processes are known by
    ray.init(
        num_cpus=2 * ACTORS, include_dashboard=False, logging_level="warning", log_to_driver=False
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        # A row for each; twice, since the first time Ray itself begins, too.
        for _ in range(2):
            begin = _rows(path, prompts[:ACTORS], {**writing, "max_tokens": 1}, 1)
        for what, lost in ((f"{ACTORS} actors, 1 thread each", False), ("one of them lost", True)):
            seconds = _rows(path, prompts, writing, args.batch_size, lost=lost)
            runs.append(Run(what, begin, seconds - begin, tokens))
    finally:
        ray.shutdown()
    others.look()
    return runs


def _rows(
    path: Path,
    prompts: list[list[int]],
    writing: dict[str, Any],
    batch_size: int,
    *,
    lost: bool = False,
) -> float:
    """Return how many seconds actors take for all rows, from nothing."""
    import ray.data

    from rwkv_py.ray import generate

    dataset = ray.data.from_items([{"prompt": prompt} for prompt in prompts]).materialize()
    begun = time.perf_counter()
    texts = generate(dataset, path, actors=ACTORS, threads=1, batch_size=batch_size, **writing)
    n = 0
    for row in texts.iter_rows():
        assert row["index"] == n
        assert row["error"] is None, row["error"]
        n += 1
        if lost and n == len(prompts) // 2:
            _kill_actor()
    assert n == len(prompts), n
    return time.perf_counter() - begun


def _kill_actor() -> None:
    """Kill one of our actors, as a machine that fails would."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark in (folder / "environ").read_bytes()
            if ours and b"MapWorker" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
                return
        except OSError:  # it has ended
            continue
    raise RuntimeError("expected an actor, got none")


def tables(runs: list[Run]) -> list[report.Table]:
    """All runs beside the first."""
    alone = runs[0]
    rows = [
        [
            run.what,
            number(run.begin) if run.begin else "-",
            number(run.seconds),
            number(run.tokens / run.seconds),
            percent(alone.seconds / run.seconds),
        ]
        if run.seconds > 0
        else [run.what, number(run.begin), "-", "-", "-"]  # too few rows to tell from the beginning
        for run in runs
    ]
    columns = ["", "seconds to begin", "seconds for all rows", "tokens per second", "of one's"]
    return [report.Table("The same rows by one process and by actors", columns, rows)]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ray_actors", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="0.4B", help="default: 0.4B")
    add("--type", choices=TYPES, default="q4_0", help="default: q4_0")
    add("--rows", type=int, default=None, help="default: 512")
    add("--prompt", type=int, default=None, help="tokens of a prompt (default: 64)")
    add("--tokens", type=int, default=None, help="of a text (default: 64)")
    add("--batch-size", type=int, default=64, help="rows that an actor gets at once (default: 64)")
    add("--quick", action="store_true", help="the 0.1B shape, few short rows")
    add("--output", type=Path, default=BUILD / "ray", help="where to: .json is added")
    args = command.parse(parser, arguments)
    if args.quick:
        args.shape, args.batch_size = "0.1B", 8
    args.rows = args.rows or (48 if args.quick else 512)
    args.prompt = args.prompt or (16 if args.quick else 64)
    args.tokens = args.tokens or (16 if args.quick else 64)
    return args


def _run(args: argparse.Namespace, others: quiet.Others) -> command.Found:
    runs = measure(args, others)
    told = ("shape", "type", "rows", "prompt", "batch_size")
    about = {name: getattr(args, name) for name in told}
    return tables(runs), {**about, "runs": [asdict(run) for run in runs]}


def main() -> None:
    """The command."""
    command.run("ray", parse(), _run)


if __name__ == "__main__":
    main()
