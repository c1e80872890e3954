"""The first thing a newcomer sees."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

RunCli = Callable[..., CompletedProcess[str]]


def looks_like_documentation(text: str) -> bool:
    """Printable text of many words, with reStructuredText's markup in it."""
    printable = sum(c in string.printable for c in text) / len(text)
    return printable > 0.98 and len(text.split()) > 40 and ("``" in text or ":`" in text)


def test_demo(examples: Path, run_cli: RunCli) -> None:
    output = run_cli(sys.executable, examples / "demo.py", check=True).stdout
    command, _, text = output.partition("rwkv_py.Session writes:")
    assert "rwkv-convert" in command
    text = text.partition("The model is in ")[0].strip()
    assert text.startswith(".. function:: ")
    assert looks_like_documentation(text), text


def test_demo_same_seed_same_text(examples: Path, run_cli: RunCli) -> None:
    def demo(seed: str) -> str:
        demo = examples / "demo.py"
        args = ("--seed", seed, "--max-tokens", "60")
        return run_cli(sys.executable, demo, *args, check=True).stdout

    assert demo("5") == demo("5")
    assert demo("5") != demo("6")
