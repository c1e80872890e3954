"""The table of measurements that the documentation shows: docs/benchmarks/speed.json.

Every figure is there once. `benchmarks.speed` and `benchmarks.peers` add to it, `benchmarks.pages`
writes of it. Each row names its run, and the run its machine, commit and date.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .units import count

LEVELS = ("reference", "avx2", "avx512", "avx512_vnni", "amx", "neon", "neon_dotprod")
"""The kernel levels, those of a kind of processor lowest first."""

Run = Mapping[str, Any]
"""What `machine.describe` says, when a command was run."""


@dataclass(frozen=True)
class Peer:
    """Another engine at the same work, in turns with ours.

    Attributes:
        tokens_per_s: median of the repeats.
        ratio: ours to the peer's; the median of the ratios of neighbouring runs.
    """

    name: str
    tokens_per_s: float
    ratio: float


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        run: of Measurements.runs; "" until it is added there.
        work: "decode", "prefill N" or "N sequences".
        tokens_per_s: of all sequences together; median of the repeats.
        share: of the machine's limit, measured beside each of them; median of the ratios; None if
            it was not measured.
        peers: who worked in turns with us.
        others: cores that other processes used between the repeats; median. None if not measured.
    """

    model: str
    type: str
    level: str
    threads: int
    work: str
    tokens_per_s: float
    share: float | None
    peers: tuple[Peer, ...] = ()
    others: float | None = None
    run: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells figures of one machine apart."""
        return (self.model, self.type, self.level, self.threads, self.work)


@dataclass(frozen=True)
class Opening:
    """What opening a model takes: seconds (median), resident bytes of the process afterwards."""

    model: str
    type: str
    level: str
    threads: int
    seconds: float
    resident_bytes: int
    resident_before: int
    file_bytes: int
    run: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells openings on one machine apart."""
        return (self.model, self.type, self.level, self.threads)


@dataclass(frozen=True)
class Reading:
    """How fast memory is read: bytes per second; median, least and most measured."""

    bytes: int
    threads: int
    bytes_per_s: float
    least: float
    most: float
    run: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells readings on one machine apart."""
        return (self.bytes, self.threads)


@dataclass(frozen=True)
class Multiplying:
    """How often a level's best instruction multiplies and adds in a second; 0: it has none."""

    level: str
    threads: int
    int8: float
    bf16: float
    fp32: float
    run: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells these limits of one machine apart."""
        return (self.level, self.threads)


@dataclass(frozen=True)
class Agreement:
    """How far a peer's logits are from ours, after each of some tokens.

    Attributes:
        largest: the largest difference; scale: the largest logit.
        same_token: at how many of `tokens` places both put the same token first.
    """

    model: str
    type: str
    peer: str
    largest: float
    scale: float
    same_token: int
    tokens: int
    run: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells agreements on one machine apart."""
        return (self.model, self.type, self.peer)


class _Row(Protocol):
    @property
    def run(self) -> str: ...

    @property
    def key(self) -> tuple[Any, ...]: ...


_R = TypeVar("_R", bound=_Row)

ROWS: dict[str, type[Any]] = {
    "figures": Figure,
    "openings": Opening,
    "reading": Reading,
    "multiplying": Multiplying,
    "agreements": Agreement,
}
"""The kinds of rows of `Measurements`, each in an attribute of this name."""


