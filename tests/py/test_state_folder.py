"""StateFolder: what was kept is found by later processes, whole or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import (
    Engine,
    InvalidArgumentError,
    Model,
    PrefixCache,
    RwkvError,
    Session,
    StateFileError,
    StateFolder,
    StateMismatchError,
)

SYSTEM = "The documentation of the library, in words that many a question begins with. "
TURNS = [f"\n\nUser: What is number {i}?\n\nAssistant:" for i in range(4)]


def talk(model: Model, cache: PrefixCache, n_turns: int = len(TURNS)) -> list[str]:
    """Each turn sends all that was said again, as clients do."""
    history, answers = SYSTEM, []
    with Engine(model, cache=cache) as engine:
        for turn in range(n_turns):
            history += TURNS[turn]
            answers.append(engine.submit(history, max_tokens=24, seed=turn).result())
            history += answers[-1]
    return answers


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder(tmp_path / "states") as folder:
        yield folder


def files(folder: StateFolder) -> list[str]:
    return sorted(path.name for path in (folder.path / "states").iterdir())


def indexed(folder: StateFolder) -> list[str]:
    with sqlite3.connect(folder.path / "index.sqlite") as index:
        return sorted(f"{id}.state" for (id,) in index.execute("SELECT id FROM states"))


@pytest.mark.parametrize("version", ["4", "6", "7"])
def test_a_restart_changes_nothing_but_time(
    version: str, model_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = model_file(version, n_vocab=256)
    model = Model(path)
    plain = talk(model, PrefixCache(model, budget=0))
    found = []
    for n_turns in (2, 3, 4):
        model = Model(path)
        with StateFolder(tmp_path / "states") as folder:
            cache = PrefixCache(model, folder=folder)
            assert talk(model, cache, n_turns) == plain[:n_turns]
            found.append(cache.tokens_found)
            assert files(folder) != []
        assert files(folder) == indexed(folder)
    assert found[0] < found[1] < found[2]


def test_what_memory_has_no_room_for_is_in_the_folder(trained: Model, folder: StateFolder) -> None:
    one = 4 * (trained.state_size + trained.info.n_embd)
    cache = PrefixCache(trained, budget=one, folder=folder)
    long = SYSTEM * 8
    Session(trained, cache=cache).feed(long)
    folder.flush()
    assert (len(cache), len(files(folder))) == (1, 3)
    logits = Session(trained, cache=cache).feed(long[: 256 + 50])
    assert cache.tokens_found == 256
    assert np.array_equal(logits, Session(trained).feed(long[: 256 + 50]))


def test_what_was_saved_counts_but_stays(trained: Model, tmp_path: Path) -> None:
    session = Session(trained)
    session.feed(SYSTEM)
    with StateFolder(tmp_path / "a") as folder:
        size = folder.save(trained, session._sequence.core, {}).n_bytes
    with StateFolder(tmp_path / "b", budget=2 * size) as folder:
        cache = PrefixCache(trained, budget=0, folder=folder)
        for text in (SYSTEM, "Another. " + SYSTEM):
            Session(trained, cache=cache).feed(text)
            folder.flush()
        assert len(files(folder)) == 2
        saved = [folder.save(trained, session._sequence.core, {}) for _ in range(3)]
        assert files(folder) == sorted(f"{state.id}.state" for state in saved)
        folder.delete(saved[0].id)
        folder.delete(saved[1].id)
        Session(trained, cache=cache).feed(SYSTEM)
        folder.flush()
        assert len(files(folder)) == 2


def test_what_is_kept_again_while_it_is_written_is_written_once(
    trained: Model, folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, begun, go_on = StateFolder._write, threading.Event(), threading.Event()

    def slowly(folder: StateFolder, one: Any) -> None:
        begun.set()
        go_on.wait(60)
        write(folder, one)

    monkeypatch.setattr(StateFolder, "_write", slowly)
    for _ in range(3):
        Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
        assert begun.wait(60)
    go_on.set()
    folder.flush()
    assert len(files(folder)) == len(indexed(folder)) == 1


def test_a_folder_that_has_one_twice(trained: Model, tmp_path: Path) -> None:
    """As earlier versions could leave it: the older one goes."""
    for budget in (10_000_000, 0):
        with StateFolder(tmp_path / "states") as folder:
            Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
            folder.flush()
        (name,) = files(folder)
        (folder.path / "states" / "twin.state").write_bytes(
            (folder.path / "states" / name).read_bytes()
        )
        with sqlite3.connect(folder.path / "index.sqlite") as index:
            index.execute("CREATE TEMP TABLE twin AS SELECT * FROM states")
            index.execute("UPDATE twin SET id = 'twin', used_at = used_at - 1")
            index.execute("INSERT INTO states SELECT * FROM twin")
        with StateFolder(folder.path, budget=budget) as folder:
            cache = PrefixCache(trained, folder=folder)
            Session(trained, cache=cache).feed(SYSTEM)
            assert cache.tokens_found == (len(SYSTEM) if budget else 0)
        assert files(folder) == indexed(folder) == ([name] if budget else [])


def test_a_fault_while_writing_keeps_nobody_waiting(
    trained: Model,
    folder: StateFolder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(StateFolder, "_write", fail)
    for i in range(2):
        Session(trained, cache=PrefixCache(trained, folder=folder)).feed(f"{i} {SYSTEM}")
    folder.flush()
    assert caplog.text.count("are not kept: KeyError") == 1
    monkeypatch.undo()
    Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
    folder.flush()
    assert len(files(folder)) == 1


def test_nobody_else_can_read_it(trained: Model, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with StateFolder(tmp_path / "above" / "states") as folder:
            Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
            folder.save(trained, Session(trained)._sequence.core, {})
            folder.flush()
            found = {path: path.stat().st_mode & 0o777 for path in folder.path.rglob("*")}
    finally:
        os.umask(before)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert len(found) >= 6  # the lock, the index with its journal, the folder, two states
    for path, mode in found.items():
        assert mode == (0o700 if path.name == "states" else 0o600), path


def test_the_budget_is_kept_and_the_longest_unused_go(trained: Model, tmp_path: Path) -> None:
    texts = [f"{i} {SYSTEM}" for i in range(5)]
    with StateFolder(tmp_path / "a") as folder:
        Session(trained, cache=PrefixCache(trained, folder=folder)).feed(texts[0])
        folder.flush()
        (size,) = (path.stat().st_size for path in (folder.path / "states").iterdir())
    with StateFolder(tmp_path / "b", budget=3 * size) as folder:
        cache = PrefixCache(trained, budget=0, folder=folder)
        for text in (*texts[:3], texts[0], *texts[3:]):
            Session(trained, cache=cache).feed(text)
            folder.flush()
            assert len(files(folder)) <= 3
        assert files(folder) == indexed(folder)
        found = cache.tokens_found
        assert found == len(texts[0])
        for text in (texts[1], texts[2]):  # they went
            Session(trained, cache=PrefixCache(trained, budget=0, folder=folder)).feed(text)
    with StateFolder(tmp_path / "b", budget=0) as folder:  # a smaller one than last time
        assert files(folder) == indexed(folder) == []
        Session(trained, cache=PrefixCache(trained, budget=0, folder=folder)).feed(texts[0])
        folder.flush()
        assert files(folder) == []


def test_another_model_or_tokenizer_finds_nothing(
    trained: Model, converted: Callable[[str], Path], folder: StateFolder
) -> None:
    Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
    folder.flush()
    other = Model(converted("q8_0"))
    cache = PrefixCache(other, folder=folder)
    assert np.array_equal(Session(other, cache=cache).feed(SYSTEM), Session(other).feed(SYSTEM))
    assert cache.tokens_found == 0
    other = Model(trained.path, ln_x_eps=1e-3)
    cache = PrefixCache(other, folder=folder)
    assert np.array_equal(Session(other, cache=cache).feed(SYSTEM), Session(other).feed(SYSTEM))
    assert cache.tokens_found == 0


def test_damaged_files_are_dropped(trained: Model, tmp_path: Path) -> None:
    expected = Session(trained).feed(SYSTEM)
    damages: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:1000] + b"x" + path.read_bytes()[1001:]),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ]
    for damage in damages:
        for while_open in (False, True):
            with StateFolder(tmp_path / "states") as folder:
                Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
                folder.flush()
                (name,) = files(folder)
                if while_open:
                    damage(folder.path / "states" / name)
                    cache = PrefixCache(trained, folder=folder)
                    logits = Session(trained, cache=cache).feed(SYSTEM)
            if not while_open:
                damage(folder.path / "states" / name)
                with StateFolder(tmp_path / "states") as folder:
                    cache = PrefixCache(trained, folder=folder)
                    logits = Session(trained, cache=cache).feed(SYSTEM)
            assert np.array_equal(logits, expected)
            assert cache.tokens_found == 0
            subprocess.run(["rm", "-rf", tmp_path / "states"], check=True)


def test_a_disk_that_fails_costs_no_answer(
    trained: Model, folder: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["rm", "-r", folder.path / "states"], check=True)
    (folder.path / "states").write_text("in the way")
    cache = PrefixCache(trained, folder=folder)
    for text in (SYSTEM, "Another. " + SYSTEM):
        logits = Session(trained, cache=cache).feed(text)
        assert np.array_equal(logits, Session(trained).feed(text))
    folder.flush()
    assert caplog.text.count("states cannot be written") == 1  # the log is no place to fill either
    assert indexed(folder) == []
    with pytest.raises(RwkvError):
        folder.save(trained, Session(trained)._sequence.core, {})
    assert folder.saved() == []


def test_one_process_at_a_time(folder: StateFolder, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="expected a folder that nobody uses"):
        StateFolder(folder.path)
    folder.close()
    folder.close()
    StateFolder(folder.path).close()


def test_a_folder_of_a_later_version_and_what_is_none(tmp_path: Path) -> None:
    StateFolder(tmp_path / "a").close()
    with sqlite3.connect(tmp_path / "a" / "index.sqlite") as index:
        index.execute("PRAGMA user_version = 99")
    (tmp_path / "file").write_text("")
    StateFolder(tmp_path / "b").close()
    (tmp_path / "b" / "index.sqlite").write_bytes(b"no index" * 1000)
    for name, message in [
        ("a", "expected version 1 or earlier, got 99"),
        ("file", "expected a folder for states"),
        ("file/below", "expected a folder for states"),
        ("b", "expected a folder for states, got file is not a database"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            StateFolder(tmp_path / name)
    with pytest.raises(InvalidArgumentError, match=r"folder: expected a StateFolder, got str"):
        PrefixCache(Model.__new__(Model), folder="x")  # type: ignore[arg-type]


def test_a_forked_child_keeps_and_finds_nothing(trained: Model, folder: StateFolder) -> None:
    Session(trained, cache=PrefixCache(trained, folder=folder)).feed(SYSTEM)
    folder.flush()
    child = os.fork()
    if child == 0:
        cache = PrefixCache(trained, folder=folder)
        Session(trained, cache=cache).feed(SYSTEM + "and more of it, longer than that.")
        folder.close()
        os._exit(int(cache.tokens_found != 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(files(folder)) == 1
    cache = PrefixCache(trained, folder=folder)
    Session(trained, cache=cache).feed(SYSTEM)
    assert cache.tokens_found == len(SYSTEM)


# --------------------------------------------------------------------------------------------------
# States that somebody saved


def test_saved_states(trained: Model, tmp_path: Path, converted: Callable[[str], Path]) -> None:
    session = Session(trained)
    session.feed(SYSTEM)
    with StateFolder(tmp_path / "states", budget=0) as folder:
        state = folder.save(trained, session._sequence.core, {"tokens": len(SYSTEM)})
        assert folder.find(state.id) == state
    with StateFolder(tmp_path / "states", budget=0) as folder:
        assert folder.saved() == [state]
        assert state.notes == {"tokens": len(SYSTEM)}
        other = Session(trained)
        other.load_state(folder.file_of(state))
        assert np.array_equal(other.state, session.state)
        data = folder.file_of(state).read_bytes()
        copy = folder.add(trained, data, {})
        assert [one.id for one in folder.saved()] == [state.id, copy.id]
        assert folder.file_of(copy).read_bytes() == data
        for damaged in (b"", data[:-1], b"x" + data[1:]):
            with pytest.raises(StateFileError):
                folder.add(trained, damaged, {})
        with pytest.raises(StateMismatchError):
            folder.add(Model(converted("q8_0")), data, {})
        assert len(files(folder)) == 2
        assert folder.delete(state.id)
        assert not folder.delete(state.id)
        assert folder.find(state.id) is None
        assert files(folder) == indexed(folder) == [f"{copy.id}.state"]
        third = folder.copy(copy, {"of": copy.id})
        assert folder.saved() == [copy, third]
        assert (third.notes, third.model) == ({"of": copy.id}, copy.model)
        assert folder.file_of(third).read_bytes() == data
        assert folder.saved_bytes == 2 * len(data)
        folder.delete(copy.id)
        with pytest.raises(StateFileError, match="cannot be read"):
            folder.copy(copy, {})
    with pytest.raises(InvalidArgumentError, match="expected an open StateFolder"):
        folder.saved()


# --------------------------------------------------------------------------------------------------
# SIGKILL

AT_WORK = """
import sys, random, time
from rwkv_py import Model, PrefixCache, Session, StateFolder
write = StateFolder._write
def slowly(folder, one):  # as where the machine is busy
    time.sleep(0.05 * random.random())
    write(folder, one)
