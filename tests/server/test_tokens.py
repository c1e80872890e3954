"""Text and tokens over HTTP, as lm-eval asks for them."""

from __future__ import annotations

from pathlib import Path

import httpx

from rwkv_py import Tokenizer
from server.serving import Serve
from twin import ggmf, synth


def test_bytes(client: httpx.Client) -> None:
    info = client.get("/tokenizer_info", params={"model": "pydoc"}).json()
    assert info["vocab_size"] == 256
    ask = {"model": "pydoc", "prompt": "né", "add_special_tokens": False}
    found = client.post("/tokenize", json={**ask, "return_token_strs": True}).json()
    assert found["tokens"] == list("né".encode())
    assert found["count"] == 3
    assert found["token_strs"] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    back = client.post("/detokenize", json={"model": "pydoc", "tokens": found["tokens"]})
    assert back.json() == {"prompt": "né"}
    end = client.post("/tokenize", json={"model": "pydoc", "prompt": info["eos_token"]}).json()
    assert end["tokens"] == [0]
    assert client.post("/tokenize", json={"model": "pydoc", "prompt": ""}).json()["tokens"] == []


def test_the_first_model_if_none_is_named(client: httpx.Client) -> None:
    """lm-eval's remote tokenizer names none."""
    assert client.get("/tokenizer_info").status_code == 200
    assert client.post("/tokenize", json={"prompt": "ab"}).json()["tokens"] == [97, 98]
    assert client.post("/detokenize", json={"tokens": [97]}).json() == {"prompt": "a"}


def test_a_conversation(client: httpx.Client) -> None:
    said = [{"role": "user", "content": "Hi"}]
    found = client.post("/tokenize", json={"model": "pychat", "messages": said}).json()
    assert bytes(found["tokens"]) == b"User: Hi\n\nAssistant:"


def test_world(serve: Serve, tmp_path: Path) -> None:
    """The end of a document has no text here: as a whole prompt a name stands for it."""
    path = tmp_path / "world.bin"
    checkpoint = synth.checkpoint("7", n_layer=1, n_embd=64, n_vocab=65536)
    ggmf.write(path, ggmf.convert_reference(checkpoint))
    with serve({"m": path}) as client:
        info = client.get("/tokenizer_info").json()
        assert (info["vocab_size"], info["eos_token"]) == (65536, "<|endoftext|>")
        tokens = Tokenizer.world().encode("Hello, 世界!")
        assert client.post("/tokenize", json={"prompt": "Hello, 世界!"}).json()["tokens"] == tokens
        assert client.post("/tokenize", json={"prompt": info["eos_token"]}).json()["tokens"] == [0]
        within = client.post("/tokenize", json={"prompt": f"a{info['eos_token']}"}).json()["tokens"]
        assert within == Tokenizer.world().encode("a<|endoftext|>")
        back = client.post("/detokenize", json={"tokens": [*tokens, 0]}).json()
        assert back == {"prompt": "Hello, 世界!<|endoftext|>"}
        assert client.post("/detokenize", json={"tokens": [70000]}).status_code == 400
        assert client.post("/detokenize", json={"tokens": [2**40]}).status_code == 400
        found = client.post("/v1/completions", json={"prompt": "Hi", "logprobs": 1, "echo": True})
        assert found.status_code == 200