@dataclass
class Measurements:
    """Rows of every kind, and the runs that they name."""

    runs: dict[str, Run] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    reading: list[Reading] = field(default_factory=list)
    multiplying: list[Multiplying] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)

    def machines(self) -> list[str]:
        """The machines, the one that measured last first."""
        dates: dict[str, str] = {}
        for run in self.runs.values():
            name = machine_name(run)
            dates[name] = max(run["date"], dates.get(name, ""))
        return sorted(dates, key=lambda name: dates[name], reverse=True)

    def where(self, wanted: Callable[[str, Any], bool]) -> Measurements:
        """The rows that are wanted (by their kind, of ROWS, and themselves), and their runs."""
        part = Measurements()
        for kind in ROWS:
            setattr(part, kind, [row for row in getattr(self, kind) if wanted(kind, row)])
        used = {row.run for kind in ROWS for row in getattr(part, kind)}
        part.runs = {name: run for name, run in self.runs.items() if name in used}
        return part

    def of(self, machine: str) -> Measurements:
        """What was measured on one machine."""
        return self.where(lambda _, row: machine_name(self.runs[row.run]) == machine)

    def named(self, name: str, run: Run) -> Measurements:
        """The same rows, all of one run."""
        named = Measurements({name: run})
        for kind in ROWS:
            setattr(named, kind, [replace(row, run=name) for row in getattr(self, kind)])
        return named

    def parted(self, most: float) -> tuple[Measurements, list[Figure]]:
        """What is left without the figures beside which others used more cores, and those."""
        disturbed = [f for f in self.figures if f.others is not None and f.others > most]
        return replace(self, figures=[f for f in self.figures if f not in disturbed]), disturbed

    def add(self, new: Measurements) -> None:
        """Take the rows of one machine; each replaces its like of that machine.

        A figure that was measured in turns with peers is replaced only by another such.
        """
        (machine,) = {machine_name(run) for run in new.runs.values()}
        here = {name for name, run in self.runs.items() if machine_name(run) == machine}
        in_turns = {f.key for f in self.figures if f.run in here and f.peers}
        wanted = [f for f in new.figures if f.peers or f.key not in in_turns]
        for kind in ROWS:
            rows = wanted if kind == "figures" else getattr(new, kind)
            setattr(self, kind, _replaced(getattr(self, kind), rows, here))
        self.runs = {**self.runs, **new.runs}
        self.runs = self.where(lambda _, row: True).runs


def _replaced(old: list[_R], new: Iterable[_R], runs_here: set[str]) -> list[_R]:
    """Old rows in their places, replaced by new ones of the same key, and what else is new."""
    by_key = {row.key: row for row in new}
    kept = [by_key.pop(row.key, row) if row.run in runs_here else row for row in old]
    return [*kept, *by_key.values()]


def machine_name(run: Run) -> str:
    """What tells machines apart, in words."""
    return (
        f"{run['cpu']} (family {run['cpu_family_model'].replace('/', ', model ')}), "
        f"{count(run['physical_cores'], 'core')}"
    )


def run_name(command: str, run: Run) -> str:
    """The name of a run, such as "peers 2c2167a 2026-11-23"."""
    return f"{command} {run['commit']} {run['date']}"


def read(path: Path) -> Measurements:
    """The file's rows; none, if there is no file."""
    if not path.exists():
        return Measurements()
    found = json.loads(path.read_text())
    for row in found["figures"]:
        row["peers"] = tuple(Peer(**peer) for peer in row["peers"])
    rows = {kind: [row_type(**row) for row in found[kind]] for kind, row_type in ROWS.items()}
    return Measurements(found["runs"], **rows)


def as_text(measurements: Measurements) -> str:
    """As JSON, a row a line."""
    parts = []
    for name, value in asdict(measurements).items():
        if isinstance(value, dict):
            rows = [f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in value.items()]
            parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n }")
        else:
            rows = [f"  {json.dumps(row)}" for row in value]
            parts.append(f" {json.dumps(name)}: [\n" + ",\n".join(rows) + "\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def keep(path: Path, new: Measurements) -> None:
    """Adds measurements to those of a file."""
    measurements = read(path)
    measurements.add(new)
    path.write_text(as_text(measurements))


def best(figures: Iterable[Figure], model: str) -> list[Figure]:
    """A model's figures beside llama.cpp with all threads, at the highest level of each type."""
    found = [f for f in figures if f.model == model and beside_llama_cpp(f)]
    if not found:
        return []
    threads = max(f.threads for f in found)
    top: dict[str, int] = {}
    for f in found:
        top[f.type] = max(top.get(f.type, 0), LEVELS.index(f.level))
    return [f for f in found if f.threads == threads and f.level == LEVELS[top[f.type]]]


def beside_llama_cpp(figure: Figure) -> Peer | None:
    """llama.cpp at the same work, compiled for the processor if that was measured."""
    found = [peer for peer in figure.peers if peer.name.startswith("llama.cpp")]
    return min(found, key=lambda peer: len(peer.name), default=None)
