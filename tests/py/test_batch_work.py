"""A batch is worked through whatever happens, and its files are the same in the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_py import InvalidArgumentError
from rwkv_py.batch import (
    Answered,
    BadLine,
    Line,
    Lines,
    NotNow,
    Outputs,
    Progress,
    name_of_work,
    work,
    work_through,
)

FACTS = {"input": "abc"}
NAME = name_of_work(FACTS)


def write_input(path: Path, n_lines: int) -> None:
    with path.open("w") as file:
        for i in range(n_lines):
            request = {"custom_id": f"#{i}", "method": "POST", "url": "/x", "body": {"n": i}}
            file.write("no JSON\n" if i % 7 == 3 else json.dumps(request) + "\n")


async def echo(number: int, line: Line | BadLine) -> Answered:
    await asyncio.sleep(0)
    if isinstance(line, BadLine):
        return Answered(400, json.dumps({"error": line.message}).encode(), 0)
    return Answered(200, json.dumps({"n": line.body["n"]}).encode(), 3)


def run(
    folder: Path, answer: Callable[[int, Line | BadLine], Any] = echo, **options: Any
) -> list[Progress]:
    """Do as `rwkv batch` does."""
    outputs = Outputs(folder / "out", folder / "failed")
    seen: list[Progress] = []
    with Lines(folder / "in", max_bytes=1000) as lines:
        journal = outputs.open_journal(FACTS, len(lines), force=options.pop("force", False))
        if journal is None:
            return []
        with journal:
            asyncio.run(
                work_through(
                    lines, journal, answer, work=NAME, at_once=options.pop("at_once", 3),
                    progress=lambda told: seen.append(Progress(**vars(told))), **options,
                )
            )  # fmt: skip
            outputs.write(journal, len(lines))
            journal.delete()
    return seen


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "in"}


def test_answers_and_failures_are_in_order(tmp_path: Path) -> None:
    write_input(tmp_path / "in", 20)
    seen = run(tmp_path)
    assert seen[0] == Progress(20, 0, 0, 0)
    assert seen[-1] == Progress(20, 20, 3, 17 * 3)
    assert sorted(files(tmp_path)) == ["failed", "out"]
    told = [json.loads(row) for row in (tmp_path / "out").read_text().splitlines()]
    assert [row["custom_id"] for row in told] == [f"#{i}" for i in range(20) if i % 7 != 3]
    assert told[4] == {
        "id": f"batch_req_{NAME}_6",
        "custom_id": "#5",
        "response": {"status_code": 200, "request_id": f"req_{NAME}_6", "body": {"n": 5}},
        "error": None,
    }
    failed = [json.loads(row) for row in (tmp_path / "failed").read_text().splitlines()]
    assert [row["response"]["status_code"] for row in failed] == [400] * 3
    assert [row["custom_id"] for row in failed] == [None] * 3
    assert run(tmp_path) == []  # all is done


class Killed(BaseException):
    """The end of a process, as far as files are concerned."""


@settings(max_examples=settings.default.max_examples * 2 // 5)  # type: ignore[union-attr]
@given(n_lines=st.integers(0, 25), at=st.lists(st.integers(0, 30)), seed=st.integers(0, 99))
def test_interrupted_anywhere_it_is_the_same_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, n_lines: int, at: list[int], seed: int
) -> None:
    """Whichever operation on files was the last before the end, half a record written or not."""
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    for folder in (whole, parts):
        write_input(folder / "in", n_lines)
    run(whole)
    chance = random.Random(seed)
    for n_operations in at:
        with pytest.MonkeyPatch.context() as patch:
            _die_after(n_operations, patch, chance)
            try:
                run(parts, at_once=chance.randrange(1, 9))
            except Killed:
                continue
            break
    run(parts, at_once=chance.randrange(1, 9))
    assert files(parts) == files(whole)


def _die_after(n_operations: int, patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    left = n_operations

    def dying(real: Any, *, in_the_middle: bool = False) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if left == -1 and in_the_middle and chance.random() < 0.5:
                    real(args[0], bytes(args[1])[: chance.randrange(len(args[1]))])
                raise Killed
            return real(*args, **kwargs)

        return wrapped

    patch.setattr(os, "write", dying(os.write, in_the_middle=True))
    for name in ("replace", "fsync", "ftruncate"):
        patch.setattr(os, name, dying(getattr(os, name)))
    patch.setattr(Path, "unlink", dying(Path.unlink))


def test_so_many_at_once(tmp_path: Path) -> None:
    write_input(tmp_path / "in", 40)
    at_work, most = 0, 0

    async def busy(number: int, line: Line | BadLine) -> Answered:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.001)
        at_work -= 1
        return await echo(number, line)

    run(tmp_path, busy, at_once=5)
    assert most == 5


def test_what_cannot_be_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full line for as long as it takes; what is broken, so often, and then it is told."""
    write_input(tmp_path / "in", 3)
    monkeypatch.setattr(work, "_MAX_PAUSE", 0.001)
    tries = [0, 0, 0]

    async def full(number: int, line: Line | BadLine) -> Answered:
        tries[number] += 1
        if number == 0 and tries[0] < 25:
            raise NotNow(None)
        if number == 1:
            raise NotNow(Answered(503, b'"broken"', 0))
        return await echo(number, line)

    run(tmp_path, full)
    assert tries == [25, work._MAX_TRIES, 1]
    assert len((tmp_path / "out").read_text().splitlines()) == 2
    assert '"status_code":503' in (tmp_path / "failed").read_text()


def test_a_fault_ends_it_and_nothing_is_lost(tmp_path: Path) -> None:
    write_input(tmp_path / "in", 20)
    answered: list[int] = []

    async def faulty(number: int, line: Line | BadLine) -> Answered:
        if number == 8 and len(answered) < 20:
            answered.extend([-1] * 20)
            raise OSError("a disk")
        answered.append(number)
        return await echo(number, line)

    with pytest.raises(OSError, match="a disk"):
        run(tmp_path, faulty, at_once=1)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, faulty, at_once=1)[0].n_done > 0
    numbers = [number for number in answered if number >= 0]
    assert sorted(numbers) == list(range(20))  # each once


def test_what_others_have_left_stays(tmp_path: Path) -> None:
    write_input(tmp_path / "in", 5)
    for name in ("out", "failed"):
        (tmp_path / name).write_text("mine\n")
        with pytest.raises(InvalidArgumentError, match=rf"{name}: expected no file, or"):
            run(tmp_path)
        assert files(tmp_path) == {name: b"mine\n"}
        (tmp_path / name).unlink()
    (tmp_path / "out").write_text("mine\n")
    run(tmp_path, force=True)
    assert b"mine" not in files(tmp_path)["out"]


def test_each_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    write_input(tmp_path / "in", 1)
    (tmp_path / "same").symlink_to(tmp_path / "in")
    for answers, failures in (("in", "b"), ("a", "in"), ("a", "a"), ("same", "b")):
        with pytest.raises(InvalidArgumentError, match="expected a file for each of requests"):
            Outputs(tmp_path / answers, tmp_path / failures).check_names(tmp_path / "in")
    with pytest.raises(InvalidArgumentError, match="expected a file or nothing, got a folder"):
        Outputs(tmp_path, tmp_path / "b").check_names(tmp_path / "in")
    with pytest.raises(InvalidArgumentError, match="expected a folder to write it in, got none"):
        Outputs(tmp_path / "no" / "a", tmp_path / "b").check_names(tmp_path / "in")
    Outputs(tmp_path / "a", tmp_path / "b").check_names(tmp_path / "in")
