"""One script, run with the PyPI package `rwkv`, and with two lines changed with rwkv_py."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twin import ggmf, synth

TOLERANCE = 1e-4

SCRIPT = """
import copy, os, pickle, sys
model_name, version, out = sys.argv[1:]
os.environ["RWKV_V7_ON"] = "1" if version == "7" else "0"
os.environ["RWKV_JIT_ON"] = "0"
os.environ["RWKV_CUDA_ON"] = "0"
import numpy as np
import torch
from rwkv.model import RWKV
from rwkv.utils import PIPELINE, PIPELINE_ARGS

torch.set_num_threads(1)
found = {}
model = RWKV(model=model_name, strategy="cpu fp32")
pipeline = PIPELINE(model, "rwkv_vocab_v20230424")

# A prompt in parts, with copies of the state to come back to.
tokens = pipeline.encode("In a shocking finding, scientists discovered 12 dragons.")
found["tokens"] = tokens
logits, state = model.forward(tokens[:1], None)
found["after one"] = logits, copy.deepcopy(state)
logits, state = model.forward(tokens[1:9], state)
kept = copy.deepcopy(state)
found["after nine"] = logits, copy.deepcopy(state)
found["all rows"] = model.forward(tokens[9:], state, full_output=True)[0]
found["again"] = model.forward(tokens[9:], kept)
found["one row"] = model.forward(tokens[:1], None, full_output=True)[0]

# What becomes of the list that is given.
_, state = model.forward(tokens[:3], None)
parts, values = list(state), [part.clone() for part in state]
_, after = model.forward(tokens[3:5], state)
found["given list"] = {
    "is returned": after is state,
    "has other parts": any(a is not b for a, b in zip(state, parts)),
    "parts change": any((a != b).any().item() for a, b in zip(parts, values)),
    "types": [type(part).__name__ for part in after] + [type(logits).__name__],
}
args = vars(model.args)
found["args"] = {
    name: args[name]
    for name in ("n_layer", "n_embd", "vocab_size", "head_size", "n_att", "n_ffn", "n_head")
    if name in args
}
found["version"] = getattr(model, "version", 7)

# Texts: greedily, with penalties, with tokens that are banned and that stop, from a state, drawn.
banned = [0, *range(65530, 65536)]
for name, options in {
    "greedy": {"alpha_presence": 0, "alpha_frequency": 0},
    "penalties": {"alpha_presence": 0.5, "alpha_frequency": 0.3, "alpha_decay": 0.9},
    "defaults": {},
    "chunks": {"chunk_len": 4},
}.items():
    pieces = []
    options = PIPELINE_ARGS(temperature=0, token_ban=banned, **options)
    text = pipeline.generate("In 1984, ", 60, options, callback=pieces.append)
    found["text, " + name] = text, pieces
np.random.seed(7)
found["text, drawn"] = pipeline.generate("In 1984, ", 60, PIPELINE_ARGS(token_ban=banned))
np.random.seed(7)
options = PIPELINE_ARGS(temperature=0.7, top_k=40, top_p=0.7, token_ban=banned, token_stop=[261])
found["text, from a state"] = pipeline.generate("a", 40, options, state=copy.deepcopy(kept))

# Draws alone.
np.random.seed(8)
random = np.random.default_rng(8)
drawn = []
for i in range(200):
    row = torch.from_numpy((random.normal(size=1000) * random.uniform(0.5, 5)).astype(np.float32))
    temperature, top_p = random.choice([0.5, 1, 1.7]), random.choice([0.2, 0.6, 0.9])
    drawn.append(pipeline.sample_logits(row, temperature, top_p, int(random.choice([0, 3, 50]))))
found["drawn"] = drawn
found["refined"] = pipeline.refine_context("  a \\r\\n\\n b ")
found["decoded"] = pipeline.decode([33155, 195]), pipeline.decode([0]), pipeline.decode([33155])


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


with open(out, "wb") as file:
    pickle.dump({name: plain(value) for name, value in found.items()}, file)
"""


def run(script: str, version: str, folder: Path, name: str) -> dict[str, Any]:
    (folder / f"{name}.py").write_text(script)
    out = folder / f"{name}.pickle"
    command = [sys.executable, folder / f"{name}.py", folder / "model", version, out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = pickle.loads(out.read_bytes())
    return found


@pytest.fixture(scope="module", params=synth.VERSIONS)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """A version, what the package found, what rwkv_py did."""
    import torch

    version: str = request.param
    folder = tmp_path_factory.mktemp("scripts")
    checkpoint = synth.checkpoint(
        version, n_layer=2, n_embd=64, head_size=32, rank=16, n_vocab=65536, seed=5
    )
    checkpoint["head.weight"][[33, 49, 50, 51, 261, 4811, 45, 11]] *= 6  # digits, spaces, words
    torch.save({k: torch.from_numpy(v.copy()) for k, v in checkpoint.items()}, folder / "model.pth")
    ggmf.write(folder / "model.bin", ggmf.convert_reference(checkpoint))
    changed = SCRIPT.replace("from rwkv.", "from rwkv_py.compat.rwkv.")
    lines = zip(SCRIPT.splitlines(), changed.splitlines(), strict=True)
    assert sum(a != b for a, b in lines) == 2
    return version, run(SCRIPT, version, folder, "theirs"), run(changed, version, folder, "ours")


def assert_near(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_near(a, b, f"{where}[{i}]")
    else:
        assert ours.dtype == theirs.dtype == np.float32, where
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=TOLERANCE, err_msg=where)
        assert ours.shape == theirs.shape, where


@pytest.mark.parametrize("name", ["after one", "after nine", "all rows", "again", "one row"])
def test_logits_and_states(name: str, both: tuple[str, Any, Any]) -> None:
    _, theirs, ours = both
    assert_near(ours[name], theirs[name], name)


@pytest.mark.parametrize(
    "name",
    [
        "tokens", "text, greedy", "text, penalties", "text, defaults", "text, chunks",
        "text, drawn", "text, from a state", "drawn", "refined", "decoded", "given list",
    ],
)  # fmt: skip
def test_texts_and_draws(name: str, both: tuple[str, Any, Any]) -> None:
    _, theirs, ours = both
    assert ours[name] == theirs[name]
    if name.startswith("text, ") and name != "text, from a state":
        text = theirs[name] if isinstance(theirs[name], str) else theirs[name][0]
        assert len(text) > 20


def test_what_a_model_tells_of_itself(both: tuple[str, Any, Any]) -> None:
    version, theirs, ours = both
    assert {name: ours["args"][name] for name in theirs["args"]} == theirs["args"]
    # A model file has one number for both.
    assert ours["version"] == (5.2 if version == "5.1-gate" else theirs["version"])
