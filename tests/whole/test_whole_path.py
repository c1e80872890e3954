"""Checkpoint -> rwkv-convert -> model file -> rwkv -> text, through the commands a user types."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

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
