"""What machine this is, and what it can do at best."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from .paths import BUILD, REPO
from .work import Rates

BENCH_KERNELS = BUILD / "native" / "bench" / "bench_kernels"
LIBRARY = BUILD / "native" / "librwkv_runtime.so"


def build_native() -> None:
    """Compiles the library and its micro-benchmarks, as optimised as what is released."""
    folder = BUILD / "native"
    settings = ["-DCMAKE_BUILD_TYPE=Release", "-DRWKV_BENCH=ON", "-DRWKV_INSTALL=OFF"]
    for command in (
        ["cmake", "-S", str(REPO / "native"), "-B", str(folder), "-G", "Ninja", *settings],
        ["cmake", "--build", str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def physical_cores() -> int:
    """Physical cores that this process may use."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add((topology / "thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


class Limits:
    """The machine's limits, measured again before each piece of work; the best of a run counts."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, int], float] = {}
        self._multiply: dict[tuple[str, int], dict[str, float]] = {}

    def measure(self, n_bytes: int, threads: int, level: str) -> None:
        """Measures reading a buffer of n_bytes, and multiplying with a level's instructions."""
        command = [str(BENCH_KERNELS), "--limits", "--json", "--read", str(n_bytes)]
        command += ["--threads", str(threads), "--levels", level]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        rate = found["read"][0]["bytes_per_s"]
        self._read[n_bytes, threads] = max(rate, self._read.get((n_bytes, threads), 0.0))
        kept = self._multiply.setdefault((level, threads), {"int8": 0, "bf16": 0, "fp32": 0})
        for kind in kept:
            kept[kind] = max(kept[kind], found["multiply"][0][kind])

    def rates(self, n_bytes: int, threads: int, level: str) -> Rates:
        """The best that was measured so far."""
        multiply = self._multiply[level, threads]
        return Rates(read=self._read[n_bytes, threads], **multiply)

    def as_json(self) -> dict[str, Any]:
        """Everything measured: bytes per second, multiply-adds per second."""
        return {
            "read": [
                {"bytes": n, "threads": t, "bytes_per_s": rate}
                for (n, t), rate in sorted(self._read.items())
            ],
            "multiply": [
                {"level": level, "threads": t, **rates}
                for (level, t), rates in sorted(self._multiply.items())
            ],
        }


def levels() -> list[str]:
    """Kernel levels that run on this machine, lowest first."""
    command = [str(BENCH_KERNELS), "--limits", "--json", "--read", "65536", "--threads", "1"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return [entry["level"] for entry in found["multiply"]]


def _lines(path: str) -> dict[str, str]:
    try:
        text = Path(path).read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _caches() -> dict[str, str]:
    """Size of each cache as one processor sees it."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            level = (index / "level").read_text().strip()
            found[f"L{level}"] = (index / "size").read_text().strip()
    return found


def cpu_flags() -> set[str]:
    """What the processor says it can do, in Linux's words."""
    return set(_lines("/proc/cpuinfo").get("flags", "").split())


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(REPO), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def describe() -> dict[str, Any]:
    """The machine, the software and the date."""
    cpu = _lines("/proc/cpuinfo")
    memory = _lines("/proc/meminfo").get("MemTotal", "0 kB")
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "physical_cores": physical_cores(),
        "caches": _caches(),
        "memory_gib": round(int(memory.split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "compiler": compiler.splitlines()[0] if compiler else "unknown",
        "python": platform.python_version(),
        "commit": _commit(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def sentence(machine: dict[str, Any]) -> str:
    """The description in one line, for the head of a table."""
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    return (
        f"{machine['cpu']} (family/model {machine['cpu_family_model']}), "
        f"{machine['physical_cores']} cores, {caches}, {machine['memory_gib']} GiB; "
        f"{machine['compiler']}; {machine['date']}, commit {machine['commit']}, "
        f"load average {machine['load_average']} at the start"
    )
