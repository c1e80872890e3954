"""The arrows of docs/architecture.md are the code's own: none is missing, none is unused."""

import ast
import re
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

Arrows = dict[str, set[str]]
"""What each part uses."""

EVERYTHING = "everything"
"""Stands for all parts, where the document says what each may use."""


def python_imports(folder: Path) -> Arrows:
    """Which modules of a package import which others; a subpackage is one part."""
    parts = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    found: Arrows = {part: set() for part in parts}
    for path in folder.rglob("*.py"):
        inside = path.relative_to(folder).parts
        part = inside[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # As many dots as lead from the file to the package itself.
            if not isinstance(node, ast.ImportFrom) or node.level != len(inside):
                continue
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            found[part].update(name for name in names if name in parts and name != part)
    return found


def native_includes(folder: Path) -> Arrows:
    """Which files include which others of the project; a name's header and source are one part."""
    found: Arrows = {}
    for path in folder.rglob("*.*"):
        names = re.findall(r'^#include "(?:\w+/)?(\w+)\.h"', path.read_text("utf-8"), re.M)
        found.setdefault(path.stem, set()).update(set(names) - {path.stem, "rwkv"})
    return found


# The words that introduce a block of arrows in the document, the folder, and what reads the arrows
# of the code in it.
PARTS: dict[str, tuple[str, Callable[[Path], Arrows]]] = {
    "Inside `native/src`": ("native/src", native_includes),
    "Inside `rwkv_py`": ("packages/rwkv-py/src/rwkv_py", python_imports),
    "Inside `rwkv_convert`": ("packages/rwkv-convert/src/rwkv_convert", python_imports),
}


def documented(text: str, introduction: str) -> Arrows:
    """The arrows that follow a paragraph which begins with the introduction, up to a table."""
    match = re.search(rf"^{re.escape(introduction)}.*?\n\n(.*?)(?=^\||\Z)", text, re.M | re.S)
    assert match is not None, f"docs/architecture.md: no arrows after {introduction!r}"
    arrows: Arrows = {}
    for line in re.findall(r"^    (.* -> .*)$", match[1], re.M):
        # An arrow may lead on: a -> b -> c.
        *froms, last = (group.strip() for group in line.split("->"))
        groups = [[name.strip() for name in group.split(",")] for group in (*froms, last)]
        for users, used in pairwise(groups):
            for user in users:
                arrows.setdefault(user, set()).update(used)
    return arrows


def problems(documented: Arrows, found: Arrows) -> list[str]:
    """What is in one and not in the other, and circles."""
    by_all = documented.get(EVERYTHING, set())
    listed = {user: used for user, used in documented.items() if user != EVERYTHING}
    result = [
        f"{user} -> {name}: in the code, not in docs/architecture.md"
        for user, used in found.items()
        for name in sorted(used - listed.get(user, set()) - by_all)
    ]
    result += [
        f"{user} -> {name}: in docs/architecture.md, not in the code"
        for user, used in listed.items()
        for name in sorted(used - found.get(user, set()))
    ]
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        result.append(f"a circle: {' <- '.join(error.args[1])}")
    return result


# What tells one system from another: its macros and its headers.
OF_A_SYSTEM = re.compile(
    r"\b(?:__linux__|__APPLE__|__unix__|_WIN32|_WIN64|__MINGW\w+|_MSC_VER)\b"
    r"|#include <(?:sys/\w+|unistd|fcntl|sched|pthread|dirent|dlfcn|signal|windows|io|process)\.h>"
)
# What is GCC's and Clang's; kernels are made of it otherwise, too.
OF_A_COMPILER = re.compile(
    r"__attribute__|__declspec|_Pragma|#pragma (?!once)|__builtin_\w*overflow"
)


def that_know(folder: Path, told_by: re.Pattern[str]) -> set[str]:
    """The files that say something of this kind."""
    return {p.name for p in folder.rglob("*.*") if told_by.search(p.read_text(encoding="utf-8"))}


def without_a_row(text: str, parts: Iterable[str]) -> list[str]:
    """Parts that no table of the document says anything about."""
    cells = "\n".join(re.findall(r"^\|([^|]*)\|", text, re.M))
    named = {name.removesuffix(".py").rstrip("/") for name in re.findall(r"`([^`]+)`", cells)}
    return sorted(part for part in parts if part not in named)


@pytest.fixture(scope="module")
def architecture(repo: Path) -> str:
    return (repo / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("introduction", PARTS)
def test_arrows_are_true(repo: Path, architecture: str, introduction: str) -> None:
    folder, read = PARTS[introduction]
    found = read(repo / folder)
    assert len(found) > 3
    assert problems(documented(architecture, introduction), found) == []


@pytest.mark.parametrize("introduction", PARTS)
def test_every_part_has_a_row(repo: Path, architecture: str, introduction: str) -> None:
    folder, read = PARTS[introduction]
    assert without_a_row(architecture, set(read(repo / folder)) - {"__init__"}) == []


def test_one_place_knows_the_system_and_one_the_compiler(repo: Path) -> None:
    source = repo / "native" / "src"
    systems = {"os_posix.cpp", "os_linux.cpp", "os_macos.cpp", "os_windows.cpp"}
    # The assembler's directives are those of the system's object files.
    assert that_know(source, OF_A_SYSTEM) == {*systems, "world_vocabulary.c"}
    assert that_know(source, OF_A_COMPILER) == {"compiler.h"}


def test_what_the_test_finds(tmp_path: Path) -> None:
    """A package with a fault of every kind."""
    (tmp_path / "sub").mkdir()
    for name, code in {
        "__init__.py": "",
        "a.py": "from .b import x\nfrom . import c\nimport os\nfrom .errors import E\n",
        "b.py": "def f():\n    from .a import y\n",
        "c.py": "from typing import Any\n",
        "errors.py": "",
        "sub/__init__.py": "from .part import z\n",
        "sub/part.py": "from ..c import w\n",
    }.items():
        (tmp_path / name).write_text(code)
    block = "    a -> b, d\n    everything -> errors\n    sub -> c\n"
    text = f"Inside it,\nthese:\n\n{block}\nMore. `a`\n"
    found = python_imports(tmp_path)
    assert found["a"] == {"b", "c", "errors"} and found["sub"] == {"c"}
    *told, circle = problems(documented(text, "Inside it"), found)
    assert sorted(told) == [
        "a -> c: in the code, not in docs/architecture.md",
        "a -> d: in docs/architecture.md, not in the code",
        "b -> a: in the code, not in docs/architecture.md",
    ]
    assert circle in ("a circle: a <- b <- a", "a circle: b <- a <- b")
    assert without_a_row("| file |\n|---|\n| `a`, `b` | x `c` |\n", ["a", "b", "c"]) == ["c"]
