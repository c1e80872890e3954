"""`rwkv batch` beside `Engine` alone: the same prompts, of mixed length.

    python -m benchmarks.batch --quick

Each is a process of its own, in turns. What is measured of both begins when the model is open and
ends with the last answer, of `rwkv batch` in its file; how long its process takes is told, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import command, machine, quiet, report
from .models import SHAPES, Shape, into_page_cache, model_file
from .paths import BUILD, REPO
from .units import number, percent

OURS, ENGINE = "rwkv batch", "Engine alone"
SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": 50}
NO_END = {0: -100.0}
"""A bias, so that as much is written as is asked for."""


@dataclass
class Run:
    """The work done once: medians of turns; seconds.

    Attributes:
        name: what did it.
        seconds: from an open model to the last answer.
        process_seconds: of the whole process, with opening the model.
        n_read, n_written: tokens of all prompts and texts.
    """

    name: str
    seconds: float
    process_seconds: float
    n_read: int
    n_written: int


def requests(n: int, longest: int, n_vocab: int) -> list[dict[str, Any]]:
    """Bodies of completions: prompts and texts of all lengths up to the longest.

    Args:
        n: how many.
        longest: tokens, of a prompt; of a text half as many.
        n_vocab: prompts are of these tokens, drawn at random.
    """
    generator = np.random.default_rng(1)
    found = []
    for i in range(n):
        prompt = generator.integers(1, n_vocab, generator.integers(1, longest + 1)).tolist()
        n_tokens = int(generator.integers(1, longest // 2 + 1))
        found.append({"prompt": prompt, "max_tokens": n_tokens, "seed": i, **SAMPLING})
    return found


def write_lines(bodies: list[dict[str, Any]], path: Path) -> None:
    """Writes requests as `rwkv batch` reads them."""
    bias = {str(token): value for token, value in NO_END.items()}
    with path.open("w") as file:
        for i, body in enumerate(bodies):
            request = {"method": "POST", "url": "/v1/completions"}
            line = {"custom_id": f"#{i}", **request, "body": {**body, "logit_bias": bias}}
            file.write(json.dumps(line) + "\n")


def by_engine(path: Path, lines: Path, threads: int, at_once: int) -> dict[str, float]:
    """Does the work with an `Engine`, in this process."""
    from rwkv_py import Engine, Model

    bodies = [json.loads(line)["body"] for line in lines.open()]
    for body in bodies:
        body["logit_bias"] = NO_END
    with Engine(Model(path, threads=threads), max_running=at_once) as engine:
        begun = time.perf_counter()
        for request in [engine.submit(body.pop("prompt"), **body) for body in bodies]:
            request.result()
        return {"seconds": time.perf_counter() - begun}


def once(name: str, path: Path, lines: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Does the work in a process; returns its seconds, and those of the process."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        if name == OURS:
            rwkv = Path(sys.executable).parent / "rwkv"
            command = [str(rwkv), "batch", str(lines), f"{folder}/out.jsonl", "--json"]
            command += ["--model", str(path), "--threads", str(args.threads)]
            command += ["--max-running", str(args.at_once)]
        else:
            job = [str(path), str(lines), str(args.threads), str(args.at_once)]
            command = [sys.executable, "-m", "benchmarks.batch", "--engine", *job]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    found = json.loads(done.stdout)
    if found.get("n_failed"):
        raise SystemExit(f"{' '.join(command)}: {found['n_failed']} lines failed")
    return found["seconds"], time.perf_counter() - begun


def measure(args: argparse.Namespace, shape: Shape, others: quiet.Others) -> list[Run]:
    """Both, in turns."""
    path = model_file(shape, "q4_0")
    into_page_cache(path)
    bodies = requests(args.prompts, args.longest, shape.n_vocab)
    lines = BUILD / "batch.jsonl"
    write_lines(bodies, lines)
    n_read = sum(len(body["prompt"]) for body in bodies)
    n_written = sum(body["max_tokens"] for body in bodies)
    seen: dict[str, list[tuple[float, float]]] = {ENGINE: [], OURS: []}
    with tqdm(total=args.repeats * len(seen), disable=None) as bar:
        for _ in range(args.repeats):
            for name, times in seen.items():
                bar.set_description(name)
                others.look()
                times.append(once(name, path, lines, args))
                bar.update()
    lines.unlink()
    found = []
    for name, times in seen.items():
        seconds, process_seconds = map(statistics.median, zip(*times, strict=True))
        found.append(Run(name, seconds, process_seconds, n_read, n_written))
    return found


# ---- the command -------------------------------------------------------------------------------


def tables(found: list[Run]) -> list[report.Table]:
    """Both side by side."""
    engine = next(run.seconds for run in found if run.name == ENGINE)
    return [
        report.Table(
            "",
            ["", "seconds", "tokens/s, written", "tokens/s, read too", "of Engine", "process, s"],
            [
                [
                    run.name,
                    number(run.seconds),
                    number(run.n_written / run.seconds),
                    number((run.n_read + run.n_written) / run.seconds),
                    percent(engine / run.seconds),
                    number(run.process_seconds),
                ]
                for run in found
            ],
        )
    ]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--shape", choices=tuple(SHAPES), default="0.1B")
    add("--prompts", type=int, default=None, help="how many (default: 2000)")
    add("--longest", type=int, default=None, help="tokens of a prompt (default: 256)")
    add("--at-once", type=int, default=32, help="texts that are written at once")
    add("--threads", type=int, default=machine.physical_cores(), help="default: all cores")
    add("--repeats", type=int, default=None, help="turns (default: 3)")
    add("--quick", action="store_true", help="200 prompts of 64 tokens at most, once")
    add("--output", type=Path, default=BUILD / "batch", help="where to: .json is added")
    add("--engine", nargs=4, default=None, help=argparse.SUPPRESS)
    args = command.parse(parser, arguments)
    args.prompts = args.prompts or (200 if args.quick else 2000)
    args.longest = args.longest or (64 if args.quick else 256)
    args.repeats = args.repeats or (1 if args.quick else 3)
    if args.longest < 2:
        parser.error(f"--longest: expected 2 or more, got {args.longest}")
    return args


def _run(args: argparse.Namespace, others: quiet.Others) -> command.Found:
    runs = measure(args, SHAPES[args.shape], others)
    others.look()
    told = ("shape", "threads", "prompts", "longest", "at_once")
    about = {name: getattr(args, name) for name in told}
    return tables(runs), {**about, "runs": [asdict(run) for run in runs]}


def main() -> None:
    """The command."""
    args = parse()
    if args.engine is not None:
        path, lines, threads, at_once = args.engine
        print(json.dumps(by_engine(Path(path), Path(lines), int(threads), int(at_once))))
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    command.run("batch", args, _run)


if __name__ == "__main__":
    main()
