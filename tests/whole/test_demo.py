"""The first thing a newcomer sees."""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

RunCli = Callable[..., CompletedProcess[str]]


def looks_like_documentation(text: str, documentation: str) -> bool:
    """Printable text in indented paragraphs, most of whose words stand in real documentation."""
    printable = sum(c in string.printable for c in text) / len(text)
    words = re.findall(r"[a-z]{3,}", text.lower())
    real = set(re.findall(r"[a-z]{3,}", documentation.lower()))
    known = sum(word in real for word in words) / len(words)
    return printable > 0.98 and len(words) > 40 and known > 0.6 and "\n   " in text


def test_demo(examples: Path, run_cli: RunCli) -> None:
    output = run_cli(sys.executable, examples / "demo.py", check=True).stdout
    command, _, text = output.partition("rwkv_py.Session writes:")
    assert "rwkv-convert" in command
    text, _, answered = text.partition("rwkv_py.Chat answers:")
    text = text.strip()
    assert text.startswith(".. function:: ")
    documentation = (examples / "heldout_a.txt").read_text(encoding="utf-8")
    assert looks_like_documentation(text, documentation), text
    # The yardstick can tell: the same letters in another order fail.
    assert not looks_like_documentation(text[::-1], documentation)
    # What the documentation of json begins with.
    assert "Assistant: The module json: Encode and decode the JSON format.\n" in answered


@pytest.mark.slow
def test_demo_same_seed_same_text(examples: Path, run_cli: RunCli) -> None:
    def demo(seed: str) -> str:
        demo = examples / "demo.py"
        args = ("--seed", seed, "--max-tokens", "60")
        output = run_cli(sys.executable, demo, *args, check=True).stdout
        return output.partition("rwkv_py.Session writes:")[2].partition("rwkv_py.Chat")[0]

    assert demo("5") == demo("5")
    assert demo("5") != demo("6")
