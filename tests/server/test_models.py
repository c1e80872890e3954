"""Several models: loaded when somebody asks, unloaded when nobody does."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from rwkv_py import Model
from server.conversations import ANSWER, PLAIN, QUESTION
from server.serving import Serve, wait_for

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], **PLAIN}


def loaded(client: httpx.Client) -> set[str]:
    models = client.app.state.context.models.loaded  # type: ignore[attr-defined]
    return {model.name for model in models}


def answer(client: httpx.Client, model: str) -> str:
    found = client.post(CHAT, json={**ASK, "model": model})
    assert found.status_code == 200, found.text
    return str(found.json()["choices"][0]["message"]["content"])


def test_loaded_on_demand_and_unloaded_when_idle(serve: Serve, pychat_file: Path) -> None:
    files = {"a": pychat_file, "b": pychat_file}
    with serve(files, idle_seconds=3) as client:  # the machine may be busy
        assert loaded(client) == set()
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["a", "b"]
        assert answer(client, "a") == answer(client, "b") == ANSWER
        assert loaded(client) == {"a", "b"}
        wait_for(lambda: not loaded(client))
        assert answer(client, "a") == ANSWER


def test_one_that_is_used_is_not_unloaded(serve: Serve, pychat_file: Path) -> None:
    with serve({"a": pychat_file, "b": pychat_file}, idle_seconds=0.1) as client:
        ask = {"model": "a", "prompt": "x", "max_tokens": 600, "logit_bias": {"0": -100}, "seed": 1}
        found = client.post("/v1/completions", json=ask)
        assert found.json()["usage"]["completion_tokens"] == 600
        assert found.json()["choices"][0]["finish_reason"] == "length"


def test_within_a_memory(serve: Serve, pychat_file: Path) -> None:
    """There is room for two of three: the one that was used least recently goes."""
    with Model(pychat_file) as model:
        one = model.info.weight_bytes + 4 * model.state_size * 2 + (1 << 20)
    files = dict.fromkeys("abc", pychat_file)
    with serve(files, memory=int(2.9 * one), cache_bytes=1 << 20, max_running=2) as client:
        assert answer(client, "a") == answer(client, "b") == ANSWER
        assert answer(client, "a") == ANSWER
        assert answer(client, "c") == ANSWER
        assert loaded(client) == {"a", "c"}
        # Those that are used stay, and there is no room: that is told, and passes.
        models = client.app.state.context.models  # type: ignore[attr-defined]
        with ThreadPoolExecutor(2) as pool:
            long = {"prompt": "x", "max_tokens": 3000, "logit_bias": {"0": -100}, "seed": 1}
            busy = [
                pool.submit(client.post, "/v1/completions", json={**long, "model": name})
                for name in "ac"
            ]
            wait_for(lambda: [model.engine.n_running for model in models.loaded] == [1, 1])
            refused = client.post(CHAT, json={**ASK, "model": "b"})
            assert refused.status_code == 503
            assert "memory: expected room for" in refused.json()["error"]["message"]
            assert 1 <= int(refused.headers["retry-after"]) < 60  # texts take no longer
            assert all(each.result().status_code == 200 for each in busy)
        assert answer(client, "b") == ANSWER


def test_many_ask_for_one_that_is_not_loaded(serve: Serve, pychat_file: Path) -> None:
    """It is loaded once."""
    with serve({"a": pychat_file, "b": pychat_file}) as client:
        models = client.app.state.context.models  # type: ignore[attr-defined]
        opened: list[Path] = []
        lock = threading.Lock()

        def open_model(path: Path) -> Model:
            with lock:
                opened.append(path)
            time.sleep(0.2)
            return Model(path)

        models._open_model = open_model
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: answer(client, "a"), range(8))) == {ANSWER}
        assert len(opened) == 1


def test_a_file_that_is_no_model(serve: Serve, pychat_file: Path, tmp_path: Path) -> None:
    """The others go on, its path is not told, and once it is mended it is loaded."""
    broken = tmp_path / "broken.bin"
    broken.write_bytes(pychat_file.read_bytes()[:1000])
    with serve({"good": pychat_file, "broken": broken}) as client:
        refused = client.post(CHAT, json={**ASK, "model": "broken"})
        assert refused.status_code == 503
        assert str(tmp_path) not in refused.text
        assert refused.headers["retry-after"] == "1"
        outage = client.app.state.context.models._outages["broken"]  # type: ignore[attr-defined]
        outage._since -= 60
        refused = client.post(CHAT, json={**ASK, "model": "broken"})
        assert 60 <= int(refused.headers["retry-after"]) < 99  # as long as it has lasted
        assert answer(client, "good") == ANSWER
        shutil.copy(pychat_file, broken)
        assert answer(client, "broken") == ANSWER
        assert outage.retry_seconds == 0


def test_models_think_as_they_are_asked_to(serve: Serve, pychat_file: Path) -> None:
    """What a model reasons is told apart, in the form of each protocol; the history drops it."""
    with serve({"m": pychat_file}, chat_format="g1-think") as client:
        # What must fit comes after the reasoning, which must be there then.
        ask = {**ASK, "seed": 1, "max_tokens": 12, "regex": "[a-z]{3}"}
        message = client.post(CHAT, json=ask).json()["choices"][0]["message"]
        assert message["reasoning_content"] and message["content"] == ""
        text = client.post(CHAT, json={**ask, "stream": True}).text
        assert "reasoning_content" in text
        blocks = client.post("/v1/messages", json=ask).json()["content"]
        assert [block["type"] for block in blocks] == ["thinking"]
        wish = {**PLAIN, "input": QUESTION, "max_output_tokens": 12, "regex": "[a-z]{3}"}
        response = client.post("/v1/responses", json=wish).json()
        assert [item["type"] for item in response["output"]] == ["reasoning"]
        assert response["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        for off in ({"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}):
            message = client.post(CHAT, json={**ask, **off}).json()
            found = message["choices"][0]["message"]
            assert len(found["content"]) == 3 and "reasoning_content" not in found
        wish = {**ask, "thinking": {"type": "disabled"}}
        blocks = client.post("/v1/messages", json=wish).json()["content"]
        assert [block["type"] for block in blocks] == ["text"]

        def count(content: str) -> int:
            said = [*ASK["messages"], {"role": "assistant", "content": content},
                    {"role": "user", "content": "Why?"}]  # fmt: skip
            answer = client.post("/v1/messages/count_tokens", json={"messages": said})
            return int(answer.json()["input_tokens"])

        assert count("<think>Long thoughts.</think>\nYes.") == count("Yes.")


def test_what_was_thought_costs_only_its_own_turn(serve: Serve, pychat_file: Path) -> None:
    """The next prompt has no thoughts: it is found up to the question before them."""
    with serve({"m": pychat_file}, chat_format="g1-think") as client:
        said: list[dict[str, str]] = []
        for turn in range(3):
            said.append({"role": "user", "content": f"{QUESTION} {turn}"})
            usage = client.post(CHAT, json={"messages": said, **PLAIN, "max_tokens": 20}).json()[
                "usage"
            ]
            n_new = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
            if turn:
                assert n_new <= len(f" An answer.\n\nUser: {QUESTION} 0\n\nAssistant: <think")
            said.append({"role": "assistant", "content": "An answer."})


def test_codex_reads_the_list(client: httpx.Client) -> None:
    """Its command refuses the whole list if a model lacks one of these: of `ModelInfo` in
    codex-rs/protocol/src/openai_models.rs what has no default."""
    kinds = {
        "slug": str, "display_name": str, "supported_reasoning_levels": list, "shell_type": str,
        "visibility": str, "supported_in_api": bool, "priority": int, "base_instructions": str,
        "supports_reasoning_summaries": bool, "support_verbosity": bool, "truncation_policy": dict,
        "supports_parallel_tool_calls": bool, "experimental_supported_tools": list,
    }  # fmt: skip
    models = client.get("/v1/models").json()["models"]
    assert [model["slug"] for model in models] == ["pychat", "pydoc"]
    for i, model in enumerate(models):
        assert {name: type(model[name]) for name in kinds} == kinds
        assert model["truncation_policy"]["mode"] in ("bytes", "tokens")
        assert 0 < model["truncation_policy"]["limit"] < model["context_window"]
        assert (model["priority"], model["visibility"]) == (i, "list")
        assert model["shell_type"] in (
            "default",
            "local",
            "unified_exec",
            "disabled",
            "shell_command",
        )
        assert model["input_modalities"] == ["text"]  # else it sends images
