"""What a server with a folder of states knows when it comes again, whatever ended it before."""

from __future__ import annotations

import errno
import logging
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rwkv_py import InvalidArgumentError, StateFolder
from rwkv_py.server import Settings, create_app
from server.conversations import QUESTION
from server.protocols import DRAWN, PROTOCOLS, STATES, post, refused
from server.serving import Serve, serve
from server.test_serve_command import running

CHAT, COMPLETIONS, RESPONSES, MESSAGES = PROTOCOLS
SYSTEM = {"role": "system", "content": "Answer in one sentence, in the words of the manual."}
QUESTIONS = [QUESTION, "Tell me more.", "What is os.getcwd?"]
RunCli = Callable[..., subprocess.CompletedProcess[str]]


def talk(client: httpx.Client, n_turns: int) -> list[dict[str, Any]]:
    """Each turn sends all that was said again, as clients do; return the answers."""
    said, answers = [SYSTEM], []
    for question in QUESTIONS[:n_turns]:
        said.append({"role": "user", "content": question})
        answers.append(post(client, CHAT.path, **CHAT.ask(said)))
        said.append({"role": "assistant", "content": CHAT.text(answers[-1])})
    return answers


def cached(answer: dict[str, Any]) -> int:
    found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return found


def new(answer: dict[str, Any]) -> int:
    """The tokens that were read."""
    tokens: int = answer["usage"]["prompt_tokens"]
    return tokens - cached(answer)


@pytest.fixture(scope="module")
def single(pychat_file: Path) -> list[str]:
    """What single runs answer."""
    with serve({"pychat": pychat_file}, cache_bytes=0) as client:
        return [CHAT.text(answer) for answer in talk(client, 3)]


def test_a_conversation_costs_its_new_tokens_after_a_restart(
    pychat_file: Path, tmp_path: Path, single: list[str]
) -> None:
    for n_turns in (1, 2, 3):
        with serve({"pychat": pychat_file}, state_dir=tmp_path / "states") as client:
            answers = talk(client, n_turns)
            assert [CHAT.text(answer) for answer in answers] == single[:n_turns]
            for i, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=False)):
                if i or n_turns > 1:
                    assert new(answer) <= len(f"\n\nUser: {question}\n\nAssistant:") + 1
    assert_private(tmp_path / "states")


