"""Fuzzes every reader and the C API: `hatch run fuzz --minutes N`.

Builds the harnesses with clang under the address and undefined-behaviour sanitizers, and runs them
and the fuzzer of the Python readers in turns. What was tried stays in build/fuzz/work, so that the
next run goes on from there; findings are kept in build/fuzz/findings, and mean exit code 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/fuzz"
FINDINGS = BUILD / "findings"
TURN_SECONDS = 60

# The longest input of each: programs of 200 calls and state files of tiny models are not longer.
HARNESSES = {
    "ggmf": 60_000,
    "gguf": 60_000,
    "gguf_split": 30_000,
    "state": 4_500,
    "vocabulary": 4_096,
    "api": 1_024,
}
PYTHON = "python"


@dataclass
class Count:
    """What a harness has done so far."""

    executions: int = 0
    coverage: int = 0
    megabytes: float = 0.0
    findings: int = 0


def compiler() -> tuple[str, str]:
    """The newest clang and clang++ that are installed."""
    for suffix in ("", *(f"-{version}" for version in range(25, 12, -1))):
        c, cpp = shutil.which(f"clang{suffix}"), shutil.which(f"clang++{suffix}")
        if c and cpp:
            return c, cpp
    sys.exit("fuzz: no compiler, expected clang. Try apt-get install clang libclang-rt-dev")


def build() -> None:
    """Makes the harnesses, and the inputs that they begin with."""
    c, cpp = compiler()
    options = ["-DRWKV_FUZZ=ON", "-DRWKV_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    compilers = [f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cpp}"]
    configure = ["cmake", "-S", "native", "-B", str(BUILD), "-G", "Ninja", *options, *compilers]
    targets = ["fuzz_seeds", *(f"fuzz_{name}" for name in HARNESSES)]
    subprocess.run(configure, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(BUILD), "--target", *targets], cwd=ROOT, check=True)
    subprocess.run([str(BUILD / "fuzz/fuzz_seeds"), str(BUILD / "seeds")], check=True)
    FINDINGS.mkdir(exist_ok=True)


def number(pattern: str, text: str) -> float:
    """The last number that a pattern finds, 0 if none."""
    found = re.findall(pattern, text)
    return float(found[-1]) if found else 0.0


def native_turn(name: str, seconds: int, count: Count) -> None:
    """Lets libFuzzer drive a harness for a while."""
    work = BUILD / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    command = [
        str(BUILD / "fuzz" / f"fuzz_{name}"),
        f"-max_total_time={seconds}",
        f"-max_len={HARNESSES[name]}",
        "-timeout=60",  # hangs; harness.cpp knows what is slow
        "-rss_limit_mb=1500",
        "-entropic=0",
        "-print_final_stats=1",
        f"-artifact_prefix={FINDINGS}/{name}-",
        str(work),
        str(BUILD / "seeds" / name),
        str(ROOT / "native/fuzz/corpus" / name),
    ]
    # Short stacks of allocations: most of the time goes into them otherwise.
    env = {**os.environ, "ASAN_OPTIONS": "malloc_context_size=2"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")
    log = done.stderr
    count.executions += int(number(r"number_of_executed_units: (\d+)", log))
    count.coverage = int(max(count.coverage, number(r"cov: (\d+)", log)))
    count.megabytes = max(count.megabytes, number(r"inputs: ([\d.]+) MB", log))
    if done.returncode != 0:
        count.findings += 1
        errors = [line for line in log.splitlines() if "ERROR" in line or "Test unit" in line]
        print(f"{name}: FINDING", *errors, sep="\n    ")


def python_turn(seconds: int, seed: int, count: Count) -> None:
    """Gives damaged files to the readers of rwkv-convert for a while."""
    command = [sys.executable, "-m", "convert.fuzz_readers", str(seconds), str(seed), str(FINDINGS)]
    # One arena: another for each thread would count as memory that was taken.
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    count.executions += int(number(r"executions: (\d+)", done.stdout))
    count.megabytes = max(count.megabytes, number(r"([\d.]+) MB", done.stdout))
    if done.returncode != 0:
        count.findings += 1
        print(f"{PYTHON}: FINDING", done.stdout, done.stderr, sep="\n    ")


def main() -> int:
    """Runs all in turns until the time is up, and tells what they did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of fuzzing, in all")
    parser.add_argument("--only", nargs="*", help="names of harnesses")
    arguments = parser.parse_args()
    names = arguments.only or [*HARNESSES, PYTHON]
    unknown = set(names) - {*HARNESSES, PYTHON}
    if unknown:
        parser.error(f"--only: expected some of {', '.join([*HARNESSES, PYTHON])}, got {unknown}")
    build()
    counts = {name: Count() for name in names}
    end = time.monotonic() + 60 * arguments.minutes
    turn_seconds = max(1, min(TURN_SECONDS, int(60 * arguments.minutes / len(names))))
    seed = int(time.time())
    while time.monotonic() < end:
        for name, count in counts.items():
            if name == PYTHON:
                python_turn(turn_seconds, seed, count)
            else:
                native_turn(name, turn_seconds, count)
            seed += 1
            print(f"{name}: {count.executions} executions so far", flush=True)
    print(f"\n{'harness':12} {'executions':>12} {'coverage':>9} {'most MB':>8} {'findings':>9}")
    for name, count in counts.items():
        print(
            f"{name:12} {count.executions:12} {count.coverage:9} {count.megabytes:8.1f} "
            f"{count.findings:9}"
        )
    return 1 if any(count.findings for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
