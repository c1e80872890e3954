"""The pictures of the page in docs/images: `hatch run page:pictures`, or some of them by name.

They are taken of the real server with the shipped model that answers questions.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from page.talking import Talking
from server.serving import serve

REPO = Path(__file__).resolve().parents[2]
IMAGES = REPO / "docs" / "images"
DESKTOP = {"width": 1200, "height": 760}
PHONE = {"width": 390, "height": 780}
EXACT = {"temperature": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
CHANCE = {**EXACT, "temperature": 0.9, "top_p": 0.9}
SETTINGS = json.dumps({"seed": 4, "values": CHANCE})


def some_talk(talking: Talking) -> None:
    """What was said before, so that the list is not empty."""
    for question in ("What is the walrus operator?", "What does the asyncio module do?"):
        talking.say(question)
        talking.button("New chat").click()
    talking.say("What does the json module do?")


def desktop(talking: Talking) -> None:
    some_talk(talking)
    talking.say("What is json.dumps?")
    talking.say("What does the itertools module do?")
    talking.page.mouse.move(0, 0)


def branches(talking: Talking) -> None:
    some_talk(talking)
    talking.page.evaluate(f"localStorage.setItem('rwkv.settings', '{SETTINGS}')")
    talking.page.reload()
    talking.answers.first.wait_for()
    talking.page.get_by_label("How many answers").select_option("3 answers")
    talking.say("Tell me more.")
    talking.page.get_by_label("How many answers").select_option("1 answer")
    talking.button("Go on from answer 2").click()
    talking.say("What is json.loads?")
    talking.page.mouse.move(0, 0)


def dark(talking: Talking) -> None:
    talking.page.emulate_media(color_scheme="dark")
    some_talk(talking)
    talking.page.evaluate(f"localStorage.setItem('rwkv.settings', '{SETTINGS}')")
    talking.page.reload()
    talking.answers.first.wait_for()
    talking.say("What does the itertools module do?")
    talking.say("What is functools.partial?")
    talking.button("Show how probable each token was", talking.answers.last).click()
    talking.page.locator(".token:is(.p2, .p3, .p4, .p5)[data-at]").first.hover()


def phone(talking: Talking) -> None:
    talking.say("What does the json module do?")
    talking.say("What is json.dumps?")
    talking.say("As JSON, please.")


def text(talking: Talking) -> None:
    some_talk(talking)
    talking.button("New text").click()
    talking.page.get_by_label("Text", exact=True).fill("User: What is a generator?\n\nAssistant:")
    talking.button("Go on").click()
    talking.button("Go on").wait_for()


PICTURES: dict[str, tuple[Callable[[Talking], None], dict[str, int]]] = {
    "page-desktop": (desktop, DESKTOP),
    "page-branches": (branches, DESKTOP),
    "page-dark": (dark, DESKTOP),
    "page-phone": (phone, PHONE),
    "page-text": (text, DESKTOP),
}


def take(browser: Any, url: str, name: str) -> None:
    """Take a picture."""
    show, viewport = PICTURES[name]
    is_phone = viewport is PHONE
    context = browser.new_context(
        viewport=viewport, device_scale_factor=1.5, has_touch=is_phone, is_mobile=is_phone
    )
    page = context.new_page()
    page.goto(url)
    talking = Talking(page)
    talking.message.wait_for()
    show(talking)
    page.wait_for_timeout(300)
    page.screenshot(path=str(IMAGES / f"{name}.png"))
    context.close()


def main() -> None:
    """Take those that are named, or all."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium: expected Debian's, found none"
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "pychat.bin"
        checkpoint = REPO / "examples" / "rwkv7-pychat-L6-D256.pth"
        convert = Path(sys.executable).parent / "rwkv-convert"
        subprocess.run([convert, checkpoint, model, "--dtype", "q8_0"], check=True)
        with serve({"pychat": model}, sampling=EXACT) as client, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name in sys.argv[1:] or PICTURES:
                take(browser, str(client.base_url), name)
            browser.close()


if __name__ == "__main__":
    main()
