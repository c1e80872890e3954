"""Folders, shards and their index, and the config.json beside them."""

import json

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_legacy_pth, write_pth, write_safetensors
from convert.layout_writers import fla_7
from rwkv_convert import CheckpointError, ModelError
from twin import ggmf, synth

SIZES = {"n_layer": 2, "n_embd": 64, "head_size": 32, "n_vocab": 40}
CHECKPOINT = synth.checkpoint("7", **SIZES)
WRITERS = {
    "model-{}.safetensors": lambda path, tensors: write_safetensors(path, tensors, "fp32"),
    "pytorch_model-{}.bin": lambda path, tensors: write_pth(path, views(tensors, "fp32")),
    "rwkv-{}.pth": lambda path, tensors: write_legacy_pth(path, views(tensors, "fp32")),
}


def bytes_of(source, out, **options):
    rwkv_convert.convert(source, out, force=True, threads=1, **options)
    return out.read_bytes()


@pytest.fixture
def expected(tmp_path):
    source = write_safetensors(tmp_path / "whole.st", CHECKPOINT, "fp32")
    return bytes_of(source, tmp_path / "expected.bin")


def shard(folder, name="model-{}.safetensors", count=3, tensors=CHECKPOINT, index=True):
    """Cuts a model anywhere, as in the middle of what the file has in one tensor."""
    folder.mkdir(exist_ok=True)
    names = list(tensors)
    where = {}
    paths = []
    for i in range(count):
        some = names[i * len(names) // count : (i + 1) * len(names) // count]
        path = folder / name.format(f"{i + 1:05}-of-{count:05}")
        WRITERS[name](path, {n: tensors[n] for n in some})
        where |= dict.fromkeys(some, path.name)
        paths.append(path)
    if index:
        stem, end = name.split("-{}")
        text = json.dumps({"metadata": {}, "weight_map": where})
        (folder / f"{stem}{end}.index.json").write_text(text)
    return paths


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_the_whole(tmp_path, expected, name, count):
    paths = shard(tmp_path / "m", name, count)
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "rwkv7"}))
    (index,) = (tmp_path / "m").glob("*.index.json")
    for source in (tmp_path / "m", index, paths[-1], paths[0]):
        assert bytes_of(source, tmp_path / "out.bin") == expected
    index.unlink()
    for source in (tmp_path / "m", paths[-1]):
        assert bytes_of(source, tmp_path / "out.bin") == expected
    info = rwkv_convert.info(paths[-1])
    assert info.n_files == count and info.parameters == sum(a.size for a in CHECKPOINT.values())
    assert info.file_bytes == sum(path.stat().st_size for path in paths)


def test_shards_of_another_layout(tmp_path, expected):
    shard(tmp_path / "m", count=5, tensors=fla_7(CHECKPOINT))
    summary = rwkv_convert.convert(tmp_path / "m", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == expected
    assert summary.notes == ("layout: fla RWKV-7, 5 shards",)


def test_missing_shard_is_named(tmp_path):
    paths = shard(tmp_path / "m")
    paths[1].unlink()
    for source in (tmp_path / "m", paths[2], tmp_path / "m" / "model.safetensors.index.json"):
        with pytest.raises(CheckpointError, match=r"3 shards, missing 'model-00002-of-00003\.safe"):
            rwkv_convert.info(source)


def test_tensor_in_two_shards_is_refused(tmp_path):
    paths = shard(tmp_path / "m", count=2)
    write_safetensors(paths[1], CHECKPOINT, "fp32")
    with pytest.raises(CheckpointError, match=r"'emb\.weight': expected each name once, got it in"):
        rwkv_convert.info(tmp_path / "m")


def test_shard_with_another_s_content_is_refused(tmp_path):
    paths = shard(tmp_path / "m", count=2)
    paths[1].write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors: not a checkpoint"):
        rwkv_convert.info(tmp_path / "m")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "expected a JSON object"),
        ("{}", "expected an index of shards, with 'weight_map'"),
        ('{"weight_map": {"a": 1}}', "expected an index of shards"),
        ('{"weight_map": {}}', "shards, expected 1 to 500, got 0"),
        ('{"weight_map": {"a": "../secret"}}', "file beside the index, got '../secret'"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "beside the index, got '/etc/passwd'"),
        ('{"weight_map": {"a": ".."}}', r"beside the index, got '\.\.'"),
        ('{"weight_map": {"a": "a\\u0000b"}}', "beside the index"),
        ('{"weight_map": {"a": ""}}', "beside the index, got ''"),
        ('{"weight_map": {"a": "none"}}', "expected 1 shards, missing 'none'"),
    ],
)
def test_bad_index_is_refused(tmp_path, index, message):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    for source in (path, tmp_path):
        with pytest.raises(CheckpointError, match=message):
            rwkv_convert.info(source)


@pytest.mark.parametrize("number", ["00000-of-00003", "00004-of-00003", "00001-of-99999"])
def test_odd_numbers_of_shards_are_refused(tmp_path, number):
    path = write_safetensors(tmp_path / f"a-{number}.safetensors", CHECKPOINT, "fp32")
    with pytest.raises(CheckpointError, match="shards, expected at most 500"):
        rwkv_convert.info(path)


def test_folder_with_one_model_is_enough(tmp_path, expected):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "vocab.txt").write_text("")
    write_pth(folder / "rwkv.pth", views(CHECKPOINT, "fp32"))
    assert bytes_of(folder, tmp_path / "out.bin") == expected


