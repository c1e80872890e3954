"""The tables of docs/models.md: of the known models, reckoned; and how fast they are, measured."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import rwkv_convert

from .figures import LEVELS, Figure, Measurements
from .paths import REPO
from .report import Table
from .units import number

KNOWN = REPO / "packages/rwkv-py/src/rwkv_py/models/known_models.toml"
TYPES = ("q4_0", "q5_1", "q8_0", "fp16")
MEMORIES = (4, 8, 16, 32)
LEFT = 0.25
"""The share of the memory that is left to everything else."""
BESIDE_WEIGHTS = 0.1e9
"""Bytes of the process beside the weights, as rwkv_py.models has it."""


@dataclass(frozen=True)
class Size:
    """A model of a series."""

    name: str
    version: str
    layers: int
    width: int

    def memory(self, dtype: str) -> float:
        """Bytes that it needs."""
        weights = rwkv_convert.model_file_bytes(
            self.version, n_layer=self.layers, n_embd=self.width, dtype=dtype
        )
        return weights + BESIDE_WEIGHTS


def _series() -> list[dict[str, Any]]:
    """The series that are not another's releases."""
    found: list[dict[str, Any]] = tomllib.loads(KNOWN.read_text())["series"]
    return [series for series in found if "?" not in series["name"]]


def _sizes(series: dict[str, Any]) -> Iterator[Size]:
    for size, values in series["sizes"].items():
        name = f"{series['name']}-{size}"
        yield Size(name, series["version"], values["layers"], values["width"])


def families() -> str:
    """What each family is good at, as a list."""
    lines = []
    for series in _series():
        contexts = [v.get("context", series.get("context", 0)) for v in series["sizes"].values()]
        least, most = f"{min(contexts):,}", f"{max(contexts):,}"
        names = ", ".join(f"`{size.name}`" for size in _sizes(series))
        page = f"[{series['repository']}](https://huggingface.co/{series['repository']})"
        lines.append(
            f"- {names}: {series['about']} Trained on {least}"
            + (f" to {most}" if most != least else "")
            + f" tokens at once; chats in the format `{series['format']}`. {page}"
        )
    return "\n".join(lines)


def memory() -> Table:
    """What each model needs by type."""
    rows = [
        [f"`{size.name}`", *(_gigabytes(size.memory(dtype)) for dtype in TYPES)]
        for series in _series()
        for size in _sizes(series)
    ]
    return Table("", ["GB of memory", *TYPES], rows)


def choice() -> Table:
    """The largest model of the first series for a memory, by type."""
    sizes = list(_sizes(_series()[0]))
    rows = []
    for gigabytes in MEMORIES:
        room = gigabytes * 1e9 * (1 - LEFT)
        cells = []
        for dtype in ("q4_0", "q8_0"):
            fitting = [size for size in sizes if size.memory(dtype) <= room]
            best = max(fitting, key=lambda size: size.memory(dtype), default=None)
            cells.append(f"`{best.name}`, {_gigabytes(best.memory(dtype))} GB" if best else "-")
        rows.append([f"{gigabytes} GB", *cells])
    return Table("", ["memory", "in q4_0", "in q8_0"], rows)


def speed(measurements: Measurements) -> list[Table]:
    """Tokens written per second, a table for each machine."""
    tables = []
    for machine in measurements.machines():
        best: dict[tuple[str, str], Figure] = {}
        for figure in measurements.of(machine).figures:
            if figure.work != "decode" or figure.type not in TYPES or "-" in figure.model:
                continue
            there = best.get((figure.model, figure.type))
            if there is None or _rank(figure) > _rank(there):
                best[figure.model, figure.type] = figure
        if not best:
            continue
        types = [dtype for dtype in TYPES if any(key[1] == dtype for key in best)]
        rows = [
            [model, *(_speed(best.get((model, dtype))) for dtype in types)]
            for model in sorted({model for model, _ in best})
        ]
        threads = max(figure.threads for figure in best.values())
        tables.append(Table(f"{machine}, {threads} threads:", ["tokens per second", *types], rows))
    return tables


def _rank(figure: Figure) -> tuple[int, int]:
    return LEVELS.index(figure.level), figure.threads


def _speed(figure: Figure | None) -> str:
    return "-" if figure is None else number(figure.tokens_per_s)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f}"
