"""Texts by themselves: going on, stopping, going back, probabilities."""

from __future__ import annotations

import httpx

from page.talking import OpenPage, Talking, expect

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
    page.wait_for(lambda: len(paper.input_value()) > 60)
    page.button("Go on").wait_for()
    text = paper.input_value()
    assert text.startswith(f"{PROMPT} The module json: Encode and decode")
    expect(page.page.locator(".paper-foot")).to_contain_text("tokens/s")
    page.button("Show how probable each token was").click()
    page.page.locator(".token[data-at]").first.wait_for()
    tokens = page.page.locator(".token[data-at]").all_inner_texts()
    assert "".join(tokens).startswith(" The module json")
    page.button("Show how probable each token was").click()
    page.button("The text before").click()
    expect(paper).to_have_value(PROMPT)
    page.wait_for(lambda: page.kept()[0]["text"] == PROMPT)
    page.button("The text after").click()
    expect(paper).to_have_value(text)
    page.wait_for(lambda: page.kept()[0]["text"] == text)
    page.page.reload()
    expect(paper).to_have_value(text)


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