def test_folder_with_two_models_is_refused(tmp_path):
    for name in ("a.pth", "b.pth"):
        write_pth(tmp_path / name, views(CHECKPOINT, "fp32"))
    with pytest.raises(CheckpointError, match=r"one model, got 'a\.pth', 'b\.pth'\. Try the name"):
        rwkv_convert.info(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match="expected a folder with one model, got nothing"):
        rwkv_convert.info(empty)


# --------------------------------------------------------------------------------------------------
# config.json


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"embedding_layer_norm_fused": True}, r"blocks\.0\.ln0 was fused, which cannot be undone"),
        ({"deep_embedding": True}, "was fused"),
        ({"norm_eps": 1e-6}, "'norm_eps', expected 1e-05, got 1e-06"),
        ({"norm_eps": 10**400}, "'norm_eps', expected 1e-05, got 10000"),
        ({"layer_norm_epsilon": "x"}, "'layer_norm_epsilon', expected 1e-05, got 'x'"),
        ({"num_hidden_layers": 3}, "'num_hidden_layers', expected 2 as there are, got 3"),
    ],
)
def test_config_of_another_model_is_refused(tmp_path, config, message):
    shard(tmp_path / "m", count=2)
    config = {"model_type": "rwkv7", **config}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    for source in (tmp_path / "m", tmp_path / "m" / "model-00002-of-00002.safetensors"):
        with pytest.raises(ModelError, match=message):
            rwkv_convert.info(source)


@pytest.mark.parametrize(
    "config",
    [
        json.dumps({"model_type": "rwkv7", "norm_eps": 1e-5, "num_hidden_layers": 2}),
        json.dumps({"architectures": ["RwkvForCausalLM"], "embedding_layer_norm_fused": False}),
        json.dumps({"model_type": "llama", "num_hidden_layers": 32}),
        "no JSON",
    ],
)
def test_config_that_fits_or_is_another_s_changes_nothing(tmp_path, expected, config):
    shard(tmp_path / "m", count=2)
    (tmp_path / "m" / "config.json").write_text(config)
    assert bytes_of(tmp_path / "m", tmp_path / "out.bin") == expected


def test_embedding_is_the_head_if_the_config_says_so(tmp_path):
    whole = {**CHECKPOINT, "head.weight": CHECKPOINT["emb.weight"]}
    out = tmp_path / "out.bin"
    expected = bytes_of(write_safetensors(tmp_path / "whole.st", whole, "fp32"), out)
    tied = {n: a for n, a in CHECKPOINT.items() if n != "head.weight"}
    shard(tmp_path / "m", count=2, tensors=tied)
    with pytest.raises(ModelError, match=r"missing 'head\.weight'"):
        rwkv_convert.info(tmp_path / "m")
    config = {"model_type": "rwkv7", "tie_word_embeddings": True}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert bytes_of(tmp_path / "m", out) == expected


def test_an_absent_ln0_is_missed(tmp_path):
    rest = {n: np.asarray(a) for n, a in CHECKPOINT.items() if ".ln0." not in n}
    with pytest.raises(ModelError, match=r"missing 'blocks\.0\.ln0\.weight', 'blocks"):
        rwkv_convert.info(write_safetensors(tmp_path / "a.st", rest, "fp32"))


# --------------------------------------------------------------------------------------------------
# ln0 as ones and zeros: fused into the embedding by somebody who says nothing of it

IDENTITY = {"blocks.0.ln0.weight": 1.0, "blocks.0.ln0.bias": 0.0}


def with_norms(*, everywhere=False, **changed):
    """The model with an ln0 that changes nothing; or with every norm so, as before training."""
    tensors = {
        name: np.full_like(array, IDENTITY.get(name, array)) for name, array in CHECKPOINT.items()
    }
    for name, array in tensors.items():
        if everywhere and (".ln1." in name or ".ln2." in name or "ln_out." in name):
            array[:] = name.endswith("weight")
    tensors["blocks.0.ln0.weight"][-1] += changed.get("weight", 0)
    tensors["blocks.0.ln0.bias"][0] += changed.get("bias", 0)
    return tensors


@pytest.mark.parametrize("write", WRITERS.values())
def test_ln0_of_ones_and_zeros_is_refused(tmp_path, write):
    write(tmp_path / "model", with_norms())
    message = r"blocks\.0\.ln0, expected a norm that was trained, got ones and zeros, as where"
    for call in (rwkv_convert.info, lambda path: bytes_of(path, tmp_path / "out.bin")):
        with pytest.raises(ModelError, match=message):
            call(tmp_path / "model")
    assert not (tmp_path / "out.bin").exists()
    config = {"model_type": "rwkv", "embedding_layer_norm_fused": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert bytes_of(tmp_path / "model", tmp_path / "out.bin")


@pytest.mark.parametrize("changed", [{"weight": 0.001}, {"bias": 1e-6}, {"everywhere": True}])
def test_ln0_that_was_trained_or_nothing_was_is_converted(tmp_path, changed):
    source = write_safetensors(tmp_path / "a.st", with_norms(**changed), "fp32")
    assert bytes_of(source, tmp_path / "out.bin")
    assert rwkv_convert.info(source).n_layer == 2


def test_ln0_of_ones_and_zeros_in_another_layout_and_a_model_file(tmp_path):
    shard(tmp_path / "m", count=3, tensors=fla_7(with_norms()))
    with pytest.raises(ModelError, match=r"blocks\.0\.ln0, expected a norm that was trained"):
        rwkv_convert.info(tmp_path / "m")
    ggmf.write(tmp_path / "m.bin", ggmf.convert_reference(with_norms()))
    with pytest.raises(ModelError, match=r"blocks\.0\.ln0, expected a norm that was trained"):
        bytes_of(tmp_path / "m.bin", tmp_path / "out.bin")
