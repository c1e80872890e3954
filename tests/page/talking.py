"""The page as its users see it: by names and roles, as those who listen to it do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any


class Talking:
    """A page that is open.

    Attributes:
        page: Playwright's.
        message: where one speaks.
    """

    def __init__(self, page: Any):
        self.page = page
        self.message = page.get_by_label("Your message")

    def button(self, name: str, within: Any = None) -> Any:
        """The button of that name, in all of the page or in a part."""
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def say(self, text: str) -> None:
        """Say something, and wait until it is answered."""
        self.begin_to_say(text)
        self.wait_for_end()

    def begin_to_say(self, text: str) -> None:
        """Say something, and wait until an answer is begun."""
        n_before = self.messages.count()
        self.message.fill(text)
        self.message.press("Enter")
        self.messages.nth(n_before + 1).wait_for()

    def wait_for_end(self) -> None:
        """Wait until nothing is written any more."""
        self.button("Send").wait_for()

    @property
    def messages(self) -> Any:
        """All that is shown of the conversation."""
        return self.page.get_by_role("article")

    @property
    def answers(self) -> Any:
        """The answers that are shown."""
        return self.page.get_by_role("article", name=re.compile("^Answer"))

    def text(self, index: int = -1) -> Any:
        """Where the text of one of them is."""
        return self.answers.nth(index).locator(".text").last

    def answer(self, index: int = -1) -> str:
        """The text of one of them, as far as it is shown by now."""
        text: str = self.text(index).inner_text()
        return text

    def speeds(self) -> list[str]:
        """The lines that tell how fast the answers were."""
        return [line.replace("\xa0", " ") for line in self.page.locator(".speed").all_inner_texts()]

    def set(self, label: str, value: str) -> None:
        """Change a setting."""
        self.button("Settings").click()
        self.page.get_by_label(label, exact=True).fill(value)
        self.page.keyboard.press("Tab")
        self.page.keyboard.press("Escape")

    def choose(self, entry: str, opener: str = "This conversation", within: Any = None) -> None:
        """Choose in a menu."""
        self.button(opener, within).click()
        self.page.get_by_role("menuitem", name=entry).click()

    def kept(self) -> list[dict[str, Any]]:
        """The conversations that the browser's database has: what is there after a reload."""
        script = """async () => {
            const { store } = await import("/page/store.js");
            return await store.all();
        }"""
        found: list[dict[str, Any]] = self.page.evaluate(script)
        return found

    def wait_until_kept(self) -> None:
        """Wait until the database has all answers as they ended."""
        self.wait_for(lambda: bool(kept := self.kept()) and '"writing"' not in json.dumps(kept))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that Playwright does not wait for."""
        for _ in range(1200):
            if condition():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("waited for 60 s")


OpenPage = Callable[..., Talking]


def expect(what: Any) -> Any:
    """Playwright's assertions: they wait until the page is so."""
    from playwright.sync_api import expect  # only the environment `page` has it

    return expect(what)
