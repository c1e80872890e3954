"""A server that is full, away, started again, or wants a key."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from page.talking import OpenPage, expect
from server.conversations import ANSWER, PLAIN, QUESTION
from server.serving import reserved_port, serve, wait_for

RWKV = str(Path(sys.executable).parent / "rwkv")


@contextlib.contextmanager
def command(file: Path, port: int, *args: str) -> Iterator[subprocess.Popen[str]]:
    """The command, until it is killed."""
    whole = [RWKV, "serve", str(file), "--port", str(port), *args]
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "serving" in line, line + process.stderr.read()
            yield process
        finally:
            process.kill()


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_it_survives_a_server_that_is_killed(
    pychat_file: Path, open_page: OpenPage, port: int
) -> None:
    plain = ("--temperature", "0", "--presence-penalty", "0", "--frequency-penalty", "0")
    with command(pychat_file, port, *plain, "--banned-tokens", "0,10") as process:
        page = open_page(f"http://127.0.0.1:{port}")
        page.begin_to_say(QUESTION)
        page.wait_for(lambda: len(page.answer()) > 100)
        process.send_signal(signal.SIGKILL)
        page.wait_for_end()
    page.page.get_by_role("alert").get_by_text("The connection was lost").wait_for()
    page.page.get_by_text("The server does not answer. Next try").wait_for()
    said = page.answer()
    assert len(said) > 100
    # What is said meanwhile waits for the server.
    page.message.fill("Tell me more.")
    page.message.press("Enter")
    page.page.locator(".job-status").get_by_text("It is asked again").wait_for()
    with command(pychat_file, port, "--temperature", "0"):
        page.page.get_by_text("The server answers again.").wait_for()
        page.wait_for_end()
        expect(page.answers).to_have_count(2)
        expect(page.text()).to_have_text(re.compile("."))
        page.button("Go on", page.answers.first).click()
        expect(page.answers.first).not_to_contain_text("connection was lost")
        page.wait_for_end()
        assert page.answer(0).startswith(said.rstrip())
        assert "connection was lost" not in page.answers.first.inner_text()


def test_waiting_for_the_server_can_be_cancelled(pychat_file: Path, open_page: OpenPage) -> None:
    with serve({"pychat": pychat_file}, sampling=PLAIN) as client:
        page = open_page(str(client.base_url))
    page.begin_to_say(QUESTION)
    page.button("Cancel").click()
    page.wait_for_end()
    expect(page.answers.last).to_contain_text("Stopped.")
    page.button("Try again").wait_for()


def test_what_is_said_without_a_network_waits_for_it(
    client: httpx.Client, open_page: OpenPage
) -> None:
    page = open_page(str(client.base_url))
    page.page.context.set_offline(True)
    page.page.get_by_text("The server does not answer. Next try").wait_for()
    page.begin_to_say(QUESTION)
    page.page.locator(".job-status").get_by_text("It is asked again").wait_for()
    page.page.context.set_offline(False)
    expect(page.text()).to_have_text(ANSWER)


def test_a_full_line_is_counted_down_and_tried_again(
    endless: httpx.Client, open_page: OpenPage
) -> None:
    page = open_page(str(endless.base_url))
    with occupied(endless):
        page.begin_to_say(QUESTION)
        told = page.page.locator(".job-status")
        told.get_by_text("The server is full, and you wait in line. Next try in").wait_for()
        expect(page.page.locator("#live")).to_have_text(re.compile("^The server is full"))
    page.wait_for(lambda: len(page.answer()) > 20)
    expect(told).to_have_text("")
    page.button("Stop").click()
    page.wait_for_end()
    with occupied(endless):
        page.begin_to_say(QUESTION)
        told.get_by_text("Next try in").wait_for()
        page.button("Cancel").click()
        page.wait_for_end()
    expect(page.answers.last).to_contain_text("Stopped.")


@contextlib.contextmanager
def occupied(client: httpx.Client) -> Iterator[None]:
    """The one place is taken by somebody else."""
    (served,) = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    wait_for(lambda: served.engine.n_running == 0)
    leave = threading.Event()

    def ask() -> None:
        body = {"prompt": "a", "stream": True, "max_tokens": 100_000}
        with client.stream("POST", "/v1/completions", json=body):
            leave.wait()

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: served.engine.n_running == 1)
    try:
        yield
    finally:
        leave.set()
        asking.join()
        wait_for(lambda: served.engine.n_running == 0)


def test_a_key_is_asked_for_and_kept_for_the_session(
    pychat_file: Path, open_page: OpenPage
) -> None:
    with serve({"pychat": pychat_file}, sampling=PLAIN, api_keys=("secret",)) as client:
        page = open_page(str(client.base_url))
        key = page.page.get_by_label("Key", exact=True)
        key.fill("wrong")
        key.press("Enter")
        page.page.get_by_text("does not know the key").wait_for()
        page.page.get_by_label("Key", exact=True).fill("secret")
        page.page.keyboard.press("Enter")
        page.page.get_by_text("Talk with pychat").wait_for()
        page.say(QUESTION)
        assert page.answer() == ANSWER
        page.wait_until_kept()
        page.page.reload()
        page.answers.first.wait_for()
        page.say("Tell me more.")
        assert page.page.get_by_role("dialog").count() == 0
        kept = page.page.evaluate("JSON.stringify({...localStorage})")
        assert "secret" not in kept
        other = open_page(str(client.base_url))  # somebody else's
        other.page.get_by_label("Key", exact=True).wait_for()
        other.page.keyboard.press("Escape")
        expect(other.page.get_by_label("Key", exact=True)).to_have_count(0)
        other.begin_to_say(QUESTION)
        other.page.get_by_label("Key", exact=True).fill("secret")
        other.page.keyboard.press("Enter")
        expect(other.text()).to_have_text(ANSWER)


def test_what_the_server_refuses_is_told(client: httpx.Client, open_page: OpenPage) -> None:
    talking = open_page(str(client.base_url))
    settings = {"values": {"temperature": -1}}
    talking.page.evaluate(f"localStorage.setItem('rwkv.settings', '{json.dumps(settings)}')")
    talking.page.reload()
    talking.message.wait_for()
    talking.say(QUESTION)
    told = re.compile("^temperature: expected a number from 0")
    expect(talking.page.get_by_role("alert")).to_have_text(told)
    talking.set("Temperature", "0")
    talking.button("Try again").click()
    expect(talking.text()).to_have_text(ANSWER)
    # The failed one is gone.
    expect(talking.answers.last).to_have_attribute("aria-label", "Answer")


def test_several_models_are_a_choice(pychat_file: Path, open_page: OpenPage) -> None:
    files = {"one": pychat_file, "two": pychat_file}
    with serve(files, sampling=PLAIN) as client:
        page = open_page(str(client.base_url))
        page.page.get_by_label("Model").select_option("two")
        page.say(QUESTION)
        assert page.answer() == ANSWER
        page.wait_until_kept()
        page.page.reload()
        page.answers.first.wait_for()
        expect(page.page.get_by_label("Model")).to_have_value("two")
