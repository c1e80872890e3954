"""`release/check_versions.py`: every kind of disagreement is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from release.conftest import Script

FILES = [
    "CHANGELOG.md",
    "native/CMakeLists.txt",
    "native/include/rwkv/rwkv.h",
    "packages/rwkv-convert/pyproject.toml",
    "packages/rwkv-py/CMakeLists.txt",
    "packages/rwkv-py/pyproject.toml",
    "packages/rwkv-runtime/pyproject.toml",
]


@pytest.fixture
def check(script: Script) -> ModuleType:
    return script("check_versions")


@pytest.fixture
def checkout(repo: Path, tmp_path: Path) -> Path:
    """What is checked, as a copy that agrees: every package at 0.1.0."""
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repo / file, tmp_path / file)
    return tmp_path


def test_the_checkout_agrees(check: ModuleType, repo: Path) -> None:
    assert list(check.disagreements(check.Sources(repo))) == []


HEADER = "native/include/rwkv/rwkv.h"
PY = "packages/rwkv-py/pyproject.toml"


@pytest.mark.parametrize(
    ("file", "pattern", "instead", "words"),
    [
        (HEADER, r"(VERSION_MAJOR) \d+", r"\1 7", "RWKV_VERSION_MAJOR, .*, got 7"),
        (HEADER, r"(VERSION_MINOR) \d+", r"\1 77", "RWKV_VERSION_MINOR, .*, got 77"),
        (HEADER, r"(VERSION_PATCH) \d+", r"\1 99", "RWKV_VERSION_PATCH, .*, got 99"),
        (HEADER, r'(VERSION_STRING) ".+"', r'\1 "9"', 'RWKV_VERSION_STRING, .*, got "9"'),
        (HEADER, r"#define RWKV_VERSION_STRING.*", "", "RWKV_VERSION_STRING, .*, got nothing"),
        (HEADER, r"(ABI_VERSION) \d+", r"\1 99", "the list, as RWKV_ABI_VERSION: expected 99"),
        (
            HEADER,
            r"(Grows when .*\n \* +)\d+",
            r"\g<1>98",
            "the newest ABI of the list, .*, got 98",
        ),
        ("CHANGELOG.md", r"ABI is version \d+", "ABI is version 97", "'ABI is version', .* got 97"),
        ("CHANGELOG.md", r"## \[Unreleased\]", "## Soon", r"expected a section \[Unreleased\]"),
        ("native/CMakeLists.txt", r"(rwkv VERSION) \S+", r"\1 9.9.9", "VERSION, .* got 9.9.9"),
        ("packages/rwkv-py/CMakeLists.txt", r"(rwkv) \d\.\d+", r"\1 9.9", "find_package.* got 9.9"),
        ("packages/rwkv-runtime/pyproject.toml", r"(version =) .*", r'\1 "9.9.9"', '"9.9.9", got'),
        ("packages/rwkv-runtime/pyproject.toml", r"(version =) .*", r'\1 "9"', "X.Y.Z, got 9"),
        ("packages/rwkv-convert/pyproject.toml", r"(version =) .*", r'\1 "9.9.9"', ">=9.9, got"),
        (PY, r"(version =) .*", r'\1 "9.9.9"', "as rwkv-runtime's, got 9.9.9"),
        (PY, r'"rwkv-runtime>=[^"]*", "typer', '"rwkv-runtime>=9", "typer', "range: .*, got >=9"),
        (PY, r'(build.requires = ..rwkv-runtime)[^"]*', r"\1>=8", "range: expected .*, got >=8"),
        (PY, r'(states = ..rwkv-convert)[^"]*', r"\1>=7", "rwkv-convert's range: .*, got >=7"),
    ],
)
def test_disagreement_is_refused(
    check: ModuleType, checkout: Path, file: str, pattern: str, instead: str, words: str
) -> None:
    path = checkout / file
    text, n = re.subn(pattern, instead, path.read_text(encoding="utf-8"), count=1)
    assert n == 1
    path.write_text(text, encoding="utf-8")
    found = list(check.disagreements(check.Sources(checkout)))
    assert any(re.search(words, sentence) for sentence in found), found


CHANGELOG = """\
## [Unreleased]

### Added

- convert: something new.

## [0.1.0]

- py: all; the ABI is version 4.
"""


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("rwkv-py-v0.1.0", None),
        ("rwkv-runtime-v0.1.0", None),
        (
            "rwkv-convert-v0.1.0",
            r"in section \[0\.1\.0\], got it in \[Unreleased\]: 'convert: some",
        ),
        ("rwkv-py-v0.2.0", r"expected rwkv-py's version 0\.1\.0, got 0\.2\.0"),
        ("rwkv-py-v0.2.0", r"expected a section \[0\.2\.0\]"),
        ("v0.1.0", "expected a tag PACKAGE-vX.Y.Z"),
        ("rwkv-v0.1.0", "expected a tag PACKAGE-vX.Y.Z"),
    ],
)
def test_tag(check: ModuleType, checkout: Path, tag: str, words: str | None) -> None:
    (checkout / "CHANGELOG.md").write_text(CHANGELOG)
    found = list(check.reasons_against(check.Sources(checkout), tag))
    if words is None:
        assert found == []
    else:
        assert any(re.search(words, sentence) for sentence in found), found


def test_command_says_all_and_fails(
    check: ModuleType,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "ROOT", checkout)
    assert check.main([]) == 0
    assert check.main(["rwkv-py-v9.9.9"]) == 1
    assert "got 9.9.9" in capsys.readouterr().err
