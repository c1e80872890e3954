"""A browser, servers, and what one does with the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from page.talking import OpenPage, Talking
from server.conversations import PLAIN
from server.serving import serve

MOST_MS = 60_000  # the machine may be busy
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session", autouse=True)  # before any server
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    reason = "playwright is not installed: `hatch run page:test` has it"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    if CHROMIUM is None:
        pytest.skip("there is no chromium: on Debian, apt-get install chromium")
    playwright.expect.set_options(timeout=MOST_MS)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """`open_page(url, width=390)` -> a page of a browser that was never there before.

    A fault of its scripts, or something that it may not load, fails the test.
    """
    faults: list[str] = []
    contexts = []

    def opened(url: str, width: int = 1280, height: int = 800, **context: Any) -> Talking:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(MOST_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if is_fault(said) else None)
        page.goto(url)
        talking = Talking(page)
        talking.message.wait_for()
        return talking

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def is_fault(said: Any) -> bool:
    """Whether the console has more than what the browser itself says of failed requests."""
    return said.type == "error" and "Failed to load resource" not in said.text


@pytest.fixture(scope="session")
def pychat_file(converted: Callable[..., Path]) -> Path:
    return converted("q8_0", "pychat")


@pytest.fixture(scope="session")
def client(pychat_file: Path) -> Iterator[httpx.Client]:
    """Of a server with the model that answers questions, without chance."""
    with serve({"pychat": pychat_file}, sampling=PLAIN) as client:
        yield client


@pytest.fixture(scope="session")
def endless(pychat_file: Path) -> Iterator[httpx.Client]:
    """The same, whose answers end only where they are cut or stopped; one is written at a time.

    Without chance here, too: what is drawn may be Markdown, which is shown otherwise than it came.
    """
    sampling = {**PLAIN, "banned_tokens": [0, 10]}
    with serve({"pychat": pychat_file}, sampling=sampling, max_running=1, max_waiting=0) as client:
        yield client


@pytest.fixture
def page(client: httpx.Client, open_page: OpenPage) -> Talking:
    """The page of that server."""
    return open_page(str(client.base_url))
