"""Servers that run beside the tests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from rwkv_py.server import Settings, create_app

Serve = Callable[..., contextlib.AbstractContextManager[httpx.Client]]


@contextlib.contextmanager
def serve(files: dict[str, Path], *, port: int = 0, **settings: Any) -> Iterator[httpx.Client]:
    """Run a server in a thread; its client has its address, and `app` is the application."""
    app = create_app(files, Settings(**settings))
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        host, port = listening.getsockname()
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
            client.app = app  # type: ignore[attr-defined]
            yield client
    finally:
        server.should_exit = True
        thread.join()


def idle(client: httpx.Client) -> bool:
    """Whether nothing is written or waits, and no model is held by a request."""
    models = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    return not any(m.n_users or m.engine.n_running or m.engine.n_waiting for m in models)


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port for servers that begin one after the other: meanwhile the system gives it to nobody.

    It is bound and not listened at, which leaves it to those who ask for it by its number.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so; the machine may be busy."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
