"""What machine this is, and what it can do at best."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .figures import Multiplying, Reading
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
    """The machine's limits, measured again beside each run, since they move with its neighbours."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, int], list[float]] = {}
        self._multiply: dict[tuple[str, int], dict[str, list[float]]] = {}

    def measure(self, n_bytes: int, threads: int, level: str) -> Rates:
        """What reading a buffer of n_bytes and multiplying with a level's instructions reach now.

        Each is the best of several samples within about a second.
        """
        command = [str(BENCH_KERNELS), "--limits", "--json", "--read", str(n_bytes)]
        command += ["--threads", str(threads), "--levels", level]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        read = found["read"][0]["bytes_per_s"]
        multiply = {kind: found["multiply"][0][kind] for kind in ("int8", "bf16", "fp32")}
        self._read.setdefault((n_bytes, threads), []).append(read)
        kept = self._multiply.setdefault((level, threads), {kind: [] for kind in multiply})
        for kind, rate in multiply.items():
            kept[kind].append(rate)
        return Rates(read=read, **multiply)

    def reading(self) -> list[Reading]:
        """How fast memory was read."""
        return [
            Reading(n, t, statistics.median(rates), min(rates), max(rates))
            for (n, t), rates in sorted(self._read.items())
        ]

    def multiplying(self) -> list[Multiplying]:
        """How fast the levels multiplied."""
        return [
            Multiplying(
                level,
                t,
                int8=statistics.median(rates["int8"]),
                bf16=statistics.median(rates["bf16"]),
                fp32=statistics.median(rates["fp32"]),
            )
            for (level, t), rates in sorted(self._multiply.items())
        ]


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
    """The commit, with "-dirty" if what is measured differs from it: documents do not count."""
    git = ["git", "-C", str(REPO)]
    done = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True)
    changed = [*git, "diff", "--quiet", "HEAD", "--", "native", "packages", "benchmarks"]
    dirty = "-dirty" if subprocess.run(changed, capture_output=True).returncode == 1 else ""
    return done.stdout.strip() + dirty or "unknown"


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


def sentence(machine: Mapping[str, Any]) -> str:
    """The machine and the software in one line."""
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    return (
        f"{machine['date']}, commit {machine['commit']}: {machine['cpu']} (family/model "
        f"{machine['cpu_family_model']}), {machine['physical_cores']} cores, {caches}, "
        f"{machine['memory_gib']} GiB; {machine['compiler']}; load average "
        f"{machine['load_average']} at the start"
    )