def test_what_waits_to_be_written_is_written_in_the_end(
    pychat_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the model is there, whose states they are."""
    write = StateFolder._write

    def slowly(folder: StateFolder, one: Any) -> None:
        time.sleep(0.3)
        write(folder, one)

    monkeypatch.setattr(StateFolder, "_write", slowly)
    user = {"role": "user", "content": QUESTION}
    for is_cached in (False, True):
        with serve({"pychat": pychat_file}, state_dir=tmp_path / "states") as client:
            answer = post(client, CHAT.path, **CHAT.ask([SYSTEM, user]))
        assert (new(answer) == 0) == is_cached


def assert_private(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_responses_and_states_outlive_it(pychat_file: Path, tmp_path: Path) -> None:
    """Under the keys that they were made with, wherever those stand in the list now."""
    said = [{"role": "user", "content": question} for question in QUESTIONS]
    folder = tmp_path / "states"
    first, second = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    with serve({"pychat": pychat_file}, state_dir=folder, api_keys=("one", "two")) as client:
        client.headers.update(first)
        response = post(client, RESPONSES.path, **RESPONSES.ask(said[:1]))
        state = post(client, STATES, response_id=response["id"], name="kept")
        more = RESPONSES.ask(said[1:2], previous_response_id=response["id"])
        expected = RESPONSES.text(post(client, RESPONSES.path, **more))
        chat = post(client, CHAT.path, **CHAT.ask(said[:1]))
    with serve({"pychat": pychat_file}, state_dir=folder, api_keys=("two", "one")) as client:
        path = f"{RESPONSES.path}/{response['id']}"
        assert client.get(path, headers=second).status_code == 404
        assert client.get(STATES, headers=second).json()["data"] == []
        client.headers.update(first)
        assert client.get(path).json() == response
        assert client.get(STATES).json()["data"] == [state]
        assert RESPONSES.text(post(client, RESPONSES.path, **more)) == expected
        ask = RESPONSES.ask(said[1:2], state=state["id"])
        assert RESPONSES.text(post(client, RESPONSES.path, **ask)) == expected
        again = post(client, STATES, response_id=response["id"])
        assert again["tokens"] == state["tokens"]
        data = [client.get(f"{STATES}/{each['id']}/content").content for each in (state, again)]
        assert data[0] == data[1]
        # What was said in chats is nothing to write down.
        assert refused(client, STATES, 404, response_id=chat["id"])
        assert client.delete(path).status_code == 200
        client.delete(f"{STATES}/{state['id']}")
    with serve({"pychat": pychat_file}, state_dir=folder, api_keys=("one",)) as client:
        client.headers.update(first)
        assert client.get(path).status_code == 404
        assert [each["id"] for each in client.get(STATES).json()["data"]] == [again["id"]]
        refused(client, RESPONSES.path, 404, **more)
    assert_private(folder)


def test_another_model_under_the_name(pychat_file: Path, pydoc_file: Path, tmp_path: Path) -> None:
    """Nothing of the one is found by the other; each state says whose it is."""
    folder = tmp_path / "states"
    user = [{"role": "user", "content": QUESTION}]
    with serve({"pychat": pychat_file}, state_dir=folder) as client:
        response = post(client, RESPONSES.path, **RESPONSES.ask(user))
        state = post(client, STATES, response_id=response["id"])
    with serve({"pychat": pydoc_file}, state_dir=folder) as client:
        assert cached(post(client, CHAT.path, **CHAT.ask(user))) == 0
        assert client.get(STATES).json()["data"] == [state]
        message = refused(client, CHAT.path, 400, **CHAT.ask(user, state=state["id"]))
        assert "whose fingerprint is" in message and state["fingerprint"] in message
        message = refused(client, STATES, 400, response_id=response["id"])
        assert message.startswith("response_id: expected one of the model pychat, whose finger")


def test_two_models_in_one_folder(pychat_file: Path, pydoc_file: Path, tmp_path: Path) -> None:
    files = {"pychat": pychat_file, "pydoc": pydoc_file}
    asks = [CHAT.ask([SYSTEM, {"role": "user", "content": QUESTION}], model=name) for name in files]
    texts = []
    for _ in range(2):
        with serve(files, state_dir=tmp_path / "states", memory=12_000_000,
                   cache_bytes=1_000_000) as client:  # fmt: skip
            answers = [post(client, CHAT.path, **ask) for ask in asks]
            texts.append([CHAT.text(answer) for answer in answers])
    assert texts[0] == texts[1]
    assert [new(answer) for answer in answers] == [0, 0]


def test_the_disk_budget_is_kept(pychat_file: Path, tmp_path: Path) -> None:
    """States that clients keep count, and are refused when there is no room."""
    folder = tmp_path / "states"
    with serve({"m": pychat_file}, state_dir=folder, state_disk_bytes=1_500_000) as client:
        for i in range(8):
            post(client, "/v1/completions", prompt=f"{i} {SYSTEM['content']}", max_tokens=3)
        state = post(client, STATES, prompt="x")
        codes = {client.post(STATES, json={"prompt": "x"}).status_code for _ in range(8)}
        assert codes == {200, 400}
        post(client, "/v1/completions", prompt=f"{SYSTEM['content']}", max_tokens=3)
    sizes = [path.stat().st_size for path in (folder / "states").iterdir()]
    assert 1_500_000 - state["bytes"] < sum(sizes) <= 1_500_000


def test_a_folder_that_another_server_uses(
    pychat_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    with StateFolder(tmp_path / "states"):
        app = create_app({"m": pychat_file}, Settings(state_dir=tmp_path / "states"))
        with pytest.raises(InvalidArgumentError, match="expected a folder that nobody uses"):
            start(app)
        done = run_cli("rwkv", "serve", pychat_file, "--port", "0", "--state-dir",
                       tmp_path / "states")  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"rwkv: {tmp_path}/states: expected a folder that nobody uses, got one that another "
        "process uses. Try a folder of its own for each process\n"
    )
    with serve({"m": pychat_file}, state_dir=tmp_path / "states") as client:
        post(client, "/v1/completions", prompt="x", max_tokens=1)


def start(app: Any) -> None:
    """Begin and end an application's life."""
    import asyncio

    async def live() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())


