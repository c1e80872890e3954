"""The machines of a cluster: their CPUs, and what files are called on all of them."""

from __future__ import annotations

import os

import ray

from .._arguments import StrPath, as_path

__all__ = ["cpus_of_machines", "everywhere", "threads_of_machine"]


def cpus_of_machines() -> list[int]:
    """Return how many CPUs each machine has that has any, as Ray counts them."""
    return [
        int(node["Resources"]["CPU"])
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]


def everywhere(name: StrPath) -> str:
    """Return what a file that is here is called on every machine; a name that is none stays.

    Raises:
        InvalidArgumentError: it is neither.
    """
    text = os.fsdecode(as_path(name))
    # Other processes have another working directory.
    return os.path.abspath(text) if os.path.exists(text) else text


def threads_of_machine(machines: list[int]) -> int:
    """Return how many threads have a CPU on every machine, and leave one for all else."""
    return max(1, min(machines, default=1) - 1)
