"""Branches: several answers side by side, any turn a branching point, moving between them."""

from __future__ import annotations

import re

from page.talking import Talking, expect
from page.test_chat import NEXT, requests_of
from server.conversations import ANSWER, QUESTION


def test_several_answers_are_written_at_once_and_stand_side_by_side(page: Talking) -> None:
    page.page.get_by_label("How many answers").select_option("3 answers")
    asked = requests_of(page)
    page.say(QUESTION)
    assert [request["n"] for request in asked] == [3]
    expect(page.answers).to_have_count(3)
    beside = page.page.get_by_role("group", name="3 answers side by side")
    boxes = [beside.get_by_role("article").nth(i).bounding_box() for i in range(3)]
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.page.get_by_label("How many answers").select_option("1 answer")
    page.button("Go on from answer 3").click()
    page.say(NEXT)
    expect(page.answers).to_have_count(4)
    expect(page.button("Go on from answer 3")).to_have_attribute("aria-pressed", "true")
    # What was said after the third was not said after the first.
    page.button("Go on from answer 1").click()
    expect(page.answers).to_have_count(3)
    page.choose("Show one at a time", "More", page.answers.first)
    expect(page.answers).to_have_count(1)
    expect(page.answers.first).to_have_attribute("aria-label", "Answer, 1 of 3")
    page.button("Show the answers side by side").click()
    expect(page.answers).to_have_count(3)


def test_any_turn_is_a_branching_point(page: Talking) -> None:
    page.say(QUESTION)
    page.say(NEXT)
    page.button("Answer again", page.answers.first).click()
    page.wait_for_end()
    expect(page.messages).to_have_count(2)  # nothing was said after this one
    page.button("The branch before").click()
    expect(page.messages).to_have_count(4)
    page.page.locator("body").click(position={"x": 5, "y": 5})
    page.page.keyboard.press("Alt+ArrowRight")
    expect(page.messages).to_have_count(2)
    page.page.keyboard.press("Alt+ArrowLeft")
    expect(page.messages).to_have_count(4)


def test_an_answer_is_corrected_and_gone_on_from(page: Talking) -> None:
    page.say(QUESTION)
    page.choose("Edit the answer", "More", page.answers.last)
    page.page.get_by_label("Write it differently").fill("It reads JSON.")
    page.button("Save").click()
    expect(page.text()).to_have_text("It reads JSON.")
    asked = requests_of(page)
    page.say(NEXT)
    assert asked[0]["messages"][1] == {"role": "assistant", "content": "It reads JSON."}


def test_a_branch_is_deleted_and_comes_back(page: Talking) -> None:
    page.say(QUESTION)
    page.button("Answer again").click()
    page.wait_for_end()
    page.choose("Delete this branch", "More", page.answers.last)
    expect(page.answers.last).to_have_attribute("aria-label", "Answer")
    page.button("Undo").click()
    expect(page.answers.last).to_have_attribute("aria-label", "Answer, 2 of 2")


def test_a_fork_costs_nothing(page: Talking) -> None:
    """The server has read all that both branches begin with."""
    page.say("What is the difflib module?")
    page.say(NEXT)
    page.button("Answer again", page.answers.last).click()
    expect(page.answers.last).to_have_attribute("aria-label", "Answer, 2 of 2")
    page.wait_for_end()
    (found,) = re.findall(r"prompt (\d+), (\d+) cached", page.speeds()[-1])
    prompt, cached = map(int, found)
    assert prompt == cached > 50


def test_a_fixed_seed_gives_each_branch_another(page: Talking) -> None:
    page.set("Seed", "7")
    asked = requests_of(page)
    page.say(QUESTION)
    expect(page.text()).to_have_text(ANSWER)
    page.button("Answer again").click()
    expect(page.answers.last).to_have_attribute("aria-label", "Answer, 2 of 2")
    page.wait_for_end()
    assert [request["seed"] for request in asked] == [7, 8]
