"""Servers that run beside the tests, and clients."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import uvicorn

from rwkv_py import Model
from rwkv_py.server import Settings, create_app

Serve = Callable[..., contextlib.AbstractContextManager[httpx.Client]]


@contextlib.contextmanager
def serve(files: dict[str, Path], **settings: Any) -> Iterator[httpx.Client]:
    """Run a server in a thread; its client has its address, and `app` is the application."""
    app = create_app(files, Settings(**settings))
    listening = socket.create_server(("127.0.0.1", 0))
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


@pytest.fixture(scope="session", name="serve")
def serve_fixture() -> Serve:
    """`with serve({"name": file}, max_running=2) as client:` runs a server of its own."""
    return serve


@pytest.fixture(scope="session")
def pychat_file(converted: Callable[..., Path]) -> Path:
    return converted("q8_0", "pychat")


@pytest.fixture(scope="session")
def pydoc_file(converted: Callable[..., Path]) -> Path:
    return converted("q4_0")


@pytest.fixture(scope="session")
def pydoc(pydoc_file: Path) -> Model:
    return Model(pydoc_file)


@pytest.fixture(scope="session")
def pychat(pychat_file: Path) -> Model:
    return Model(pychat_file)


@pytest.fixture(scope="session")
def client(pychat_file: Path, pydoc_file: Path) -> Iterator[httpx.Client]:
    """Of a server with both shipped models, as most tests want it."""
    with serve({"pychat": pychat_file, "pydoc": pydoc_file}) as client:
        yield client


@pytest.fixture(scope="session")
def openai_client(client: httpx.Client) -> Iterator[openai.OpenAI]:
    """The official client, as its users make it."""
    url = f"{client.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as official:
        yield official


@pytest.fixture(scope="session")
def anthropic_client(client: httpx.Client) -> Iterator[anthropic.Anthropic]:
    url = str(client.base_url)
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as official:
        yield official


def idle(client: httpx.Client) -> bool:
    """Whether nothing is written or waits, and no model is held by a request."""
    models = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    return not any(m.n_users or m.engine.n_running or m.engine.n_waiting for m in models)


@pytest.fixture(autouse=True)
def everything_ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the server has nothing to do any more: no place is held by anybody."""
    yield
    if {"client", "openai_client", "anthropic_client"} & set(request.fixturenames):
        wait_for(lambda: idle(request.getfixturevalue("client")))


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
