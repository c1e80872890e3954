"""What is kept: conversations in the browser, states on the server, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from page.talking import OpenPage, Talking, expect
from page.test_chat import NEXT, requests_of
from server.conversations import ANSWER, QUESTION


def names(page: Talking) -> Any:
    """Where the names of the conversations are, the latest first."""
    return page.page.locator(".item-open")


def test_conversations_are_there_again(page: Talking) -> None:
    page.say(QUESTION)
    page.button("New chat").click()
    page.say(NEXT)
    page.wait_until_kept()
    page.page.reload()
    # The one that was open.
    expect(page.messages.first.locator(".text")).to_have_text(NEXT)
    expect(names(page)).to_have_text([NEXT, QUESTION])
    page.button(QUESTION).click()
    expect(page.text()).to_have_text(ANSWER)


def test_they_are_found_renamed_and_deleted(page: Talking) -> None:
    page.say(QUESTION)
    page.button("New chat").click()
    page.say(NEXT)
    search = page.page.get_by_label("Search conversations")
    page.page.keyboard.press("Control+k")
    page.page.keyboard.type("decode format")  # of the answer
    expect(names(page)).to_have_text([QUESTION])
    search.fill("nothing of that")
    expect(names(page)).to_have_count(0)
    page.page.keyboard.press("Escape")
    expect(names(page)).to_have_text([NEXT, QUESTION])
    page.page.get_by_role("listitem").filter(has_text=QUESTION).hover()
    page.button(f"Rename {QUESTION}").click()
    page.page.get_by_label("Title").fill("About JSON")
    page.page.keyboard.press("Enter")
    expect(names(page)).to_have_text([NEXT, "About JSON"])
    page.page.get_by_role("listitem").filter(has_text="About JSON").hover()
    page.button("Delete About JSON").click()
    expect(names(page)).to_have_text([NEXT])
    page.button("Undo").click()
    expect(names(page)).to_have_text([NEXT, "About JSON"])


def test_another_tab_shows_what_was_said(page: Talking) -> None:
    page.say(QUESTION)
    page.wait_until_kept()
    other = Talking(page.page.context.new_page())
    other.page.goto(page.page.url)
    other.answers.first.wait_for()
    other.message.fill("Typed here")
    page.say(NEXT)
    expect(other.answers).to_have_count(2)
    expect(other.text()).to_have_text(page.answer())
    expect(other.message).to_have_value("Typed here")
    other.page.close()


def test_a_draft_of_a_tab_that_heard_nothing_takes_nothing_away(page: Talking) -> None:
    page.say(QUESTION)
    page.wait_until_kept()
    deaf = Talking(page.page.context.new_page())
    deaf.page.add_init_script("delete globalThis.BroadcastChannel")
    deaf.page.goto(page.page.url)
    deaf.answers.first.wait_for()
    page.say(NEXT)
    page.wait_until_kept()
    deaf.message.fill("Typed here")
    deaf.page.reload()
    expect(deaf.answers).to_have_count(2)
    expect(deaf.message).to_have_value("Typed here")
    deaf.page.close()


def test_a_draft_is_there_again(page: Talking) -> None:
    page.say(QUESTION)
    page.message.fill("Not said ye")
    page.message.press("t")
    page.page.reload()
    expect(page.message).to_have_value("Not said yet")


def test_states_are_kept_on_the_server_and_begun_at(page: Talking, client: httpx.Client) -> None:
    page.say(QUESTION)
    page.choose("Keep the state here", "More", page.answers.last)
    page.page.get_by_role("textbox", name="Name").fill("after json")
    page.page.keyboard.press("Enter")
    page.answers.last.get_by_text("kept").wait_for()
    (state,) = [s for s in client.get("/v1/states").json()["data"] if s["name"] == "after json"]
    asked = requests_of(page)
    page.say("Tell me more.")
    assert asked[0]["state"] == state["id"]  # what comes after it is all that is sent
    assert [message["content"] for message in asked[0]["messages"]] == ["Tell me more."]
    whole = page.answer()
    page.button("States").click()
    page.button("Begin at after json").click()
    page.say("Tell me more.")
    expect(page.text()).to_have_text(whole)
    page.button("States").click()
    page.button("Delete after json").click()
    page.wait_for(lambda: state["id"] not in client.get("/v1/states").text)
    page.page.keyboard.press("Escape")
    # All that was said is here: it is read again.
    page.button(QUESTION).click()
    page.say(NEXT)
    assert asked[-2]["state"] == state["id"] and "state" not in asked[-1]
    assert len(asked[-1]["messages"]) == 5
    expect(page.text()).to_contain_text("getcwd")


def test_export_and_import(
    page: Talking, client: httpx.Client, open_page: OpenPage, tmp_path: Path
) -> None:
    page.say(QUESTION)
    page.button("Answer again").click()
    page.wait_for_end()
    with page.page.expect_download() as download:
        page.choose("Export as JSON")
    file = tmp_path / "conversation.json"
    download.value.save_as(file)
    with page.page.expect_download() as download:
        page.choose("Export as Markdown")
    text = Path(download.value.path()).read_text()
    assert text == f"# {QUESTION}\n\n## You\n\n{QUESTION}\n\n## pychat\n\n{ANSWER}\n"
    other = open_page(str(client.base_url))
    import_file(other, file)
    other.button(QUESTION).click()
    expect(other.text()).to_have_text(ANSWER)
    expect(other.answers.last).to_have_attribute("aria-label", "Answer, 2 of 2")
    expect(other.button("Show how probable each token was")).to_have_count(1)


def test_a_file_of_anything_is_refused(page: Talking, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    loop = {"role": "user", "children": ["a"], "chosen": "a"}
    for given, told in (
        ("{", "file: expected JSON"),
        ("[]", "file: expected conversations of this page"),
        (conversations({}), "conversation: expected a tree"),
        (conversations({"root": {"children": ["b"]}}), "conversation: expected a message"),
        (
            conversations({"root": {"children": ["a"]}, "a": loop}),
            "conversation: expected a message",
        ),
    ):
        file.write_text(given)
        import_file(page, file)
        page.page.get_by_text(told).wait_for()
    expect(names(page)).to_have_count(0)


def conversations(nodes: dict[str, object]) -> str:
    return json.dumps({"format": "rwkv-conversations", "conversations": [{"nodes": nodes}]})


def import_file(page: Talking, file: Path) -> None:
    page.button("Settings").click()
    with page.page.expect_file_chooser() as chooser:
        page.button("Import conversations").click()
    chooser.value.set_files(file)
    page.page.keyboard.press("Escape")
