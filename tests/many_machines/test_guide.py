"""The guide: its programs run, its files are such as Ray Serve takes, and the reference has all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="only in `hatch run ray:test`")
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

import rwkv_py.ray

pytestmark = pytest.mark.slow


def blocks(repo: Path, language: str) -> list[str]:
    text = (repo / "docs/guides/ray.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.usefixtures("cluster")
def test_the_programs_run(
    repo: Path, pydoc_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.bin").symlink_to(pydoc_file)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(repo, "python"):
        exec(compile(block, "ray.md", "exec"), names)
    assert "generate" in names and "embed" in names


@pytest.mark.usefixtures("cluster")
def test_the_file_is_one_of_serve(repo: Path, pydoc_file: Path) -> None:
    (text,) = blocks(repo, "yaml")
    schema = ServeDeploySchema(**yaml.safe_load(text))
    (application,) = schema.applications
    module, _, name = application.import_path.partition(":")
    assert module == "rwkv_py.ray"
    made = getattr(rwkv_py.ray, name)(application.args)
    assert isinstance(made, serve.Application)


def test_the_reference_has_every_name(repo: Path) -> None:
    page = (repo / "docs/reference.md").read_text()
    for name in rwkv_py.ray.__all__:
        assert f"::: rwkv_py.ray.{name}\n" in page
