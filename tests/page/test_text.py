"""Texts by themselves: going on, stopping, going back, probabilities."""

from __future__ import annotations

import httpx

from page.talking import OpenPage, Talking

PROMPT = "User: What does the json module do?\n\nAssistant:"


def test_a_text_is_gone_on_with(page: Talking) -> None:
    page.button("New text").click()
    paper = page.page.get_by_label("Text", exact=True)
    page.button("Settings").click()
    page.page.get_by_label("Stop before").fill("\\n\\nUser")
    page.page.get_by_label("Most tokens").fill("60")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Escape")
    paper.fill(PROMPT)
    paper.press("Control+Enter")
    page.wait_for(lambda: page.button("Go on").count() == 1 and len(paper.input_value()) > 60)
    text = paper.input_value()
    assert text.startswith(f"{PROMPT} The module json: Encode and decode")
    assert "tokens/s" in page.page.locator(".paper-foot").inner_text()
    page.button("Show how probable each token was").click()
    tokens = page.page.locator(".token[data-at]").all_inner_texts()
    assert "".join(tokens).startswith(" The module json")
    page.button("Show how probable each token was").click()
    page.button("The text before").click()
    assert paper.input_value() == PROMPT
    page.button("The text after").click()
    assert paper.input_value() == text
    page.page.reload()
    page.wait_for(lambda: paper.count() == 1 and paper.input_value() == text)


def test_a_text_is_stopped(endless: httpx.Client, open_page: OpenPage) -> None:
    page = open_page(str(endless.base_url))
    page.button("New text").click()
    paper = page.page.get_by_label("Text", exact=True)
    paper.fill("The ")
    page.button("Go on").click()
    page.wait_for(lambda: len(paper.input_value()) > 50)
    page.page.keyboard.press("Escape")
    page.button("Go on").wait_for()
    text = paper.input_value()
    page.page.wait_for_timeout(200)
    assert paper.input_value() == text and text.startswith("The ")
