"""The page at /: what is sent of it, to whom, and what it lets the browser do."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import httpx
import pytest

from rwkv_py.server.page import PATHS
from server.serving import serve
from server.test_serve_command import running

FILES = resources.files("rwkv_py.server.page") / "files"


@pytest.fixture(scope="module")
def locked(pychat_file: Path) -> object:
    """A server that wants a key."""
    with serve({"m": pychat_file}, api_keys=("secret",)) as client:
        yield client


def test_every_file_is_sent_without_a_key_and_nothing_else(locked: httpx.Client) -> None:
    assert {f"/page/{file.name}" for file in FILES.iterdir()} == PATHS - {"/"}
    for path in PATHS:
        answer = locked.get(path)
        assert answer.status_code == 200, path
        name = "index.html" if path == "/" else path.rpartition("/")[2]
        assert answer.content == (FILES / name).read_bytes()
    for path in ("/v1/models", "/v1/states", "/metrics", "/page/", "/page/none.js", "/page"):
        assert locked.get(path).status_code == 401, path
    head = locked.request("HEAD", "/")
    assert head.status_code == 200 and head.content == b""
    assert int(head.headers["content-length"]) > 500


def test_no_path_leads_out_of_its_folder(client: httpx.Client) -> None:
    for path in (
        "/page/../__init__.py",
        "/page/..%2f__init__.py",
        "/page/%2e%2e",
        "/page/__init__.py",
    ):
        assert client.get(path).status_code == 404, path


def test_the_browser_may_do_nothing_more_than_the_page_needs(client: httpx.Client) -> None:
    for path in ("/", "/page/app.js"):
        headers = client.get(path).headers
        policy = dict(
            rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert (
            policy["trusted-types"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        )
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


def test_what_is_known_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/")
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    other = client.get("/", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200 and other.content == first.content


def test_the_files_name_no_other_host_and_nothing_inline() -> None:
    page = (FILES / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=", page) == []
    for file in FILES.iterdir():
        text = file.read_text()
        code = re.sub(r"^\s*(?:\*|//|/\*).*$", "", text, flags=re.M)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)\w", code), file.name
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in code, (file.name, sink)


def test_the_page_can_be_left_out(pychat_file: Path) -> None:
    with running(pychat_file, "--no-page", RWKV_API_KEYS="secret") as (_, url):
        key = {"x-api-key": "secret"}
        for path in ("/", "/page/app.js"):
            assert httpx.get(f"{url}{path}").status_code == 401
            assert httpx.get(f"{url}{path}", headers=key).status_code == 404
        assert httpx.get(f"{url}/v1/models", headers=key).status_code == 200


def test_the_wheel_has_all_of_it(repo: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    package = repo / "packages" / "rwkv-py"
    names = {
        file.distribution_path for file in wheel.WheelBuilder(str(package)).recurse_included_files()
    }
    expected = {
        f"rwkv_py/server/page/files/{path.name}"
        for path in (package / "src/rwkv_py/server/page/files").iterdir()
    }
    assert len(expected) > 20 and expected <= names