@pytest.mark.parametrize("name", ["responses.sqlite", "index.sqlite"])
def test_what_is_no_folder_of_states(pychat_file: Path, tmp_path: Path, name: str) -> None:
    start(create_app({"m": pychat_file}, Settings(state_dir=tmp_path / "states")))
    with sqlite3.connect(tmp_path / "states" / name) as index:
        index.execute("PRAGMA user_version = 99")
    app = create_app({"m": pychat_file}, Settings(state_dir=tmp_path / "states"))
    with pytest.raises(InvalidArgumentError, match="expected version 1 or earlier, got 99"):
        start(app)
    StateFolder(tmp_path / "states" / "other").close()  # nothing holds what was opened
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match="expected a folder for states"):
        start(create_app({"m": pychat_file}, Settings(state_dir=tmp_path / "file")))


# --------------------------------------------------------------------------------------------------
# Disks


def test_a_disk_that_is_full_or_read_only_from_the_beginning(
    pychat_file: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    single: list[str],
) -> None:
    """The server says so once, and goes on without."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rwkv_py.state_folder.StateIndex", full)
    caplog.set_level(logging.INFO, "rwkv_py")
    with serve({"pychat": pychat_file}, state_dir=tmp_path / "states") as client:
        monkeypatch.undo()
        assert [CHAT.text(answer) for answer in talk(client, 2)] == single[:2]
        response = post(client, RESPONSES.path, **RESPONSES.ask([SYSTEM]))
        assert client.get(f"{RESPONSES.path}/{response['id']}").status_code == 200
        post(client, STATES, response_id=response["id"])  # until it ends
    assert caplog.text.count("states cannot be kept: OSError") == 1
    assert str(tmp_path) not in caplog.text
    start(create_app({"m": pychat_file}, Settings(state_dir=tmp_path / "states")))


def test_a_disk_that_fails_later(
    serve: Serve,
    pychat_file: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    single: list[str],
) -> None:
    """Answers go on; what cannot be kept says so, and is whole again with the disk."""
    folder = tmp_path / "states"
    with serve({"pychat": pychat_file}, state_dir=folder) as client:
        context = client.app.state.context  # type: ignore[attr-defined]
        state = post(client, STATES, prompt="Something to remember.")
        (folder / "states").rename(tmp_path / "away")
        (folder / "states").write_text("in the way")
        index = context.responses._index
        context.responses._index = sqlite3.connect(":memory:", check_same_thread=False)
        with caplog.at_level(logging.INFO, "rwkv_py"):
            assert [CHAT.text(answer) for answer in talk(client, 3)] == single
            responses = [post(client, RESPONSES.path, **RESPONSES.ask([SYSTEM])) for _ in range(2)]
            context.states.lasting.flush()
            message = refused(client, STATES, 503, prompt="Something else.")
            assert message == "states: expected a disk that works, got a failure"
            context.states._unwritable._since -= 60
            answer = client.post(STATES, json={"prompt": "Something else."})
            assert 60 <= int(answer.headers["retry-after"]) < 99  # as long as it has lasted
            ask = {"prompt": "x", "state": state["id"]}
            message = refused(client, "/v1/completions", 404, **ask)
            assert message.endswith("got one whose file cannot be read")
            assert client.get(f"{STATES}/{state['id']}/content").status_code == 404
        assert caplog.text.count("states cannot be written") == 1
        assert caplog.text.count("responses cannot be kept") == 1
        assert str(tmp_path) not in caplog.text
        for response in responses:
            assert client.get(f"{RESPONSES.path}/{response['id']}").status_code == 404
        (folder / "states").unlink()
        (tmp_path / "away").rename(folder / "states")
        context.responses._index = index
        post(client, "/v1/completions", **ask)
        post(client, STATES, prompt="Something else.")
        response = post(client, RESPONSES.path, **RESPONSES.ask([SYSTEM]))
        assert client.get(f"{RESPONSES.path}/{response['id']}").status_code == 200


# --------------------------------------------------------------------------------------------------
# Processes


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_by(
    number: signal.Signals, pychat_file: Path, tmp_path: Path, single: list[str]
) -> None:
    """What had been answered is there again: responses and states at once, the rest in time."""
    folder = tmp_path / "states"
    args = (pychat_file, "--alias", "pychat", "--state-dir", folder)
    user = [{"role": "user", "content": QUESTION}]
    with running(*args) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
        assert [CHAT.text(answer) for answer in talk(client, 2)] == single[:2]
        if number == signal.SIGKILL:  # it is written behind
            time.sleep(3)
        response = post(client, RESPONSES.path, **RESPONSES.ask(user))
        state = post(client, STATES, response_id=response["id"])
        process.send_signal(number)
        process.wait(30)
    with running(*args) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
        answers = talk(client, 3)
        assert [CHAT.text(answer) for answer in answers] == single
        for question, answer in zip(QUESTIONS, answers, strict=True):
            assert new(answer) <= len(f"\n\nUser: {question}\n\nAssistant:") + 1
        assert client.get(f"{RESPONSES.path}/{response['id']}").json() == response
        assert client.get(STATES).json()["data"] == [state]
        more = [{"role": "user", "content": "Tell me more."}]
        by_state = post(client, RESPONSES.path, **RESPONSES.ask(more, state=state["id"]))
        ask = RESPONSES.ask(more, previous_response_id=response["id"])
        assert RESPONSES.text(post(client, RESPONSES.path, **ask)) == RESPONSES.text(by_state)


@pytest.mark.slow
def test_killed_at_any_moment(pychat_file: Path, tmp_path: Path) -> None:
    """Nothing that had been answered is lost, and nothing is found by halves."""
    args = (pychat_file, "--alias", "pychat", "--state-dir", tmp_path / "states")
    responses: dict[str, dict[str, Any]] = {}
    states: dict[str, dict[str, Any]] = {}
    for i in range(6):
        with running(*args) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
            for name, response in responses.items():
                assert client.get(f"{RESPONSES.path}/{name}").json() == response
            listed = {
                each["id"]: each for each in client.get(f"{STATES}?limit=1000").json()["data"]
            }
            assert states.items() <= listed.items()
            assert len(listed) - len(states) <= 1  # one may have been kept and not told
            states = listed
            for name in states:
                post(client, "/v1/completions", prompt="x", max_tokens=1, state=name)
            killer = subprocess.Popen(
                ["sh", "-c", f"sleep {0.2 + 0.13 * i}; kill -9 {process.pid}"]
            )
            try:
                for turn in range(1000):
                    said = [{"role": "user", "content": f"{turn} What is number {i}?"}]
                    response = post(client, RESPONSES.path, **RESPONSES.ask(said, **DRAWN))
                    responses[response["id"]] = response
                    state = post(client, STATES, response_id=response["id"])
                    states[state["id"]] = state
            except httpx.TransportError:
                pass
            killer.wait()
            process.wait(30)
    assert len(responses) > 6


def test_settings_of_the_command(pychat_file: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli("rwkv", "serve", pychat_file, "--port", "0", "--state-dir", tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rwkv: {tmp_path}/file: expected a folder for states, got ")
    assert "Traceback" not in done.stderr
