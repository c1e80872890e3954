"""One process with one engine and one model, measured on demand.

    python -m benchmarks.worker ENGINE[:VARIANT] MODEL THREADS

reads one JSON request a line from stdin and answers each with one line on stdout. Levels and
threads are clean that way, and two engines can be measured in turns. This module and the engines
need numpy and what the engine needs, so that it runs in an environment of the engine's own.
`Worker` is the other side.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .paths import REPO


def resident_bytes() -> int:
    """Memory of this process that is resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Measure:
    """The pieces of work; each returns seconds for one step of it."""

    def __init__(self, engine: str, path: str, threads: int) -> None:
        name, *variant = engine.split(":")
        module = importlib.import_module(f"benchmarks.engines.{name}")
        before = resident_bytes()
        start = time.perf_counter()
        self._engine = module.Engine(path, threads, *variant)
        self.load_seconds = time.perf_counter() - start
        self.resident_bytes = resident_bytes()
        self.resident_before = before
        self._tokens = np.random.default_rng(1).integers(
            1, self._engine.n_vocab, 1 << 16, dtype=np.int32
        )
        self._at = 0

    def opened(self) -> dict[str, Any]:
        """What was opened, how long it took, and the memory afterwards."""
        return {
            **self._engine.describe(),
            "load_seconds": self.load_seconds,
            "resident_bytes": self.resident_bytes,
            "resident_before": self.resident_before,
        }

    def decode(self, seconds: float) -> dict[str, Any]:
        """One token after the other, for that long: seconds for a token."""
        self._engine.reset()
        return self._repeat(seconds, lambda: self._engine.feed(self._next(1)))

    def prefill(self, seconds: float, n_tokens: int) -> dict[str, Any]:
        """Prompts of n_tokens, each from a fresh state, for that long: seconds for a prompt."""

        def prompt() -> None:
            self._engine.reset()
            self._engine.feed(self._next(n_tokens))

        return self._repeat(seconds, prompt)

    def concurrent(self, seconds: float, n_sequences: int) -> dict[str, Any]:
        """One token for each of n_sequences a step, for that long: seconds for a step."""
        self._engine.reset(n_sequences)
        return self._repeat(seconds, lambda: self._engine.step(self._next(n_sequences)))

    def logits(self, tokens: list[int], out: str) -> dict[str, Any]:
        """Writes the logits after each token to a .npy file."""
        np.save(out, self._engine.logits(tokens))
        return {}

    def idle(self, seconds: float) -> dict[str, Any]:
        """Does nothing for that long: processor seconds that threads burn meanwhile."""
        before = time.process_time()
        time.sleep(seconds)
        return {"processor_seconds": time.process_time() - before}

    def close(self) -> dict[str, Any]:
        """Gives the model back."""
        self._engine.close()
        return {}

    def _next(self, n: int) -> Any:
        if self._at + n > len(self._tokens):
            self._at = 0
        self._at += n
        return self._tokens[self._at - n : self._at]

    @staticmethod
    def _repeat(seconds: float, step: Any) -> dict[str, Any]:
        """Steps until the time is over, after one that is not counted: their median and mean."""
        start = time.perf_counter()
        step()
        first = time.perf_counter() - start
        if first > 2 * seconds:  # long enough that warming up does not show
            return {"seconds": first, "mean_seconds": first, "steps": 1}
        times = []
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return {
            "seconds": statistics.median(times),
            "mean_seconds": statistics.fmean(times),
            "steps": len(times),
        }


class WorkerError(RuntimeError):
    """A worker that failed, with what it said."""


class Worker:
    """A worker process, as seen from outside."""

    def __init__(
        self,
        engine: str,
        path: Path,
        threads: int,
        *,
        python: Path | str = sys.executable,
        level: str | None = None,
    ) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if level is not None:
            env["RWKV_KERNELS"] = level
        self.name = engine
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.worker", engine, str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
            env=env,
        )
        self.opened = self._answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, work: str, **arguments: Any) -> dict[str, Any]:
        """Has a piece of work done; returns what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"work": work, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name}: the worker ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer


def main() -> None:
    """Serves requests until stdin ends."""
    engine, path, threads = sys.argv[1:]
    # Whatever an engine prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        measure = Measure(engine, path, int(threads))
        say(measure.opened())
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(getattr(measure, request.pop("work"))(**request))
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})
    measure.close()


if __name__ == "__main__":
    main()
