"""A storm: half of the clients send garbage or go away, and the server is killed in the middle.

    hatch run clients:soak --minutes 30

The other half notices nothing, but that they have to ask again what the killed server had not
answered: each text is the one that it is alone; and with --state-dir, all that it had said to be
kept is there again. Memory and open files stay what they were.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import rwkv_convert
from server import garbage
from server.behaving import Client, Wrong, known
from server.serving import reserved_port

RWKV = str(Path(sys.executable).parent / "rwkv")
EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
N_CLIENTS = 64
STATE_DISK = 80  # megabytes, of which the clients keep no more than 60
SETTLED_SECONDS = 30.0
"""How long a server that is asked much goes on taking memory that it keeps: caches, arenas."""


@dataclass
class Report:
    """What happened.

    Attributes:
        counts: of texts, retries, disconnects and the kinds of garbage.
        faults: what ought not to have happened.
        memory: seconds, which server it was, its resident megabytes and open files.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[float, int, float, int]] = field(default_factory=list)

    def growth(self) -> float:
        """How many megabytes the last server has grown, of two halves of its life, once settled."""
        last = self.memory[-1][1]
        mine = [(at, rss) for at, server, rss, _ in self.memory if server == last]
        lived = mine[-1][0] - mine[0][0]
        settled = mine[0][0] + min(SETTLED_SECONDS, lived / 2)
        sizes = [rss for at, rss in mine if at >= settled]
        half = len(sizes) // 2
        return statistics.median(sizes[half:]) - statistics.median(sizes[:half])

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(self.counts.items()))
        sizes = [rss for _, _, rss, _ in self.memory]
        return (
            f"{self.memory[-1][0]:.0f} s: {counts}; RSS {min(sizes):.0f} to {max(sizes):.0f} MB, "
            f"{self.growth():+.1f} MB from the third quarter of the last server's life to the last"
        )


