"""Every code block of the home page and the guides, run as a reader would, a folder for each page.

The folder holds `examples/`, the shipped checkpoint as `model.pth`, an initial state for it, and
`model.bin`, unless the page makes it. The hub is one on the loopback address, which has the shipped
checkpoint under the name of a released model. A block with a title is a file to write. A `sh` block
that begins with `rwkv serve` is a server, which runs beside the rest of the page, at a port of its
own in the place of 8080. `text` is what a program prints. `console` is a terminal: `$` starts a
program, which is told what stands after its prompts `>`; a line that ends with a backslash goes on
in the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from convert.checkpoint_writers import views, write_pth
from hub_server import Hub, serve
from terminal import Terminal
from twin import synth

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [
    *(DOCS / name for name in ("README.md", "converting.md", "models.md")),
    *sorted((DOCS / "guides").glob("*.md")),
]
RUN_ELSEWHERE = {"ray.md"}  # tests/many_machines

MAKE_A_MODEL = {"README.md", "converting.md", "coming-from-rwkv-cpp.md", "quick-start.md"}

# Installing is tried by `.ci/run`, in empty environments.
INSTALLS = re.compile(r"\s*(pip install |python3 -m venv |source .venv/)")


class Block(NamedTuple):
    line: int
    language: str
    title: str | None
    code: str


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for fence in re.finditer(r'^```(\w*)(?: title="(.*?)")?\n(.*?)^```$', text, re.M | re.S):
        yield Block(text[: fence.start()].count("\n") + 2, fence[1], fence[2], fence[3])


@pytest.fixture(scope="module")
def hub(examples: Path) -> Iterator[Hub]:
    checkpoint = (examples / "rwkv7-pydoc-L6-D256.pth").read_bytes()
    with serve({"BlinkDL/rwkv7-g1": {"rwkv7-g1d-0.4b-20260210-ctx8192.pth": checkpoint}}) as hub:
        yield hub


@pytest.fixture
def folder(
    tmp_path: Path,
    examples: Path,
    hub: Hub,
    converted: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    (tmp_path / "examples").symlink_to(examples)
    (tmp_path / "model.pth").symlink_to(examples / "rwkv7-pydoc-L6-D256.pth")
    state = synth.time_state(n_layer=6, n_embd=256, head_size=64)
    write_pth(tmp_path / "tuned.pth", views(state, "bf16"))
    monkeypatch.chdir(tmp_path)
    scripts = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([scripts, os.environ["PATH"]]))
    monkeypatch.setenv("CMAKE_GENERATOR", "Ninja")
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "RWKV_CACHE": str(tmp_path / "models"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in RUN_ELSEWHERE], ids=lambda page: page.stem
)
def test_every_code_block_runs(page: Path, folder: Path, converted: Callable[..., Path]) -> None:
    blocks = list(blocks_of(page))
    assert blocks
    if page.name in {"batch.md", "clients.md", "states-over-http.md"}:
        (folder / "pychat.bin").symlink_to(converted("q8_0", "pychat"))
    if page.name not in MAKE_A_MODEL:
        (folder / "model.bin").symlink_to(converted("q4_0"))
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.ExitStack() as servers:
        run_blocks(page, blocks, names, servers)


def run_blocks(
    page: Path, blocks: list[Block], names: dict[str, Any], servers: contextlib.ExitStack
) -> None:
    port = ""
    for block in blocks:
        if port:
            block = block._replace(code=block.code.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
        where = f"{page.name}:{block.line}"
        if block.title is not None:
            Path(block.title).write_text(block.code)
        elif block.language == "python":
            exec(compile(block.code, where, "exec"), names)
        elif block.language == "sh":
            if INSTALLS.match(block.code):
                assert all(map(INSTALLS.match, block.code.splitlines())), where
                continue
            if block.code.startswith("rwkv serve "):
                assert not port, where
                port = servers.enter_context(server(block.code))
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code],
                capture_output=True, stdin=subprocess.DEVNULL, timeout=240,
            )  # fmt: skip
            assert done.returncode == 0, f"{where}\n{done.stdout!r}\n{done.stderr.decode()}"
        elif block.language == "console":
            lead_programs(block.code, where)
        else:
            assert block.language == "text", (
                f"{where}: expected sh, console, python or text, or a title"
            )


@contextlib.contextmanager
def server(command: str) -> Iterator[str]:
    """Run a server beside what follows; return its port."""
    with subprocess.Popen(
        [*shlex.split(command), "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert "serving" in said, said
            yield said.strip().rpartition(":")[2]
        finally:
            process.kill()


def lead_programs(code: str, where: str) -> None:
    """Do what a `console` block shows."""
    terminal = None
    for line in code.replace("\\\n  ", "\\\r").split("\n"):
        if line.startswith("$ "):
            assert terminal is None, f"{where}: expected /exit before another program"
            name, *arguments = shlex.split(line.removeprefix("$ "))
            program = shutil.which(name)
            assert program is not None, f"{where}: {name}"
            terminal = Terminal(program, *arguments, XDG_STATE_HOME=os.getcwd())
            terminal.ready()
        elif line.startswith("> "):
            assert terminal is not None, f"{where}: expected $ before >"
            terminal.type(f"{line.removeprefix('> ')}\r")
            if line == "> /exit":
                assert terminal.exit_code() == 0, where
                terminal.close()
                terminal = None
            else:
                came = terminal.ready()
                assert not re.search(r"Traceback|\n/\w+( \w+)?: ", came), f"{where}\n{came}"
    assert terminal is None, f"{where}: expected /exit at the end"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_code_block_escapes(page: Path) -> None:
    """Code without a fence around it would not be run."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    assert "```" not in prose
    assert not re.search(r"\n\n(?: {4}|\t)\S", prose)
