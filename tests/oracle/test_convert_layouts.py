"""Models written by the programs whose layouts we read: the file is that of the official names.

And what those programs compute is what our runtime computes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

import rwkv_convert
import rwkv_runtime
from convert.layout_writers import transformers as names_of_transformers
from rwkv_py import Session, Tokenizer
from twin import synth

TOLERANCE = 5e-5
N_TOKENS = 40

Floats = NDArray[np.float32]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def through_fp16(checkpoint: synth.Checkpoint) -> synth.Checkpoint:
    """With numbers that fp16 holds too, as one of the programs rounds to it."""
    return {name: array.astype(np.float16).astype(np.float32) for name, array in checkpoint.items()}


def assert_same_file(theirs: Path, checkpoint: synth.Checkpoint, folder: Path) -> None:
    """Asserts that what they wrote converts to the bytes of the official checkpoint."""
    official = folder / "official.pth"
    torch.save({name: torch.from_numpy(array) for name, array in checkpoint.items()}, official)
    for dtype in ("fp32", "fp16", "q4_0"):
        expected, found = folder / f"expected-{dtype}.bin", folder / f"found-{dtype}.bin"
        rwkv_convert.convert(official, expected, dtype=dtype, force=True)
        summary = rwkv_convert.convert(theirs, found, dtype=dtype, force=True)
        assert summary.warnings == ()
        assert found.read_bytes() == expected.read_bytes(), dtype


def logits_of_ours(model_file: Path, tokens: Sequence[int]) -> Floats:
    session = Session(model_file, cache=None)
    return np.stack([session.feed([token]) for token in tokens])


# --------------------------------------------------------------------------------------------------
# transformers: RWKV-4


def rwkv_4_of_transformers(checkpoint: synth.Checkpoint | None, n_layer: int) -> Any:
    """Their model, with our numbers or with their own random ones."""
    from transformers import RwkvConfig, RwkvForCausalLM

    config = RwkvConfig(
        vocab_size=64,
        hidden_size=128,
        attention_hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=n_layer,
        context_length=N_TOKENS,
        rescale_every=0,
    )
    torch.manual_seed(3)
    model = RwkvForCausalLM(config).eval()
    if checkpoint is not None:
        theirs = names_of_transformers(checkpoint)
        model.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in theirs.items()})
    return model


def official_names_of(model: Any) -> synth.Checkpoint:
    """The same tensors with official names, which are those of the inverse of our judge."""
    template = synth.checkpoint("4", n_layer=model.config.num_hidden_layers)
    theirs_of = dict(zip(names_of_transformers(template), template, strict=True))
    found = model.state_dict()
    assert set(found) == set(theirs_of)
    return {
        ours: found[theirs].detach().float().numpy().copy() for theirs, ours in theirs_of.items()
    }


@pytest.mark.parametrize(("numbers", "shard"), [("ours", "200KB"), ("theirs", "1GB")])
def test_rwkv_4_of_transformers(tmp_path: Path, shard: str, numbers: str) -> None:
    checkpoint = synth.checkpoint("4", n_layer=3) if numbers == "ours" else None
    model = rwkv_4_of_transformers(checkpoint, 3)
    folder = tmp_path / "theirs"
    model.save_pretrained(folder, max_shard_size=shard)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard == "200KB")
    assert_same_file(folder, official_names_of(model), tmp_path)


def test_rwkv_4_of_transformers_computes_what_we_do(tmp_path: Path) -> None:
    model = rwkv_4_of_transformers(synth.checkpoint("4", n_layer=3), 3)
    model.save_pretrained(tmp_path / "theirs")
    rwkv_convert.convert(tmp_path / "theirs", tmp_path / "m.bin", dtype="fp32")
    tokens = np.random.RandomState(5).randint(0, 64, N_TOKENS).tolist()
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(
        logits_of_ours(tmp_path / "m.bin", tokens), expected, rtol=0, atol=TOLERANCE
    )


# --------------------------------------------------------------------------------------------------
# rwkv7-hf: RWKV-7 in fla's layout


def rwkv_7_hf(checkpoint: synth.Checkpoint, folder: Path, *options: str) -> Path:
    """What the program rwkv7-hf-convert makes of an official checkpoint."""
    folder.mkdir()
    source, out = folder / "official.pth", folder / "theirs"
    torch.save({name: torch.from_numpy(array) for name, array in checkpoint.items()}, source)
    command = [
        str(Path(sys.executable).with_name("rwkv7-hf-convert")),
        *("--input", str(source), "--output", str(out)),
        *("--vocab-file", str(rwkv_runtime.world_vocabulary_path())),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def names_in(folder: Path) -> set[str]:
    """The tensors of all files of a folder."""
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            names |= set(file.keys())
    return names


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ({"n_layer": 3, "n_embd": 128}, ["--precision", "fp16"]),
        (
            {"n_layer": 2, "n_embd": 192, "rank_wide": 96, "layer0_v": True},
            ["--precision", "float32", "--max-shard-size", "300KB"],
        ),
    ],
)
def test_rwkv_7_of_rwkv7_hf(tmp_path: Path, shape: dict[str, int], options: list[str]) -> None:
    checkpoint = synth.checkpoint("7", **shape)
    if "fp16" in options:
        checkpoint = through_fp16(checkpoint)
    theirs = rwkv_7_hf(checkpoint, tmp_path / "hf", *options)
    names = names_in(theirs)
    assert "model.layers.0.attn.w_lora.lora.2.bias" in names
    assert not any(name.startswith("model.layers.0.attn.v_lora") for name in names)
    assert (len(list(theirs.glob("*.safetensors"))) > 1) == ("--max-shard-size" in options)
    assert_same_file(theirs, checkpoint, tmp_path)


@pytest.fixture(scope="module")
def of_rwkv7_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with the World vocabulary."""
    checkpoint = synth.checkpoint("7", n_layer=3, n_embd=128)
    return rwkv_7_hf(checkpoint, tmp_path_factory.mktemp("of") / "hf", "--precision", "float32")


def test_rwkv_7_of_rwkv7_hf_computes_what_we_do(
    of_rwkv7_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rwkv_convert.convert(of_rwkv7_hf, tmp_path / "m.bin", dtype="fp32")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        of_rwkv7_hf, trust_remote_code=True, dtype=torch.float32
    )
    tokens = np.random.RandomState(5).randint(0, 64, N_TOKENS).tolist()
    with torch.no_grad():
        expected = model.eval()(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(
        logits_of_ours(tmp_path / "m.bin", tokens), expected, rtol=0, atol=TOLERANCE
    )


TEXTS = [
    "Hello, world!",
    "a\n\nb",
    "User: 你好\n\nAssistant: <think>\n</think> né 🙂",
    "a[breath]b [laughter][laughter]",
]


def test_tokens_that_transformers_adds_to_the_world_vocabulary(
    of_rwkv7_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(of_rwkv7_hf, trust_remote_code=True)
    ours = Tokenizer.open(of_rwkv7_hf)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]
    theirs.add_tokens(["[breath]", "[laughter]"])
    theirs.save_pretrained(tmp_path / "more")
    ours = Tokenizer.open(tmp_path / "more")
    for text in TEXTS:
        tokens = theirs(text)["input_ids"]
        assert ours.encode(text) == tokens
        assert ours.decode(tokens) == text  # theirs leaves out what it does not know
    assert max(ours.encode(TEXTS[-1])) > 65529
