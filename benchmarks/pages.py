"""What the documentation shows of measurements, written from docs/benchmarks/*.json.

`python -m benchmarks.pages` rewrites what stands between markers in the pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from . import (
    batch,
    bits_per_byte,
    chat_task,
    figures,
    machine,
    model_tables,
    pool,
    quality,
    ray_actors,
    server,
    speculate,
    tables,
)
from .figures import Measurements
from .paths import DATA, REPO
from .report import Table, between
from .units import count, number, percent

DIGEST_MODEL = "0.4B"


def speed_file() -> Measurements:
    """The measurements that the documentation shows."""
    return figures.read(DATA / "speed.json")


def _other(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return found


# ---- sections ----------------------------------------------------------------------------------


def _markdown(parts: list[str | Table]) -> str:
    return "\n".join(p.markdown() if isinstance(p, Table) else f"{p}\n" for p in parts)


def _per_machine(
    wanted: Callable[[str, Any], bool],
    make: Callable[[Measurements, tables.Marks], list[Table]],
) -> str:
    """A heading, tables and the runs they are of, for each machine with wanted rows."""
    everything = speed_file().where(wanted)
    parts: list[str | Table] = []
    for name in everything.machines():
        here = everything.of(name)
        letters = tables.marks(here)
        found = make(here, {run: f"<sup>{letter}</sup>" for run, letter in letters.items()})
        parts += [f"### {name}", *found, _runs(here, letters)]
    return _markdown(parts)


def _runs(measurements: Measurements, letters: dict[str, str]) -> str:
    lines = [
        f"{letters[run]}: {machine.sentence(about)}" if letters else machine.sentence(about)
        for run, about in measurements.runs.items()
    ]
    return "Measured\n\n" + "\n".join(f"- {line}" for line in lines)


def _speed() -> str:
    return _per_machine(
        lambda kind, _: kind == "figures",
        lambda here, marked: tables.speed(here.figures, marked),
    )


def _peers() -> str:
    return _per_machine(
        lambda kind, row: kind == "agreements" or (kind == "figures" and bool(row.peers)),
        lambda here, marked: [
            *tables.peers(here.figures, marked),
            *tables.agreements(here.agreements),
        ],
    )


def _openings() -> str:
    return _per_machine(
        lambda kind, _: kind == "openings", lambda here, _: tables.openings(here.openings)
    )


def _limits() -> str:
    return _per_machine(
        lambda kind, _: kind in ("reading", "multiplying"), lambda here, _: tables.limits(here)
    )


def _pool() -> str:
    found = _other("pool")
    decoding = [pool.Decoding(**row) for row in found["decoding"]]
    shown = pool.tables(found["pool"], decoding)
    return _markdown([*shown, f"Measured {machine.sentence(found['machine'])}"])


def _server() -> str:
    found = _other("server")
    rows = [server.Load(**row) for row in found["load"]]
    shown = server.tables(rows, server.Conversation(**found["conversation"]))
    what = f"RWKV-7 {found['shape']} in q4_0, {count(found['threads'], 'thread')}."
    return _markdown([what, *shown, f"Measured {machine.sentence(found['machine'])}"])


def _batch() -> str:
    found = _other("batch")
    what = (
        f"{found['prompts']} prompts of up to {found['longest']} tokens, texts of up to half as "
        f"many: RWKV-7 {found['shape']} in q4_0, {count(found['threads'], 'thread')}, "
        f"{found['at_once']} texts at once."
    )
    shown = batch.tables([batch.Run(**run) for run in found["runs"]])
    return _markdown([what, "", *shown, f"Measured {machine.sentence(found['machine'])}"])


def _speculate() -> str:
    found = _other("speculate")
    curves = [speculate.Curve(**row) for row in found["curves"]]
    written = [speculate.Written(**row) for row in found["written"]]
    shown = speculate.tables(curves, written)
    return _markdown([*shown, f"Measured {machine.sentence(found['machine'])}"])


GUESSES = {
    "lookup, editing a file": "a file edited, `lookup`",
    "80% hold, 5 a pass": "five guesses at once, each holds in 80 %",
    "a 0.1B draft, 70% hold": "a 0.1B draft, each holds in 70 %",
}
"""What README.md says of speculation: what was measured, and how it is said there."""


def _guesses() -> str:
    """What guesses are worth, with all cores."""
    found = _other("speculate")
    written = [speculate.Written(**row) for row in found["written"]]
    threads = max(w.threads for w in written)
    here = [w for w in written if w.threads == threads and w.what in GUESSES]
    shapes = list(dict.fromkeys(w.shape for w in here))
    of = {(w.what, w.shape): f"{number(w.guessed)} ({w.ratio:.2f} ×)" for w in here}
    shown = Table(
        "Tokens per second with guesses, and how many times those of the same text without: RWKV-7 "
        f"in {here[0].dtype}, level `{here[0].level}`, {count(threads, 'thread')}",
        ["", *shapes],
        [[said, *(of[what, shape] for shape in shapes)] for what, said in GUESSES.items()],
    )
    return _markdown([shown, f"Measured {machine.sentence(found['machine'])}"])


def _ray() -> str:
    found = _other("ray")
    what = (
        f"RWKV-7 {found['shape']} in {found['type']}, {found['rows']} rows of {found['prompt']} "
        f"tokens, {found['batch_size']} of them at once."
    )
    shown = ray_actors.tables([ray_actors.Run(**run) for run in found["runs"]])
    return _markdown([what, *shown, f"Measured {machine.sentence(found['machine'])}"])


def _levels() -> str:
    found = _other("levels")
    costs = [bits_per_byte.Cost(**row) for row in found["costs"]]
    shown = bits_per_byte.tables(costs, found["n_bytes"], found["n_beginning"])
    return _markdown([*shown, f"Measured {machine.sentence(found['machine'])}"])


def _quality() -> str:
    found = _other("quality")
    files = [quality.Quality(**row) for row in found["files"]]
    shares = [chat_task.Share(**row) for row in found["chat"]]
    return _markdown(
        [
            quality.table(files),
            f"After {found['n_tokens']} tokens of the text, which are bytes. Measured "
            f"{machine.sentence(found['machine'])}",
            "\nHow far it is after how many tokens of the text:\n",
            quality.position_table(files),
            "\nWhat it means for answers:\n",
            chat_task.task_table(shares),
        ]
    )


def _digest() -> str:
    """The 0.4B beside llama.cpp, for each machine: what README.md and the home page say."""
    everything = speed_file()
    parts: list[str | Table] = []
    for name in everything.machines():
        here = everything.of(name)
        chosen = figures.best(here.figures, DIGEST_MODEL)
        if not chosen:
            continue
        levels = ", ".join(dict.fromkeys(f.level for f in chosen))
        commits = ", ".join(dict.fromkeys(str(here.runs[f.run]["commit"]) for f in chosen))
        parts.append(
            f"RWKV-7 {DIGEST_MODEL}, tokens per second, and how many times llama.cpp's that is, "
            f"measured in turns:\n{name}, level `{levels}`, "
            f"{chosen[0].threads} threads, commit {commits}."
        )
        parts.append(tables.digest(here.figures, DIGEST_MODEL))
        shares = sorted(f.share for f in here.figures if f.work == "decode" and f.share is not None)
        if shares:
            median = shares[len(shares) // 2]
            parts.append(
                f"Decoding reads the weights at {percent(median)} of the rate at which the memory "
                "can be read at\nall: the median of all models, types and levels."
            )
    return _markdown(parts)


SECTIONS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"digest": _digest, "guesses": _guesses},
    "docs/README.md": {"digest": _digest},
    "docs/benchmarks.md": {
        "peers": _peers,
        "speed": _speed,
        "openings": _openings,
        "limits": _limits,
        "pool": _pool,
        "server": _server,
        "batch": _batch,
        "speculate": _speculate,
        "levels": _levels,
    },
    "docs/guides/quantisation.md": {"quality": _quality},
    "docs/guides/ray.md": {"ray": _ray},
    "docs/models.md": {
        "families": model_tables.families,
        "choice": lambda: model_tables.choice().markdown(),
        "memory": lambda: model_tables.memory().markdown(),
        "model-speed": lambda: _markdown([*model_tables.speed(speed_file())]),
    },
}
"""The pages, and what stands between markers in each."""


def expected(page: str) -> str:
    """A page as the data would have it."""
    text = (REPO / page).read_text()
    for section, make in SECTIONS[page].items():
        text = between(text, section, make())
    return text


def write() -> list[str]:
    """Rewrites the pages; returns those that changed."""
    changed = stale()
    for page in changed:
        (REPO / page).write_text(expected(page))
    return changed


def stale() -> list[str]:
    """Pages that do not show what the data says."""
    return [page for page in SECTIONS if expected(page) != (REPO / page).read_text()]


def main() -> None:
    """The command."""
    changed = write()
    print(f"rewrote {', '.join(changed)}" if changed else "every page is as the data says")


if __name__ == "__main__":
    main()
