"""Checkpoint -> rwkv-convert -> model file -> rwkv -> text, through the commands a user types."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from convert.checkpoint_writers import views, write_pth, write_safetensors
from twin import synth

pytestmark = pytest.mark.slow

RunCli = Callable[..., CompletedProcess[str]]
DTYPES = ["fp32", "fp16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_generate_every_type(dtype: str, converted: Callable[[str], Path], run_cli: RunCli) -> None:
    prompt = "The :mod:`json` module "
    args = ("generate", converted(dtype), "--prompt", prompt, "--max-tokens", "200", "--seed", "1")
    text = run_cli("rwkv", *args, "--temperature", "0.8", "--top-p", "0.9", check=True).stdout
    written = text.removeprefix(prompt)
    # 200 bytes were asked for; an indented table may leave few words among them.
    assert len(written) > 100 and len(written.split()) >= 3, text
    assert sum(c in string.printable for c in written) > 0.95 * len(written), text


@pytest.mark.parametrize("dtype", DTYPES)
def test_info_every_type(dtype: str, converted: Callable[[str], Path], run_cli: RunCli) -> None:
    for command in (("rwkv-convert", "--info"), ("rwkv", "info")):
        assert dtype in run_cli(*command, converted(dtype), check=True).stdout.lower()


def test_initial_state_embedded_or_given(
    tmp_path: Path, examples: Path, converted: Callable[[str], Path], run_cli: RunCli
) -> None:
    """State tuning's `.pth`: put into the model file, or given to each command, it is the same."""
    tensors = synth.time_state(n_layer=6, n_embd=256, head_size=64, std=20.0)
    state = write_pth(tmp_path / "tuned.pth", views(tensors, "bf16"))
    other = write_safetensors(tmp_path / "tuned.safetensors", tensors, "bf16")
    checkpoint = examples / "rwkv7-pydoc-L6-D256.pth"
    tuned, plain = tmp_path / "tuned.bin", converted("q4_0")
    options = ("--dtype", "q4_0", "--time-state", state)
    said = run_cli("rwkv-convert", checkpoint, tuned, *options, check=True).stdout
    assert "begins with the initial state of" in said
    facts = json.loads(run_cli("rwkv", "info", tuned, "--json", check=True).stdout)
    assert facts["has_time_state"] is True
    assert "its own initial state" in run_cli("rwkv", "info", tuned, check=True).stdout
    assert "a blank state" in run_cli("rwkv", "info", plain, check=True).stdout

    prompt = ("--prompt", "The :mod:`json` module ", "--max-tokens", "60", "--seed", "1")
    texts = [
        run_cli("rwkv", "generate", model, *prompt, *given, check=True).stdout
        for model, *given in (
            (tuned,),
            (plain, "--time-state", state),
            (plain, "--time-state", other),
            (plain,),
        )
    ]
    assert texts[0] == texts[1] == texts[2] != texts[3]

    said_to = {"stdin": "Hello\n/reset\nHello\n", "check": True}
    settings = ("--seed", "1", "--max-tokens", "30", "--format", "g1")
    chats = [
        run_cli("rwkv", "chat", model, *settings, *given, **said_to).stdout
        for model, *given in ((tuned,), (plain, "--time-state", state), (plain,))
    ]
    assert chats[0] == chats[1] != chats[2]


def test_initial_state_of_another_model_is_refused(
    tmp_path: Path, converted: Callable[[str], Path], run_cli: RunCli
) -> None:
    state = write_pth(tmp_path / "tuned.pth", views(synth.time_state(), "fp32"))
    for command in (("generate", "-p", "a"), ("chat",)):
        done = run_cli("rwkv", *command, converted("q4_0"), "--time-state", state)
        assert done.returncode == 1
        assert "tuned.pth: expected shape (6, 4, 64, 64)" in done.stderr
        assert "Traceback" not in done.stderr
