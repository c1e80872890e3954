"""`rwkv serve` under load, beside llama-server and beside `Engine` alone; and a long conversation.

    python -m benchmarks.server --quick

The clients are a process of their own, `server_load.py`, the same for both servers; its processor
time is told. The first run compiles llama-server, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import command, machine, quiet, report
from .engines.llama_server import llama_server
from .models import SHAPES, Shape, into_page_cache, model_file
from .paths import BUILD, REPO
from .peers import gguf_file
from .speed import numbers
from .units import count, number, percent

OURS, ENGINE, PEER = "rwkv serve", "Engine alone", "llama-server"
PROMPT_TOKENS = 128
COMPARED_TURNS = 5
"""Of a conversation's beginning and end as many turns are looked at: one alone says little."""


@dataclass
class Load:
    """What clients saw that asked all at once: medians of turns; seconds.

    Attributes:
        name: who was asked.
        clients: how many asked.
        tokens_per_second: written, for all of them.
        first_p50, first_p99: from a request to its first text.
        gap_p50, gap_p99: between one piece of a text and the next.
        client_cores: processor time that the clients took; of `Engine`, it is the engine's.
    """

    name: str
    clients: int
    tokens_per_second: float
    first_p50: float
    first_p99: float
    gap_p50: float
    gap_p99: float
    client_cores: float


@dataclass
class Conversation:
    """A conversation that the client sends wholly in each turn: medians of a few turns.

    Attributes:
        turns: how many.
        early, late: seconds to the first text, of turn 2 and those after it, of the last ones.
        early_tokens, late_tokens: how many tokens of the prompt were read for it.
    """

    turns: int
    early: float
    late: float
    early_tokens: float
    late_tokens: float


# ---- servers -----------------------------------------------------------------------------------

Server = Callable[[int], AbstractContextManager[str]]
"""From how many ask at once to a server that is up, by its URL."""


def _ours(path: Path, threads: int) -> Server:
    @contextmanager
    def serving(n_clients: int) -> Iterator[str]:
        rwkv = Path(sys.executable).parent / "rwkv"
        command = [
            str(rwkv), "serve", str(path), "--alias", "m", "--port", "0",
            "--threads", str(threads), "--max-running", str(n_clients),
        ]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                line = process.stderr.readline()
                if " at http://" not in line:
                    raise SystemExit(line + process.stderr.read())
                yield line.rsplit(" ", 1)[1].strip()
            finally:
                process.terminate()

    return serving


def _llama_server(path: Path, threads: int) -> Server:
    program = llama_server()

    @contextmanager
    def serving(n_clients: int) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [
            str(program), "--model", str(path), "--alias", "m", "--port", str(port),
            "--threads", str(threads), "--parallel", str(n_clients),
            "--ctx-size", str(1024 * n_clients),
        ]  # fmt: skip
        with (BUILD / "llama-server.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            while not _is_up(url):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)}: failed, see {log.name}")
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait()

    return serving


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def _clients(where: Path | str, job: dict[str, Any]) -> dict[str, Any]:
    """Has the process of the clients do a job."""
    command = [sys.executable, "-m", "benchmarks.server_load", str(where)]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, cwd=REPO)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# ---- what is measured --------------------------------------------------------------------------


def measure(args: argparse.Namespace, shape: Shape, others: quiet.Others) -> list[Load]:
    """Both servers and `Engine`, in turns, for each number of clients."""
    path = model_file(shape, "q4_0")
    servers = {
        OURS: _ours(path, args.threads),
        PEER: _llama_server(gguf_file(shape, "q4_0"), args.threads),
    }
    into_page_cache(path)
    into_page_cache(gguf_file(shape, "q4_0"))
    seen: dict[tuple[str, int], list[dict[str, float]]] = {}
    names = (OURS, PEER, ENGINE)
    with tqdm(total=len(args.clients) * args.repeats * len(names), disable=None) as bar:
        for n in args.clients:
            for repeat in range(args.repeats):
                job = {
                    "clients": n,
                    "requests": args.requests,
                    "prompt": PROMPT_TOKENS,
                    "tokens": args.tokens,
                    "n_vocab": shape.n_vocab,
                    "seed": repeat,
                    "threads": args.threads,
                }
                for name in names:
                    bar.set_description(f"{name}, {n} clients")
                    others.look()
                    if name == ENGINE:
                        found = _clients(path, job)
                    else:
                        with servers[name](n) as url:
                            found = _clients(url, job)
                    seen.setdefault((name, n), []).append(found)
                    bar.update()
    return [
        Load(name, n, **{key: statistics.median(row[key] for row in rows) for key in rows[0]})
        for (name, n), rows in seen.items()
    ]


