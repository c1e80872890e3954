"""How it looks, and for those who do not see it: settings, colours, phones, the keyboard, axe."""

from __future__ import annotations

import httpx
import pytest

from page.talking import OpenPage, Talking, expect
from page.test_chat import requests_of
from server.conversations import ANSWER, QUESTION


def test_settings_are_sent_and_there_again(page: Talking) -> None:
    def fill(label: str, value: str) -> None:
        page.page.get_by_label(label, exact=True).fill(value)

    page.button("Settings").click()
    fill("System text", "You explain Python.")
    page.page.get_by_label("Preset").select_option("G1 chat")
    expect(page.page.get_by_label("Top-k")).to_have_value("32")
    fill("Temperature", "0")
    fill("Presence penalty", "0")
    fill("Frequency penalty", "0")
    fill("Mirostat τ", "3")
    fill("Seed", "5")
    fill("Stop before", "END, \\n\\n")
    page.page.keyboard.press("Tab")
    expect(page.page.get_by_label("Preset")).to_have_value("own")
    page.page.get_by_label("Probabilities").uncheck()
    page.page.keyboard.press("Escape")
    page.page.reload()
    page.message.wait_for()
    asked = requests_of(page)
    page.say(QUESTION)
    (request,) = asked
    assert request["messages"][0] == {"role": "system", "content": "You explain Python."}
    sent = {
        "temperature": 0,
        "top_p": 0.76,
        "top_k": 32,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "penalty_decay": 0.988,
        "mirostat_tau": 3,
        "seed": 5,
        "stop": ["END", "\n\n"],
        "max_tokens": 1024,
    }
    assert {name: request[name] for name in sent} == sent
    assert "logprobs" not in request
    page.button("Settings").click()
    page.page.get_by_label("Preset").select_option("As the server has it")
    page.page.keyboard.press("Escape")
    page.say("Tell me more.")
    assert "temperature" not in asked[1] and "top_k" not in asked[1]


def test_a_number_that_is_none_is_not_sent(page: Talking) -> None:
    page.button("Settings").click()
    top_p = page.page.get_by_label("Top-p")
    top_p.fill("2")
    page.page.keyboard.press("Tab")
    expect(top_p).to_have_attribute("aria-invalid", "true")
    page.page.keyboard.press("Escape")
    asked = requests_of(page)
    page.say(QUESTION)
    assert "top_p" not in asked[0]


def background(page: Talking) -> str:
    colour: str = page.page.evaluate(
        "getComputedStyle(document.querySelector('main')).backgroundColor"
    )
    return colour


def test_colours_follow_the_system_and_can_be_switched(page: Talking) -> None:
    main = page.page.get_by_role("main")
    light = background(page)
    page.page.emulate_media(color_scheme="dark")
    expect(main).not_to_have_css("background-color", light)
    dark = background(page)
    page.button("Change between light and dark").click()
    expect(main).to_have_css("background-color", light)
    page.page.reload()
    page.message.wait_for()
    expect(main).to_have_css("background-color", light)
    page.button("Settings").click()
    page.page.get_by_label("Colours").select_option("As the system")
    expect(page.page.locator("main")).to_have_css("background-color", dark)


def test_it_fits_on_a_phone(client: httpx.Client, open_page: OpenPage) -> None:
    page = open_page(str(client.base_url), width=360, height=640, has_touch=True)
    page.say(QUESTION)
    assert page.answer() == ANSWER
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.page.get_by_role("main").bounding_box()["width"] == 360
    sidebar = page.page.get_by_role("navigation")
    assert not sidebar.is_visible()
    page.button("Conversations").click()
    expect(sidebar).to_be_visible()
    page.wait_for(lambda: sidebar.bounding_box()["x"] == 0)  # it has come in
    assert sidebar.bounding_box()["width"] < 360
    page.button("New chat").click()
    page.page.get_by_text("Talk with pychat").wait_for()
    expect(sidebar).to_be_hidden()
    page.page.get_by_label("How many answers").select_option("2 answers")
    page.say(QUESTION)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_keyboard_does_all_of_it(page: Talking) -> None:
    expect(page.message).to_be_focused()
    page.page.keyboard.type("one")
    page.page.keyboard.press("Shift+Enter")
    page.page.keyboard.type("two")
    expect(page.message).to_have_value("one\ntwo")
    page.message.fill(QUESTION)
    page.page.keyboard.press("Enter")
    expect(page.text()).to_have_text(ANSWER)
    page.wait_for_end()
    expect(page.message).to_be_focused()
    more = page.button("More", page.answers.last)
    more.focus()
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("ArrowDown")
    expect(page.page.get_by_role("menuitem", name="Keep the state here …")).to_be_focused()
    page.page.keyboard.press("Escape")
    expect(more).to_be_focused()
    for key, name in (("?", "Keyboard shortcuts"), ("Control+,", "Settings")):
        page.page.keyboard.press(key)
        dialog = page.page.get_by_role("dialog", name=name)
        dialog.wait_for()
        page.page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
    page.page.keyboard.press("Control+Shift+o")
    page.page.get_by_text("Talk with pychat").wait_for()


def test_the_focus_stays_while_something_is_written(
    endless: httpx.Client, open_page: OpenPage
) -> None:
    page = open_page(str(endless.base_url))
    page.set("Most tokens", "300")
    page.say(QUESTION)
    page.begin_to_say("Tell me more.")
    page.button("Show how probable each token was", page.answers.first).focus()
    page.wait_for_end()
    expect(page.button("Show how probable each token was", page.answers.first)).to_be_focused()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(
    client: httpx.Client, open_page: OpenPage, colours: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # What reads the page is no part of it, and may do what its own scripts may not.
    page = open_page(str(client.base_url), width=width, color_scheme=colours, bypass_csp=True)

    def check(where: str) -> None:
        # As it is when nothing moves any more.
        moving = "Promise.allSettled(document.getAnimations().map((each) => each.finished))"
        page.page.evaluate(f"async () => {{ await {moving}; }}")
        found = axe.run(page.page).response["violations"]
        told = [
            (each["id"], each["impact"], [n["html"][:200] for n in each["nodes"]]) for each in found
        ]
        assert told == [], where

    check("empty")
    page.say(QUESTION)
    page.button("Show how probable each token was").click()
    check("a conversation, with probabilities")
    page.page.get_by_label("How many answers").select_option("2 answers")
    page.say("What is os.getcwd?")
    check("answers side by side")
    page.page.keyboard.press("Control+,")
    check("settings")
    page.page.keyboard.press("Escape")
    if width < 500:
        page.button("Conversations").click()
        check("conversations")
    page.button("New text").click()
    check("a text")


def test_it_asks_nobody_else(client: httpx.Client, open_page: OpenPage) -> None:
    page = open_page(str(client.base_url))
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url))
    page.page.reload()
    page.say(QUESTION)
    assert asked and all(url.startswith(str(client.base_url)) for url in asked)
