"""Models from a hub: a small one on the loopback address, asked by huggingface_hub itself."""

import json
import os
import subprocess
import sys

import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth, write_safetensors
from convert.layout_writers import fla_7
from hub_server import serve
from rwkv_convert import CheckpointError
from rwkv_convert.hub import HubSource, parse_hub_source
from twin import synth

CHECKPOINT = synth.checkpoint("7", n_layer=2, n_embd=64, head_size=32, n_vocab=40)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    names = list(fla_7(CHECKPOINT).items())
    shards = {}
    for i in (0, 1):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        some = dict(names[i * 30 : (i + 1) * 30 if i == 0 else None])
        shards[name] = write_safetensors(folder / name, some, "fp32").read_bytes()
    where = {n: f"model-0000{1 + (i >= 30)}-of-00002.safetensors" for i, (n, _) in enumerate(names)}
    files = {
        "README.md": b"# A model",
        "config.json": json.dumps({"model_type": "rwkv7", "num_hidden_layers": 2}).encode(),
        "model.safetensors.index.json": json.dumps({"weight_map": where}).encode(),
        **shards,
        "onnx/model.bin": b"other",
    }
    pth = write_pth(folder / "a.pth", views(CHECKPOINT, "fp32")).read_bytes()
    two = {"rwkv7-a.pth": pth, "rwkv7-b.pth": pth, "sub/c.pth": pth}
    fused = {**files, "config.json": b'{"model_type": "rwkv7", "embedding_layer_norm_fused": true}'}
    with serve({"owner/sharded": files, "owner/two": two, "owner/fused": fused}) as server:
        yield server


@pytest.fixture
def run(hub, tmp_path):
    """Runs the command, with a cache of its own."""

    def command(*arguments, python=("-m", "rwkv_convert"), **environment):
        done = subprocess.run(
            [sys.executable, *python, *arguments],
            env={
                **os.environ,
                "HF_HOME": str(tmp_path / "cache"),
                "HF_ENDPOINT": hub.url,
                "HF_HUB_DISABLE_XET": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=100,
            cwd=tmp_path,
        )
        return done.returncode, done.stdout, done.stderr

    return command


@pytest.fixture
def expected(tmp_path):
    source = write_pth(tmp_path / "expected.pth", views(CHECKPOINT, "fp32"))
    rwkv_convert.convert(source, tmp_path / "expected.bin")
    return (tmp_path / "expected.bin").read_bytes()


def test_model_is_fetched_once_and_then_without_the_hub(hub, run, tmp_path, expected):
    code, _, said = run("hf://owner/sharded", "out.bin", HF_TOKEN="hf_secret")
    assert (code, said) == (0, "rwkv-convert: layout: fla RWKV-7, 2 shards\n")
    assert (tmp_path / "out.bin").read_bytes() == expected
    assert "Bearer hf_secret" in hub.tokens
    fetched = {r.rsplit("/", 1)[1] for r in hub.requests if r.startswith("GET /owner/sharded/res")}
    assert fetched == {*hub.repositories["owner/sharded"]} - {"README.md", "onnx/model.bin"}

    before = len(hub.requests)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        code, _, said = run("hf://owner/sharded", "out.bin", "--force", "--quiet", **environment)
        assert (code, said) == (0, "")
        assert (tmp_path / "out.bin").read_bytes() == expected
    assert len(hub.requests) == before


def test_connection_that_breaks_is_made_again(hub, run, tmp_path, expected):
    hub.breaks = 1
    code, _, said = run("hf://owner/two/rwkv7-b.pth@v1", "out.bin")
    assert (code, said, hub.breaks) == (0, "", 0)
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_what_was_fetched_before_a_failure_is_kept(hub, run, tmp_path, expected):
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    hub.requests.clear()
    hub.refused = {second}
    code, _, said = run("hf://owner/sharded", "out.bin")
    assert code == 1 and said.startswith("rwkv-convert: error: hf://owner/sharded: cannot be fetch")
    assert not (tmp_path / "out.bin").exists()
    hub.refused = set()
    code, _, _ = run("hf://owner/sharded", "out.bin")
    assert code == 0 and (tmp_path / "out.bin").read_bytes() == expected
    got = [r.rsplit("/", 1)[1] for r in hub.requests if r.startswith("GET") and "/resolve/" in r]
    assert (got.count(first), got.count(second)) == (1, 2)


REFUSED = {
    "hf://owner/nothing": "cannot be fetched",
    "hf://owner/sharded@v9": "cannot be fetched",
    "hf://owner/two": "expected a folder with one model, got 'rwkv7-a.pth', 'rwkv7-b.pth'. Try",
    "hf://owner/two/none.pth": "expected a file 'none.pth', got none",
    "hf://owner/fused": "'embedding_layer_norm_fused', expected an embedding as it was",
}
TRY_ALL = """
import sys, rwkv_convert
for source in sys.argv[1:]:
    try:
        rwkv_convert.info(source)
    except rwkv_convert.ConvertError as error:
        print(error)
"""


def test_what_is_not_there_is_told(run):
    code, said, warned = run(*REFUSED, python=("-c", TRY_ALL))
    assert (code, warned) == (0, "")
    for line, (source, message) in zip(said.splitlines(), REFUSED.items(), strict=True):
        assert message in line
        assert line.startswith(source.split("@")[0]) or "config.json: " in line


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("hf://a/b", ("a/b", None, None)),
        ("hf://a/b/", ("a/b", None, None)),
        ("hf://a/b@c", ("a/b", None, "c")),
        ("hf://a/b/c/d.pth", ("a/b", "c/d.pth", None)),
        ("hf://a-1/b.2/c.pth@refs/pr/1", ("a-1/b.2", "c.pth", "refs/pr/1")),
    ],
)
def test_sources_are_taken_apart(source, parts):
    assert parse_hub_source(source) == HubSource(*parts)


@pytest.mark.parametrize(
    "source",
    ["hf://", "hf://a", "hf://a/b/../c", "hf:///b", "hf://a/b@c@d", "hf://a/b//etc/x", "hf://./b"],
)
def test_sources_of_another_form_are_refused(source):
    with pytest.raises(CheckpointError, match="expected hf://OWNER/NAME"):
        parse_hub_source(source)


def test_without_huggingface_hub_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install rwkv-convert\[hub\]"):
        rwkv_convert.info("hf://owner/name")