StateFolder._write = slowly
model = Model(sys.argv[1])
folder = StateFolder(sys.argv[2], budget=int(sys.argv[3]))
cache = PrefixCache(model, budget=2_000_000, folder=folder)
choice = random.Random(int(sys.argv[4]))
print("begun", flush=True)
while True:
    session = Session(model, cache=cache)
    session.feed(f"{choice.randrange(3)} A beginning that many share. " * 20)
    if choice.random() < 0.3:
        print(folder.save(model, session._sequence.core, {"n": 1}).id, flush=True)
    if choice.random() < 0.2 and folder.saved():
        gone = choice.choice(folder.saved()).id
        print("-" + gone, flush=True)
        folder.delete(gone)
"""


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(4, id="few"),
        pytest.param(45, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_killed_at_any_moment(trained: Model, tmp_path: Path, times: int) -> None:
    """What is found is whole; what was saved is there, what was deleted is not."""
    saved: set[str] = set()
    for i in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", AT_WORK, trained.path, tmp_path / "states", "6000000", str(i)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.03 * (i % 10) + 0.011 * (i % 7))
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split()
        process.wait()
        last_deleted = None
        for line in lines:
            if line.startswith("-"):
                saved.discard(line[1:])
                last_deleted = line[1:]
            else:
                saved.add(line)
        with StateFolder(tmp_path / "states", budget=6_000_000) as folder:
            found = {state.id for state in folder.saved()}
            assert saved <= found
            # One may have been saved and not told, one told and not deleted.
            assert len(found - saved - {last_deleted}) <= 1
            saved = found
            assert files(folder) == indexed(folder)
            for name in files(folder):
                Session(trained).load_state(folder.path / "states" / name)
            cache = PrefixCache(trained, folder=folder)
            text = f"{i % 3} A beginning that many share. " * 20
            logits = Session(trained, cache=cache).feed(text)
            assert np.array_equal(logits, Session(trained).feed(text))
