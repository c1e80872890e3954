"""What README.md tells a reader to type does what it says.

The two `hatch` commands of its first block are run by `.ci/run`, in a clean clone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def code_blocks(repo: Path, language: str) -> list[str]:
    readme = (repo / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", readme, re.M | re.S)


@pytest.fixture
def folder(examples: Path, tmp_path: Path) -> Path:
    """A folder in which README.md's commands are typed, as in the checkout."""
    (tmp_path / "examples").symlink_to(examples)
    return tmp_path


def test_readme_first_block_is_the_two_commands(repo: Path) -> None:
    lines = code_blocks(repo, "sh")[0].splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("hatch run demo")
    assert lines[1].endswith("hatch run test")


def test_readme_examples(repo: Path, folder: Path) -> None:
    """The shell blocks after the first, then the Python blocks, in one folder and in order."""
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]])}
    shell = [block for block in code_blocks(repo, "sh")[1:] if "pip install" not in block]
    python = code_blocks(repo, "python")
    assert shell
    assert python
    for command in [
        *(["bash", "-euo", "pipefail", "-c", block] for block in shell),
        *([sys.executable, "-c", block] for block in python),
    ]:
        done = subprocess.run(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=240
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout!r}\n{done.stderr.decode()}"
        assert done.stdout


def markdown_files() -> list[Path]:
    root = Path(__file__).resolve().parents[2]
    return [
        *root.glob("*.md"),
        *(root / "docs").rglob("*.md"),
        *(root / "examples").glob("*.md"),
        *(root / "packages").glob("*/*.md"),
    ]


@pytest.mark.parametrize("page", markdown_files(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    relative = [link for link in links if "://" not in link]
    broken = [link for link in relative if not (page.parent / link).exists()]
    assert not broken
