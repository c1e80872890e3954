"""Files of a hub in a folder: a small hub on the loopback address, and every way to be stopped."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hub_server import serve

pytestmark = pytest.mark.slow

CONTENT = random.Random(1).randbytes(5000)
FILE = "model.pth"
SHARDS = {f"model-0000{i}-of-00002.safetensors": CONTENT[:i] * 1000 for i in (1, 2)}
REPOSITORIES = {
    "owner/one": {FILE: CONTENT, "README.md": b"# A model", "sub/other.pth": b"other"},
    "owner/shards": {**SHARDS, "config.json": b"{}", "README.md": b"#", "sub/config.json": b"{}"},
    "owner/empty": {FILE: b""},
}

# Finds and fetches `source` once for each size of a part that is there already.
FETCH = """
import json, os, sys
from pathlib import Path
import rwkv_convert, rwkv_convert.hub_fetch
rwkv_convert.hub_fetch._SECONDS_BETWEEN = 0.01
source, folder, *parts = sys.argv[1:]
files = rwkv_convert.find_hub_files(source)
told = []
for i, part in enumerate(parts or [""]):
    place = Path(folder) / str(i) if parts else Path(folder)
    if part:
        place.mkdir(parents=True)
        (place / f"{files.file}.part").write_bytes(Path(folder, "content").read_bytes()[:int(part)])
    try:
        path = rwkv_convert.fetch_hub_files(files, place, progress=lambda *p: told.append(p))
    except rwkv_convert.ConvertError as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
    else:
        print(json.dumps({"path": str(path), "told": told[-1:], "sizes": files.sizes}))
"""


@pytest.fixture
def hub():
    with serve(REPOSITORIES) as server:
        yield server


@pytest.fixture
def start(hub, tmp_path):
    """Starts a process that fetches into `tmp_path`."""

    def run(source, *parts, limit=None, **environment):
        limited = [] if limit is None else ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash"]
        return subprocess.Popen(
            [*limited, sys.executable, "-c", FETCH, source, str(tmp_path / "f"), *map(str, parts)],
            env={
                **os.environ,
                "HF_HOME": str(tmp_path / "cache"),
                "HF_ENDPOINT": hub.url,
                "HF_HUB_DISABLE_XET": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            text=True,
        )

    return run


def answers(process):
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def test_shards_and_config_come_with_a_file(start, tmp_path):
    (told,) = answers(start("hf://owner/shards"))
    expected = {**SHARDS, "config.json": b"{}"}
    assert told["sizes"] == {name: len(data) for name, data in expected.items()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "f").iterdir()} == expected
    total = sum(map(len, expected.values()))
    assert told["told"] == [[total, total]]


def test_it_goes_on_from_any_byte(hub, start, tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "content").write_bytes(CONTENT + b"more")
    parts = [0, 1, 2, 99, 2500, 4998, 4999, 5000, 5001]
    for told in answers(start("hf://owner/one", *parts)):
        assert Path(told["path"]).read_bytes() == CONTENT
        assert [p.name for p in Path(told["path"]).parent.iterdir()] == [FILE]
    # What was there was not sent again, but for the one that was too long.
    assert hub.sent == sum(5000 - part for part in parts if part <= 5000) + 5000


def test_connection_that_breaks_anywhere_is_made_again(hub, start, tmp_path):
    hub.cuts = [0, 1, 0, 1000, 0, 0, 1, 2500, 1496, 0]
    (told,) = answers(start("hf://owner/one"))
    assert Path(told["path"]).read_bytes() == CONTENT
    assert (hub.sent, hub.cuts) == (5000, [])


def test_hub_that_gives_nothing_is_told(hub, start, tmp_path):
    hub.cuts = [1000] + [0] * 50
    (told,) = answers(start("hf://owner/one"))
    assert told["error"].startswith("CheckpointError: hf://owner/one/model.pth: cannot be fetched")
    assert (tmp_path / "f" / f"{FILE}.part").read_bytes() == CONTENT[:1000]
    assert len(hub.cuts) == 50 - 5


def test_process_that_is_killed(hub, start, tmp_path):
    hub.stall = 3000
    process = start("hf://owner/one")
    assert hub.stalled.wait(60)
    part = tmp_path / "f" / f"{FILE}.part"
    while not part.exists() or part.stat().st_size < 3000:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.stall = None
    hub.go_on.set()
    (told,) = answers(start("hf://owner/one"))
    assert Path(told["path"]).read_bytes() == CONTENT
    assert hub.sent == 5000


def test_server_that_gives_whole_files_only(hub, start, tmp_path):
    hub.ranges = False
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "content").write_bytes(b"x" * 100)
    (told,) = answers(start("hf://owner/one", 50))
    assert Path(told["path"]).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"])
def test_file_that_changed_meanwhile_is_refused(content, hub, start, tmp_path):
    hub.repositories = {"owner/one": {FILE: content}}
    hub.listed = {"owner/one": {FILE: CONTENT}}
    (told,) = answers(start("hf://owner/one"))
    assert told["error"].endswith(f"cannot be fetched: expected 5000 bytes, got {len(content)}")
    assert not (tmp_path / "f" / FILE).exists()


def test_no_space(hub, start, tmp_path):
    (told,) = answers(start("hf://owner/one", limit=2))  # 2048 bytes
    path = tmp_path / "f" / FILE
    assert told["error"] == f"OutputError: {path}: cannot be written: File too large"
    assert (tmp_path / "f" / f"{FILE}.part").read_bytes() == CONTENT[:2048]
    answers(start("hf://owner/one"))
    assert path.read_bytes() == CONTENT
    assert hub.sent <= 2 * 5000 - 2048


def test_refusals(hub, start):
    hub.refused = {FILE}
    (told,) = answers(start("hf://owner/one"))
    assert "cannot be fetched: the hub answers 403" in told["error"]
    assert len([r for r in hub.requests if r.startswith("GET /owner")]) == 1  # not tried again


def test_empty_file(start, tmp_path):
    answers(start("hf://owner/empty"))
    assert (tmp_path / "f" / FILE).read_bytes() == b""


def test_token_is_for_the_hub_and_not_for_its_store(hub, start, tmp_path):
    with serve(REPOSITORIES) as store:
        hub.store = store.url
        (told,) = answers(start("hf://owner/one", HF_TOKEN="hf_secret"))
        assert Path(told["path"]).read_bytes() == CONTENT
        assert "Bearer hf_secret" in hub.tokens
        assert any(request.startswith("GET") for request in store.requests)
        assert set(store.tokens) == {None}