class Serving:
    """A server that can be killed and begin anew at its address.

    Attributes:
        up: whether it answers.
        number: which one it is.
    """

    def __init__(self, model: Path, keys: Path, state_dir: Path | None, port: int):
        self.port = port
        self._command = [
            RWKV, "serve", str(model), "--alias", "m", "--port", str(self.port),
            "--api-keys", str(keys), "--cache", "8", "--max-body", "1",
        ]  # fmt: skip
        if state_dir is not None:
            self._command += ["--state-dir", str(state_dir), "--state-disk", str(STATE_DISK)]
        self.up = asyncio.Event()
        self.number = 0

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stderr=asyncio.subprocess.PIPE
        )
        assert self._process.stderr is not None
        line = await self._process.stderr.readline()
        assert b" at http://" in line, line
        self.number += 1
        self.up.set()

    async def kill(self) -> None:
        self.up.clear()
        self._process.kill()
        await self._process.wait()

    async def end(self) -> int:
        """Let it end as it should; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), 60)

    def memory(self) -> tuple[float, int]:
        """Its resident megabytes, and how many files it has open."""
        folder = Path("/proc") / str(self._process.pid)
        pages = int((folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(folder / "fd"))


async def storm(
    model: Path,
    *,
    seconds: float,
    n_disconnects: int,
    state_dir: Path | None = None,
    memory_file: Path | None = None,
) -> Report:
    """Let it rage.

    Args:
        model: a small model's file.
        seconds: for so long at least.
        n_disconnects: until so many streams were left at least.
        state_dir: an empty folder for what is to outlive the server; clients then let it keep
            responses and states, and look for them when it comes again.
        memory_file: where to write the memory as CSV, while it comes.
    """
    report = Report()
    right = known(model)
    keys = [f"key-{i}" for i in range(N_CLIENTS)]
    keeps = state_dir is not None
    behaving = {key: Client(right, key, keeps=keeps, counts=report.counts) for key in keys[1::2]}
    with tempfile.TemporaryDirectory() as folder, reserved_port() as port:
        (Path(folder) / "keys").write_text("\n".join(keys))
        serving = Serving(model, Path(folder) / "keys", state_dir, port)
        await serving.start()
        over = asyncio.Event()
        clients = [
            asyncio.create_task(
                _behave(serving, key, behaving[key], report, over)
                if key in behaving
                else _misbehave(serving, key, report, over)
            )
            for key in keys
        ]
        begun = time.monotonic()
        killed = False
        with _writing(memory_file) as write:
            while True:
                await asyncio.sleep(0.25)
                at = time.monotonic() - begun
                report.memory.append((at, serving.number, *serving.memory()))
                write(report.memory[-1])
                done = min(at / seconds, report.counts["disconnects"] / n_disconnects)
                if done >= 1 or report.faults or any(client.done() for client in clients):
                    break
                if done >= 0.5 and not killed:
                    killed = True
                    await serving.kill()
                    await serving.start()
        over.set()
        await asyncio.gather(*clients)
        await _ends(serving, behaving, report)
    return report


@contextlib.contextmanager
def _writing(file: Path | None) -> Iterator[Any]:
    """Yields what writes a row, so that what was measured is there whatever happens."""
    if file is None:
        yield lambda row: None
        return
    with file.open("w", newline="", buffering=1) as lines:
        writer = csv.writer(lines)
        writer.writerow(["seconds", "server", "rss_megabytes", "open_files"])
        yield lambda row: writer.writerow([f"{row[0]:.2f}", row[1], f"{row[2]:.1f}", row[3]])


async def _behave(
    serving: Serving,
    key: str,
    client: Client,
    report: Report,
    over: asyncio.Event,
) -> None:
    """Do something again and again; begin anew with each server."""
    while not over.is_set():
        await serving.up.wait()
        number = serving.number
        try:
            async with _connected(serving, key) as http:
                if number > 1:
                    await client.check(http)
                while serving.number == number and serving.up.is_set() and not over.is_set():
                    await client.step(http)
        except httpx.TransportError as error:
            if serving.up.is_set() and serving.number == number:
                report.faults.append(f"{key}: {type(error).__name__}: {error}")
                return
            report.counts["retries"] += 1
        except (Wrong, httpx.HTTPStatusError) as error:
            report.faults.append(f"{key}: {error}")
            return


@contextlib.asynccontextmanager
async def _connected(serving: Serving, key: str) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://127.0.0.1:{serving.port}"
    headers = {"authorization": f"Bearer {key}"}
    # Without certificates, which take long to load.
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, verify=False) as http:
        yield http


async def _misbehave(serving: Serving, key: str, report: Report, over: asyncio.Event) -> None:
    """Send garbage of all kinds, and leave streams."""
    chance = random.Random(key)
    while not over.is_set():
        await serving.up.wait()
        number = serving.number
        kind = chance.choice(garbage.KINDS)
        try:
            answer = await asyncio.wait_for(garbage.send(kind, serving.port, key, chance), 60)
        except TimeoutError:  # which is an OSError too
            report.faults.append(f"{kind.__name__}: expected an end, got none")
            continue
        except (OSError, asyncio.IncompleteReadError) as error:
            if serving.up.is_set() and serving.number == number and not garbage.may_be_cut(kind):
                report.faults.append(f"{kind.__name__}: {type(error).__name__}: {error}")
            continue
        report.counts["disconnects" if kind is garbage.leaves_a_stream else "garbage"] += 1
        if answer and not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200 ")):
            report.faults.append(f"{kind.__name__}: {answer[:200]!r}")


async def _ends(serving: Serving, behaving: dict[str, Client], report: Report) -> None:
    """All is there that was kept, nothing is held any more, and the server ends as it should."""
    if report.faults:
        await serving.kill()
        return
    for key, client in behaving.items():
        async with _connected(serving, key) as http:
            try:
                await client.check(http)
            except (Wrong, httpx.HTTPError) as error:
                report.faults.append(f"{key}, in the end: {error}")
    async with _connected(serving, next(iter(behaving))) as http:
        for _ in range(100):
            metrics = (await http.get("/metrics")).text
            n_files = serving.memory()[1]
            held = [
                line
                for line in metrics.splitlines()
                if line.startswith(("rwkv_running{", "rwkv_waiting{"))
            ]
            if all(line.endswith(" 0.0") for line in held) and n_files < N_CLIENTS // 2:
                break
            await asyncio.sleep(0.1)
        else:
            report.faults.append(f"in the end: {held}, {n_files} open files")
    if (code := await serving.end()) != 0:
        report.faults.append(f"expected an exit with 0, got {code}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--disconnects", type=int, default=1000, help="at least")
    parser.add_argument("--state-dir", action="store_true", help="with responses and states kept")
    parser.add_argument("--memory", type=Path, default=Path("build/soak.csv"), help="where to")
    args = parser.parse_args()
    args.memory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.bin"
        rwkv_convert.convert(EXAMPLES / "rwkv7-pydoc-L6-D256.pth", model, dtype="q4_0")
        report = asyncio.run(
            storm(
                model,
                seconds=args.minutes * 60,
                n_disconnects=args.disconnects,
                state_dir=Path(folder) / "states" if args.state_dir else None,
                memory_file=args.memory,
            )
        )
    print(report)
    print(f"memory: {args.memory}")
    if report.faults:
        sys.exit("\n".join(report.faults[:20]))


if __name__ == "__main__":
    main()