def converse(args: argparse.Namespace, shape: Shape) -> Conversation:
    """A conversation of many turns with our server."""
    with _ours(model_file(shape, "q4_0"), args.threads)(1) as url:
        found = _clients(url, {"turns": args.turns, "tokens": 8})

    def median(name: str, part: slice) -> float:
        return float(statistics.median(found[name][part]))

    early, late = slice(1, 1 + COMPARED_TURNS), slice(-COMPARED_TURNS, None)
    return Conversation(
        args.turns,
        median("first", early),
        median("first", late),
        median("new_tokens", early),
        median("new_tokens", late),
    )


# ---- the command -------------------------------------------------------------------------------


def tables(found: list[Load], conversation: Conversation) -> list[report.Table]:
    """Load, and the conversation."""
    rates = {(load.name, load.clients): load.tokens_per_second for load in found}

    def milliseconds(seconds: float) -> str:
        return number(1000 * seconds)

    def asked(load: Load) -> str:
        return f"{load.name}, {count(load.clients, 'client')}"

    rate = report.Table(
        "Streamed completions: tokens a second, of all clients together",
        ["", "tokens/s", "of llama-server", "of Engine", "cores that the clients used"],
        [
            [
                asked(load),
                number(load.tokens_per_second),
                f"{number(load.tokens_per_second / rates[PEER, load.clients])} ×",
                percent(load.tokens_per_second / rates[ENGINE, load.clients]),
                "" if load.name == ENGINE else f"{load.client_cores:.2f}",
            ]
            for load in found
        ],
    )
    waits = report.Table(
        "How long they wait, milliseconds",
        ["", "first text, median", "99 %", "between pieces, median", "99 %"],
        [
            [
                asked(load),
                *map(milliseconds, (load.first_p50, load.first_p99, load.gap_p50, load.gap_p99)),
            ]
            for load in found
        ],
    )
    long = report.Table(
        "A conversation that the client sends wholly in each turn: medians of "
        f"{COMPARED_TURNS} turns",
        ["turn", "first text, ms", "of turn 2", "tokens of the prompt that were read"],
        [
            ["2", milliseconds(conversation.early), "", f"{conversation.early_tokens:.0f}"],
            [
                str(conversation.turns),
                milliseconds(conversation.late),
                f"{number(conversation.late / conversation.early)} ×",
                f"{conversation.late_tokens:.0f}",
            ],
        ],
    )
    return [rate, waits, long]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.server", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--shape", choices=tuple(SHAPES), default=None, help="default: 0.4B")
    add("--clients", type=numbers, default=None, help="default: 1,4,16,64")
    add("--threads", type=int, default=machine.physical_cores(), help="default: all cores")
    add("--requests", type=int, default=None, help="of each client (default: 2)")
    add("--tokens", type=int, default=None, help="that each request writes (default: 64)")
    add("--turns", type=int, default=None, help="of the conversation (default: 200)")
    add("--repeats", type=int, default=None, help="turns (default: 3)")
    add("--quick", action="store_true", help="0.1B, 1 and 4 clients, short texts, once")
    add("--output", type=Path, default=BUILD / "server", help="where to: .json is added")
    args = command.parse(parser, arguments)
    quick = args.quick
    args.shape = args.shape or ("0.1B" if quick else "0.4B")
    args.clients = args.clients or ([1, 4] if quick else [1, 4, 16, 64])
    args.requests = args.requests or (1 if quick else 2)
    args.tokens = args.tokens or (16 if quick else 64)
    args.turns = args.turns or (20 if quick else 200)
    args.repeats = args.repeats or (1 if quick else 3)
    if args.turns < 2 * COMPARED_TURNS:
        parser.error(f"--turns: expected {2 * COMPARED_TURNS} or more, got {args.turns}")
    return args


def _run(args: argparse.Namespace, others: quiet.Others) -> command.Found:
    shape = SHAPES[args.shape]
    found = measure(args, shape, others)
    others.look()
    conversation = converse(args, shape)
    return tables(found, conversation), {
        "shape": args.shape,
        "threads": args.threads,
        "load": [asdict(load) for load in found],
        "conversation": asdict(conversation),
    }


def main() -> None:
    """The command."""
    args = parse()
    machine.build_native()
    BUILD.mkdir(parents=True, exist_ok=True)
    command.run("server", args, _run)


if __name__ == "__main__":
    main()
