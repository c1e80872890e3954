"""The machines of a cluster."""

from __future__ import annotations

import ray

__all__ = ["cpus_of_machines", "threads_of_machine"]


def cpus_of_machines() -> list[int]:
    """Return how many CPUs each machine has that has any, as Ray counts them."""
    return [
        int(node["Resources"]["CPU"])
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]


def threads_of_machine(machines: list[int]) -> int:
    """Return how many threads have a CPU on every machine, and leave one for all else."""
    return max(1, min(machines, default=1) - 1)
