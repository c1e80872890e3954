"""Do versions, changelog and ABI numbers belong together? `hatch run release:check [TAG]`.

With a tag, such as rwkv-runtime-v0.1.0, also whether that may be released. Prints every
disagreement; the exit code is 1 if there is one.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The areas by which lines of the changelog begin that tell what changed in a package.
AREAS = {
    "rwkv-convert": ("convert",),
    "rwkv-runtime": ("runtime", "kernels"),
    "rwkv-py": ("py",),
}


class Sources:
    """The files of a checkout that say versions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.projects = {package: self._project(package) for package in AREAS}
        self.versions = {
            package: str(self.projects[package]["project"]["version"]) for package in AREAS
        }
        self.changelog = self.text("CHANGELOG.md")

    def text(self, path: str) -> str:
        """A file's text."""
        return (self.root / path).read_text(encoding="utf-8")

    def _project(self, package: str) -> dict[str, Any]:
        return tomllib.loads(self.text(f"packages/{package}/pyproject.toml"))

    def said(self, path: str, pattern: str) -> str:
        """What the one group of `pattern` is in a file; empty if there is nothing like it."""
        match = re.search(pattern, self.text(path), re.MULTILINE)
        return match[1] if match else ""

    def section(self, title: str) -> str | None:
        """The changelog's section of that title."""
        parts = re.split(r"^## \[(.+?)\].*$", self.changelog, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True)).get(title)

    def needs(self, package: str) -> Iterator[tuple[str, str]]:
        """What a pyproject.toml asks of our packages, to run and to build: (name, range)."""
        file = self.projects[package]
        extras = file["project"].get("optional-dependencies", {}).values()
        overrides = file.get("tool", {}).get("scikit-build", {}).get("overrides", [])
        builds = (override.get("build", {}).get("requires", []) for override in overrides)
        for asked in [file["project"].get("dependencies", []), *extras, *builds]:
            for need in asked:
                if match := re.match(r"(rwkv-[a-z]+)(?:\[\w+\])?(.*)", need):
                    yield match[1], match[2]


def parts(version: str) -> tuple[int, int, int]:
    """The numbers of X.Y.Z; raises ValueError for anything else."""
    major, minor, patch = (int(part) for part in version.split("."))
    return major, minor, patch


def disagreements(sources: Sources) -> Iterator[str]:
    """Every pair of places that do not belong together, as a sentence."""

    def differs(where: str, expected: str, got: str) -> Iterator[str]:
        if got != expected:
            yield f"{where}: expected {expected}, got {got or 'nothing'}"

    for package, version in sources.versions.items():
        try:
            parts(version)
        except ValueError:
            yield f"packages/{package}/pyproject.toml: version, expected X.Y.Z, got {version}"
            return
    runtime = sources.versions["rwkv-runtime"]
    major, minor, patch = parts(runtime)
    header = "native/include/rwkv/rwkv.h"
    for name, value in [
        ("VERSION_MAJOR", str(major)),
        ("VERSION_MINOR", str(minor)),
        ("VERSION_PATCH", str(patch)),
        ("VERSION_STRING", f'"{runtime}"'),
    ]:
        got = sources.said(header, rf"^#define RWKV_{name} (.+)$")
        yield from differs(f"{header}: RWKV_{name}, as rwkv-runtime's version", value, got)
    got = sources.said("native/CMakeLists.txt", r"^project\(rwkv VERSION (\S+)")
    yield from differs("native/CMakeLists.txt: project's VERSION, as rwkv-runtime's", runtime, got)

    # The library has no stable ABI before 1.0: minor versions of rwkv-py belong to the same of it.
    yield from differs(
        "packages/rwkv-py/CMakeLists.txt: find_package(rwkv), as rwkv-runtime's version",
        f"{major}.{minor}",
        sources.said("packages/rwkv-py/CMakeLists.txt", r"^find_package\(rwkv (\S+)"),
    )
    ranges = {
        "rwkv-py": "",  # an extra of it that has another one's needs, too
        "rwkv-runtime": f">={major}.{minor},<{major}.{minor + 1}",
        "rwkv-convert": ">=" + sources.versions["rwkv-convert"].rpartition(".")[0],
    }
    for name, asked in sources.needs("rwkv-py"):
        if asked != ranges[name]:
            yield (
                f"packages/rwkv-py/pyproject.toml: {name}'s range: expected "
                f"{ranges[name] or 'none'}, got {asked or 'none'}"
            )
    if parts(sources.versions["rwkv-py"])[:2] != (major, minor):
        yield (
            f"packages/rwkv-py/pyproject.toml: version, expected {major}.{minor}.* as "
            f"rwkv-runtime's, got {sources.versions['rwkv-py']}"
        )

    abi = sources.said(header, r"^#define RWKV_ABI_VERSION (\d+)$")
    listed = sources.said(header, r"^/\* Grows when .*\n \* +(\d+) ")
    yield from differs(f"{header}: the newest ABI of the list, as RWKV_ABI_VERSION", abi, listed)
    told = sources.said("CHANGELOG.md", r"\bABI is version\s+(\d+)")
    yield from differs("CHANGELOG.md: the newest 'ABI is version', as RWKV_ABI_VERSION", abi, told)

    if sources.section("Unreleased") is None:
        yield "CHANGELOG.md: expected a section [Unreleased], got none"


def reasons_against(sources: Sources, tag: str) -> Iterator[str]:
    """Why a tag may not be released, beyond the disagreements."""
    package, _, version = tag.rpartition("-v")
    if package not in AREAS:
        yield f"{tag}: expected a tag PACKAGE-vX.Y.Z of {', '.join(AREAS)}"
        return
    if version != sources.versions[package]:
        yield f"{tag}: expected {package}'s version {sources.versions[package]}, got {version}"
    if sources.section(version) is None:
        yield f"CHANGELOG.md: expected a section [{version}] for {tag}, got none"
    lines = re.findall(r"^- (\w+): (.*)$", sources.section("Unreleased") or "", re.MULTILINE)
    for area, line in lines:
        if area in AREAS[package]:
            yield (
                f"CHANGELOG.md: expected what {tag} brings in section [{version}], got it in "
                f"[Unreleased]: '{area}: {line}'"
            )
            return


def main(arguments: list[str]) -> int:
    """Prints what is wrong; returns the exit code."""
    sources = Sources(ROOT)
    wrong = list(disagreements(sources))
    for tag in arguments:
        wrong += reasons_against(sources, tag)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
