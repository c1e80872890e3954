"""Programs that people use: LangChain, LiteLLM and lm-eval against the server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from rwkv_py import Model, evaluate
from server.conversations import ANSWER, LOOK_UP, PERSON, PLAIN, QUESTION
from server.serving import serve

langchain_openai = pytest.importorskip(
    "langchain_openai", reason="only in `hatch run clients:test`"
)
litellm = pytest.importorskip("litellm", reason="only in `hatch run clients:test`")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, converted: Any) -> Iterator[httpx.Client]:
    files = {"pychat": converted("q8_0", "pychat"), "pydoc": converted("q4_0")}
    with serve(files) as client:
        yield client


@pytest.fixture
def base_url(client: httpx.Client) -> str:
    return f"{client.base_url}/v1"


def test_langchain(base_url: str) -> None:
    plain = {"temperature": 0, "presence_penalty": 0, "frequency_penalty": 0}
    chat = langchain_openai.ChatOpenAI(base_url=base_url, api_key="none", model="pychat", **plain)
    assert chat.invoke(QUESTION).content == ANSWER
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == ANSWER
    lively = langchain_openai.ChatOpenAI(
        base_url=base_url, api_key="none", model="pychat", seed=3, max_tokens=300
    )
    tool = {"type": "function", "function": LOOK_UP}
    bound = lively.bind_tools([tool], tool_choice="look_up", parallel_tool_calls=False)
    (call,) = bound.invoke(QUESTION).tool_calls
    assert call["name"] == "look_up"
    jsonschema.validate(call["args"], LOOK_UP["parameters"])
    structured = lively.with_structured_output({"title": "person", **PERSON}, method="json_schema")
    jsonschema.validate(structured.invoke("Who is it?"), PERSON)
    vectors = langchain_openai.OpenAIEmbeddings(
        base_url=base_url, api_key="none", model="pychat", check_embedding_ctx_length=False
    )
    assert [len(vector) for vector in vectors.embed_documents(["json", "re"])] == [256, 256]


def test_litellm(base_url: str) -> None:
    common = {"model": "openai/pychat", "api_base": base_url, "api_key": "none"}
    said = [{"role": "user", "content": QUESTION}]
    answer = litellm.completion(messages=said, **common, **PLAIN)
    assert answer.choices[0].message.content == ANSWER
    stream = litellm.completion(messages=said, stream=True, **common, **PLAIN)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWER
    tools = [{"type": "function", "function": LOOK_UP}]
    answer = litellm.completion(
        messages=said, tools=tools, tool_choice="required", seed=3, max_tokens=300, **common
    )
    call = answer.choices[0].message.tool_calls[0]
    jsonschema.validate(json.loads(call.function.arguments), LOOK_UP["parameters"])
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = litellm.completion(messages=said, response_format=form, seed=1, **common)
    jsonschema.validate(json.loads(answer.choices[0].message.content), PERSON)
    found = litellm.embedding(input=["json"], encoding_format="float", **common)
    assert len(found.data[0]["embedding"]) == 256
    answer = litellm.responses(input=QUESTION, **common, extra_body=PLAIN)
    assert answer.output_text == ANSWER


def test_lm_eval_gives_our_perplexity(
    client: httpx.Client, base_url: str, converted: Any, examples: Path, tmp_path: Path
) -> None:
    """The words that a passage ends with, scored by lm-eval over HTTP and by `rwkv lambada`.

    `lambada` reads token 0 before a passage, as RWKV's own programs do; lm-eval adds no token.
    """
    text = (examples / "heldout_a.txt").read_text()
    lines = [line.strip() for line in text.splitlines()]
    passages = [line for line in lines if re.fullmatch(r".{40,80} \w+", line)][:20]
    data = tmp_path / "passages.jsonl"
    data.write_text("".join(json.dumps({"text": "\0" + passage}) + "\n" for passage in passages))
    (tmp_path / "task.yaml").write_text(
        f"""task: passages
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' '+text.split(' ')[-1]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
    )
    arguments = (
        f"base_url={base_url}/completions,model=pydoc,tokenizer_backend=remote,"
        "tokenized_requests=True,num_concurrent=4"
    )
    command = [
        str(Path(sys.executable).parent / "lm_eval"), "--model", "local-completions",
        "--model_args", arguments, "--tasks", "passages", "--include_path", str(tmp_path),
        "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results*.json")
    found = json.loads(file.read_text())["results"]["passages"]
    ours = evaluate.lambada(Model(converted("q4_0")), passages)
    assert found["acc,none"] == pytest.approx(ours.accuracy)
    assert found["perplexity,none"] == pytest.approx(ours.perplexity, rel=1e-2)
