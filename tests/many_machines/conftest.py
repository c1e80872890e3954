"""A Ray of this machine, and its processes."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rwkv_py import Model

_MARK = "RWKV_TEST_RAY"


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Ray with four CPUs, however many there are; yields what its processes are marked with."""
    pytest.importorskip("ray", reason="only in `hatch run ray:test`")
    import ray
    import ray.data

    os.environ[_MARK] = mark = uuid.uuid4().hex
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # 15 by default
    ray.init(num_cpus=4, include_dashboard=False, logging_level="warning", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield mark
    ray.shutdown()
    del os.environ[_MARK], os.environ["RAY_worker_niceness"]  # noqa: SIM112


@pytest.fixture
def kill(cluster: str) -> Callable[[str], int]:
    """`kill("MapWorker")` ends the first process of Ray with that in its title; its number."""

    def kill(title: str) -> int:
        for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            try:
                command = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if title.encode() in command and f"{_MARK}={cluster}".encode() in environment:
                os.kill(int(folder.name), signal.SIGKILL)
                return int(folder.name)
        raise AssertionError(f"expected a process of Ray called {title}, found none")

    return kill


@pytest.fixture(scope="session")
def pydoc_file(converted: Callable[..., Path]) -> Path:
    return converted("q4_0")


@pytest.fixture(scope="session")
def pychat_file(converted: Callable[..., Path]) -> Path:
    return converted("q8_0", "pychat")


@pytest.fixture(scope="session")
def pydoc(pydoc_file: Path) -> Model:
    return Model(pydoc_file)
