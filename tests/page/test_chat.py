"""A conversation: what is said, answered, stopped, said again and said otherwise."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from page.talking import OpenPage, Talking, expect
from server.conversations import ANSWER, PLAIN, QUESTION
from server.serving import serve

NEXT = "What is os.getcwd?"


def requests_of(talking: Talking) -> list[dict[str, Any]]:
    """What the page asks the server from now on."""
    found: list[dict[str, Any]] = []
    talking.page.on(
        "request",
        lambda request: found.append(json.loads(request.post_data)) if request.post_data else None,
    )
    return found


def test_a_question_is_answered_and_so_is_the_next(page: Talking) -> None:
    asked = requests_of(page)
    page.say(QUESTION)
    assert page.answer() == ANSWER
    page.say(NEXT)
    assert [message["content"] for message in asked[1]["messages"]] == [QUESTION, ANSWER, NEXT]
    expect(page.page).to_have_title(re.compile("^" + re.escape(QUESTION)))


def test_an_answer_comes_piece_by_piece_and_is_stopped(
    endless: httpx.Client, open_page: OpenPage
) -> None:
    page = open_page(str(endless.base_url))
    page.begin_to_say(QUESTION)
    page.wait_for(lambda: len(page.answer()) > 20)
    before = page.answer()
    page.wait_for(lambda: len(page.answer()) > len(before))
    page.page.keyboard.press("Escape")
    page.wait_for_end()
    expect(page.answers.last).to_contain_text("Stopped.")
    stopped = page.answer()
    assert stopped.startswith(before.rstrip())
    page.wait_for(lambda: running(endless) == 0)  # the server does not go on
    page.button("Go on").click()
    page.wait_for(lambda: len(page.answer()) > len(stopped) + 20)
    page.button("Stop").click()
    page.wait_for_end()
    assert page.answer().startswith(stopped.rstrip())


def running(client: httpx.Client) -> int:
    (served,) = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    return int(served.engine.n_running)


def test_a_cut_answer_is_gone_on_with(page: Talking) -> None:
    page.set("Most tokens", "20")
    page.say(QUESTION)
    cut = page.answer()
    assert cut == ANSWER[: len(cut)] and len(cut) < len(ANSWER)
    expect(page.answers.last).to_contain_text("as many tokens as the settings allow")
    for _ in range(2):
        page.button("Go on").click()
        page.wait_for_end()
    expect(page.text()).to_have_text(ANSWER)


def test_regenerating_and_editing_make_branches(page: Talking) -> None:
    page.say(QUESTION)
    page.button("Answer again").click()
    page.wait_for_end()
    expect(page.answers.last).to_have_attribute("aria-label", "Answer, 2 of 2")
    asked = requests_of(page)
    page.message.press("ArrowUp")  # of an empty message: edits the last question
    page.page.get_by_label("Say it differently").fill(NEXT)
    page.page.keyboard.press("Enter")
    expect(page.messages.first).to_have_attribute("aria-label", "You said, 2 of 2")
    expect(page.messages.first.locator(".text")).to_have_text(NEXT)
    page.wait_for_end()
    assert [message["content"] for message in asked[0]["messages"]] == [NEXT]
    page.button("The branch before", page.messages.first).click()
    expect(page.messages.first.locator(".text")).to_have_text(QUESTION)
    expect(page.answers.last).to_have_attribute("aria-label", "Answer, 2 of 2")


def test_escape_leaves_a_message_as_it_was(page: Talking) -> None:
    page.say(QUESTION)
    page.messages.first.hover()
    page.button("Edit").click()
    page.page.get_by_label("Say it differently").fill("Something else")
    page.page.keyboard.press("Escape")
    expect(page.messages.first.locator(".text")).to_have_text(QUESTION)
    expect(page.button("Edit")).to_be_focused()


def test_reasoning_is_folded(pychat_file: Path, open_page: OpenPage) -> None:
    with serve({"m": pychat_file}, chat_format="g1-think", sampling=PLAIN) as client:
        page = open_page(str(client.base_url))
        asked: list[dict[str, Any]] = []

        def made_to_reason(route: Any) -> None:
            asked.append(json.loads(route.request.post_data))
            body = {"regex": "[a-z]{3}", **asked[-1], "max_tokens": 12}
            route.continue_(post_data=json.dumps(body))

        page.page.route("**/v1/chat/completions", made_to_reason)
        page.say(QUESTION)
        reasoning = page.page.locator(".thinking-text")
        expect(page.answers.last.get_by_text("Reasoning", exact=True)).to_be_visible()
        assert not reasoning.is_visible()
        page.answers.last.get_by_text("Reasoning", exact=True).click()
        expect(reasoning).to_be_visible()
        expect(reasoning).to_have_text(re.compile("[a-z]"))
        page.button("Settings").click()
        page.page.get_by_label("Reasoning").select_option("Not at all")
        page.page.keyboard.press("Escape")
        page.say(NEXT)
        assert asked[1]["reasoning_effort"] == "none"
        assert "reasoning_effort" not in asked[0]
        assert not page.answers.last.get_by_text("Reasoning", exact=True).is_visible()


def test_probabilities_are_shown_on_hover_and_by_the_keyboard(page: Talking) -> None:
    page.say(QUESTION)
    show = page.button("Show how probable each token was")
    show.click()
    tokens = page.page.locator(".tokens-text .token")
    expect(page.page.locator(".tokens-text")).to_contain_text(ANSWER)
    assert "".join(tokens.all_inner_texts()).startswith(f" {ANSWER}")
    tokens.nth(5).hover()
    tip = page.page.locator(".tip")
    chosen = tip.locator(".tip-row", has=page.page.get_by_label("chosen"))
    expect(chosen.locator("code")).to_have_text(ANSWER[4])
    expect(chosen.locator(".share")).to_have_text(re.compile("%$"))
    assert tip.locator(".tip-row").count() >= 5
    page.page.mouse.move(0, 0)
    page.page.locator(".tokens-text").focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowRight")
    expect(chosen.locator("code")).to_have_text(ANSWER[0])
    show.click()
    expect(page.text()).to_have_text(ANSWER)


def test_speed_is_told(page: Talking) -> None:
    page.say("What is the re module?")
    page.say("Tell me more.")
    first, second = page.speeds()
    for line in (first, second):
        assert "tokens/s" in line and "first after" in line and "prompt" in line
    assert int(second.split("prompt ")[1].split(",")[0]) > 30
    assert int(second.split(", ")[-1].split(" ")[0]) > 30  # tokens that the server had read before


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "[x](javascript:alert(1))"])
def test_what_is_said_never_becomes_markup(page: Talking, text: str) -> None:
    page.page.evaluate("window.alert = () => { document.title = 'broken in' }")
    page.say(text)
    page.choose("Edit the answer", "More", page.answers.last)
    page.page.get_by_label("Write it differently").fill(f"# {text}\n\n**{text}**")
    page.button("Save").click()
    expect(page.answers.last.locator("h3")).to_have_text(text)
    assert page.answers.last.locator("img, a, script").count() == 0
    assert page.page.title() != "broken in"


def test_markdown_is_shown(page: Talking) -> None:
    page.say(QUESTION)
    page.choose("Edit the answer", "More", page.answers.last)
    page.page.get_by_label("Write it differently").fill(
        "# Head\n\n- one `code`\n  - deeper\n- **two**\n\n```python\nx = '<b>'\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n> said\n\n[link](https://example.org)"
    )
    page.button("Save").click()
    answer = page.answers.last
    expect(answer.locator("h3")).to_have_text("Head")
    expect(answer.locator("li li")).to_have_text("deeper")
    expect(answer.locator("pre code")).to_have_text("x = '<b>'")
    expect(answer.locator("td")).to_have_text(["1", "2"])
    expect(answer.locator("blockquote")).to_have_text("said")
    link = answer.locator("a")
    expect(link).to_have_attribute("href", "https://example.org")
    expect(link).to_have_attribute("rel", "noopener noreferrer")


def test_hostile_markdown_takes_no_time(page: Talking) -> None:
    script = """async () => {
        const { blocksOf, renderBlock } = await import("/page/markdown.js");
        const pieces = ["**a ", "`", "[", "> ", "- ", "_*", "<", "~~x", "| a ", "# "];
        const texts = pieces.map((piece) => piece.repeat(5000));
        const begun = performance.now();
        for (const text of texts) for (const block of blocksOf(text)) renderBlock(block);
        return performance.now() - begun;
    }"""
    assert page.page.evaluate(script) < 5000


def test_those_who_listen_hear_sentences_and_not_pieces(
    endless: httpx.Client, open_page: OpenPage
) -> None:
    page = open_page(str(endless.base_url))
    page.page.evaluate(
        """() => {
            window.heard = [];
            const live = document.querySelector("#live");
            const hear = () => window.heard.push([live.textContent, performance.now()]);
            new MutationObserver(hear).observe(live, { childList: true });
        }"""
    )
    page.set("Most tokens", "16000")

    def made_to_speak(route: Any) -> None:
        """In sentences: left alone, a small model may go on without an end of one."""
        body = {**json.loads(route.request.post_data), "regex": r"(( [a-z]{2,9}){3,9}\.)+"}
        route.continue_(post_data=json.dumps(body))

    page.page.route("**/v1/chat/completions", made_to_speak)
    page.page.evaluate("window.heard.length = 0")
    page.begin_to_say(QUESTION)
    page.wait_for(lambda: page.page.evaluate("window.heard.length") > 2)
    page.button("Stop").click()
    page.wait_for_end()
    (begun, _), *heard = page.page.evaluate("window.heard")
    assert begun == "Answering"
    # But for spaces: what has none for long is cut anywhere.
    said = "".join(text for text, _ in heard)
    assert "".join(said.split()) == "".join(page.answer().split())
    for text, _ in heard[:-1]:  # the last is what was left when it was stopped
        assert text.endswith((".", "!", "?", ":"))
    times = [when for _, when in heard]
    # 3 s at least, of which a busy machine may see one end late and not the other.
    assert all(after - before > 2000 for before, after in pairwise(times[:-1]))
