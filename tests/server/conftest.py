"""Servers and clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from rwkv_py import Model
from server.serving import Serve, idle, serve, wait_for


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


@pytest.fixture(autouse=True)
def everything_ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the server has nothing to do any more: no place is held by anybody."""
    yield
    if {"client", "openai_client", "anthropic_client"} & set(request.fixturenames):
        wait_for(lambda: idle(request.getfixturevalue("client")))
