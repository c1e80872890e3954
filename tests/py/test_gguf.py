"""GGUF files, from the converter to text, beside ggmf files; and what a file says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rwkv_convert
from prompts import PROMPT
from rwkv_py import Model, ModelFileError, Session, Tokenizer


@pytest.fixture(scope="module")
def checkpoint(examples: Path) -> Path:
    return examples / "rwkv7-pydoc-L6-D256.pth"


def converted_to(name: str, dtype: str, checkpoint: Path, folder: Path) -> Path:
    path = folder / name
    rwkv_convert.convert(checkpoint, path, dtype=dtype)
    return path


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_logits_are_those_of_a_ggmf_file(dtype: str, checkpoint: Path, tmp_path: Path) -> None:
    """One order of sums, one set of weights: not a bit differs."""
    ours, theirs = (
        Session(converted_to(name, dtype, checkpoint, tmp_path)).feed(PROMPT)
        for name in ("model.bin", "model.gguf")
    )
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [
        ("q8_0", 0.02),
        ("q6_K", 0.03),
        ("q5_K", 0.06),
        ("q4_K_M", 0.1),
        ("q4_K", 0.12),
        ("iq4_nl", 0.15),
        ("q4_0", 0.2),
    ],
)
def test_types_are_near_fp32(dtype: str, largest: float, checkpoint: Path, tmp_path: Path) -> None:
    """Root mean square of the difference of logits, as a share of their own."""
    exact = Session(converted_to("fp32.gguf", "fp32", checkpoint, tmp_path)).feed(PROMPT)
    session = Session(converted_to("model.gguf", dtype, checkpoint, tmp_path))
    got = session.feed(PROMPT)
    share = np.sqrt(np.mean((got - exact) ** 2) / np.mean((exact - exact.mean()) ** 2))
    assert 0 < share < largest
    info = session.model.info
    assert info.container == "gguf"
    assert info.weight_bytes < 1.05 * info.file_bytes + 64e6


def test_bf16_keeps_a_checkpoint_in_bf16(checkpoint: Path, tmp_path: Path) -> None:
    exact = Session(converted_to("fp32.gguf", "fp32", checkpoint, tmp_path)).feed(PROMPT)
    session = Session(converted_to("model.gguf", "bf16", checkpoint, tmp_path))
    assert np.abs(session.feed(PROMPT) - exact).max() < 1e-4
    assert session.model.info.file_bytes < 11.5e6


@pytest.mark.parametrize("dtype", ["q4_K", "q6_K", "bf16"])
def test_threads_and_cuts_change_nothing(dtype: str, checkpoint: Path, tmp_path: Path) -> None:
    path = converted_to("model.gguf", dtype, checkpoint, tmp_path)
    tokens = list(PROMPT.encode() * 14)  # longer than a piece
    expected = Session(path, threads=1).feed(tokens)
    for threads in (2, 3):
        session = Session(path, threads=threads)
        session.feed(tokens[:31])
        for at in range(31, len(tokens) - 1, 97):
            session.feed(tokens[at : min(at + 97, len(tokens) - 1)])
        assert np.array_equal(session.feed(tokens[-1:]), expected)


def test_what_the_file_says(checkpoint: Path, tmp_path: Path) -> None:
    model = Model(converted_to("model.gguf", "q4_0", checkpoint, tmp_path))
    info = model.info
    assert (info.version, info.container, info.end_of_text) == ("7", "gguf", 0)
    assert info.name
    assert info.has_tokenizer
    assert model.tokenizer is not None
    assert model.tokenizer.encode("né") == list("né".encode())
    assert model.tokenizer.decode(model.tokenizer.encode(PROMPT)) == PROMPT
    text = Session(model).generate(PROMPT, max_tokens=12, temperature=0)
    bytewise = Session(model, tokenizer="bytes").generate(PROMPT, max_tokens=12, temperature=0)
    assert text == bytewise != ""
    plain = Model(converted_to("model.bin", "q4_0", checkpoint, tmp_path))
    assert (plain.info.name, plain.info.end_of_text, plain.info.has_tokenizer) == ("", None, False)
    assert plain.tokenizer is Tokenizer.bytewise()


def test_command(checkpoint: Path, tmp_path: Path) -> None:
    path = converted_to("model.gguf", "q4_K_M", checkpoint, tmp_path)

    def rwkv(*arguments: str) -> str:
        command = [sys.executable, "-m", "rwkv_py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    facts = json.loads(rwkv("info", str(path), "--json"))
    assert facts["container"] == "gguf"
    assert "in the file" in rwkv("info", str(path))
    assert rwkv("generate", str(path), PROMPT, "-n", "5", "--temperature", "0").strip()


def test_refused(tmp_path: Path, checkpoint: Path) -> None:
    data = converted_to("model.gguf", "q4_0", checkpoint, tmp_path).read_bytes()
    path = tmp_path / "bad.gguf"
    path.write_bytes(data.replace(b"rwkv7", b"llama"))
    with pytest.raises(ModelFileError, match=r"bad\.gguf: architecture, expected rwkv6 or rwkv7"):
        Model(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelFileError, match=r"bad\.gguf: truncated at tensor '") as caught:
        Model(path)
    assert caught.value.tensor is not None
