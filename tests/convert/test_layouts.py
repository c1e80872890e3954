"""Whoever named the tensors, the file is the one from the official names, byte for byte."""

import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rwkv_convert
from convert.checkpoint_writers import (
    dictionary,
    global_,
    integer,
    text,
    views,
    write_legacy_pth,
    write_pth,
    write_safetensors,
)
from convert.layout_writers import EVERY, LAYOUTS, fla_7, prefixed
from rwkv_convert import ConvertError, ModelError
from rwkv_convert.official_names import find_model
from rwkv_convert.sources import open_source
from twin import synth

pytestmark = pytest.mark.slow

SIZES = {"n_layer": 2, "n_embd": 64, "head_size": 32, "n_vocab": 40, "rank": 32, "rank_wide": 32}


def small(version="7", **options):
    return synth.checkpoint(version, **{**SIZES, **options})


def converted(source, out, **options):
    """The bytes of a model file, and what was understood."""
    summary = rwkv_convert.convert(source, out, force=True, threads=1, **options)
    return out.read_bytes(), summary


@pytest.fixture
def official(tmp_path):
    """`official(checkpoint, ...)`: the bytes of the file from the official names."""

    def convert(checkpoint, **options):
        source = write_safetensors(tmp_path / "official.safetensors", checkpoint, "fp32")
        return converted(source, tmp_path / "official.bin", **options)[0]

    return convert


@pytest.mark.parametrize(("name", "version"), EVERY)
@pytest.mark.parametrize("end", ["bin", "gguf"])
def test_layout_gives_the_file_of_the_official_names(tmp_path, name, version, end):
    if end == "gguf" and version not in ("6", "7"):
        pytest.skip("GGUF has no such version")
    _, write, called = LAYOUTS[name]
    checkpoint = small(version)
    theirs = write(checkpoint)
    assert set(theirs) != set(checkpoint)
    out = tmp_path / f"out.{end}"
    options = {"tokenizer": vocabulary(tmp_path)} if end == "gguf" else {"dtype": "q4_0"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected, _ = converted(
        write_safetensors(tmp_path / "a" / "model.safetensors", checkpoint, "bf16"), out, **options
    )
    shuffled = list(theirs.items())
    random.Random(0).shuffle(shuffled)
    found, summary = converted(
        write_safetensors(tmp_path / "b" / "model.safetensors", dict(shuffled), "bf16"),
        out,
        **options,
    )
    assert found == expected
    assert summary.source.layout == called and summary.warnings == ()
    assert any(called in note or "in '" in note for note in summary.notes)


def vocabulary(folder):
    path = folder / "vocabulary.txt"
    path.write_text("".join(f"{i} {chr(64 + i)!r} 1\n" for i in range(1, 40)))
    return path


def test_layer_0_may_have_the_v_that_nothing_uses(tmp_path, official):
    checkpoint = small(layer0_v=True)
    without = {n: a for n, a in checkpoint.items() if not re.match(r"blocks\.0\.att\.v\d", n)}
    assert len(without) == len(checkpoint) - 3
    for tensors in (checkpoint, without):
        source = write_safetensors(tmp_path / "in.st", fla_7(tensors), "fp32")
        assert converted(source, tmp_path / "out.bin")[0] == official(checkpoint)


# --------------------------------------------------------------------------------------------------
# Prefixes and dicts inside dicts

PREFIXES = ["module.", "_forward_module.", "model.", "_orig_mod.", "rwkv7.", "module._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("version", synth.VERSIONS)
def test_common_prefix_is_taken_off(tmp_path, official, prefix, version):
    checkpoint = small(version)
    source = write_safetensors(tmp_path / "in.st", prefixed(prefix)(checkpoint), "fp32")
    found, summary = converted(source, tmp_path / "out.bin")
    assert found == official(checkpoint)
    assert summary.notes == (f"in '{prefix[:-1]}'",)


def test_head_may_stand_beside_a_part_of_the_prefix(tmp_path, official):
    checkpoint = small()
    theirs = {
        f"module.{n}" if n == "head.weight" else f"module.model.{n}": a
        for n, a in checkpoint.items()
    }
    source = write_safetensors(tmp_path / "in.st", theirs, "fp32")
    assert converted(source, tmp_path / "out.bin")[0] == official(checkpoint)


def write_nested(path, entries, writer=write_pth):
    """A dict of dicts of arrays, and of opcodes."""
    everything, items = {}, b""
    for key, value in entries.items():
        if not isinstance(value, bytes):
            tensors = views(value, "fp32")
            for view in tensors.values():
                view.storage = str(len(everything))
                everything[view.storage] = view
            legacy = writer is write_legacy_pth
            value = dictionary(tensors, legacy=legacy)[2:-1]
        items += text(key) + value
    return writer(path, everything, pickle=b"\x80\x02}(" + items + b"u.")


@pytest.mark.parametrize("writer", [write_pth, write_legacy_pth])
@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_model_inside_a_dict_is_found(tmp_path, official, writer, key):
    moments = {f"{name}.exp_avg": array for name, array in list(small().items())[:3]}
    source = write_nested(
        tmp_path / "in.pth",
        {"epoch": integer(3), key: small(), "optimizer": moments},
        writer,
    )
    found, summary = converted(source, tmp_path / "out.bin")
    assert found == official(small())
    assert summary.warnings == ()
    assert summary.notes == (f"in '{key}'", "passed over: 'epoch', 'optimizer'")
    info = rwkv_convert.info(source)
    assert info.key == key and info.parameters == sum(a.size for a in small().values())


def test_of_two_models_the_key_chooses(tmp_path, official):
    other = small(seed=1)
    source = write_nested(tmp_path / "in.pth", {"model": small(), "ema": other})
    with pytest.raises(ModelError, match=r"expected one model, got 2: 'model', 'ema'\. Try key="):
        rwkv_convert.convert(source, tmp_path / "out.bin")
    assert converted(source, tmp_path / "out.bin", key="ema")[0] == official(other)
    assert converted(source, tmp_path / "out.bin", key="model")[0] == official(small())
    with pytest.raises(ModelError, match="a model at 'nothing', expected one of 'model', 'ema'"):
        rwkv_convert.convert(source, tmp_path / "out.bin", key="nothing", force=True)


def test_of_two_prefixes_the_key_chooses_and_the_rest_is_ignored_knowingly(tmp_path, official):
    both = {**prefixed("a.")(small()), **prefixed("b.")(small(seed=1))}
    source = write_safetensors(tmp_path / "in.st", both, "fp32")
    with pytest.raises(ModelError, match="expected one model, got 2: 'a', 'b'"):
        rwkv_convert.convert(source, tmp_path / "out.bin")
    with pytest.raises(ModelError, match="expected tensors of the model and no others"):
        rwkv_convert.convert(source, tmp_path / "out.bin", key="b")
    found, _ = converted(source, tmp_path / "out.bin", key="b", ignore=["a.*"])
    assert found == official(small(seed=1))


def test_two_tensors_for_one_name_are_refused(tmp_path):
    tensors = {**prefixed("model.")(small()), "head.weight": small()["head.weight"]}
    source = write_safetensors(tmp_path / "in.st", tensors, "fp32")
    with pytest.raises(ModelError, match=r"one tensor for 'head\.weight', got 'model\.head\.weig"):
        rwkv_convert.convert(source, tmp_path / "out.bin")


def test_a_dict_in_itself_ends(tmp_path, official):
    inner = b"}q\x01(" + text("again") + b"h\x01u"
    source = write_nested(tmp_path / "in.pth", {"loop": inner, "model": small()})
    assert converted(source, tmp_path / "out.bin")[0] == official(small())


# --------------------------------------------------------------------------------------------------
# What trainers keep beside the weights

SCALAR = (
    global_("numpy.core.multiarray", "scalar")
    + global_("numpy", "dtype")
    + text("f8")
    + b"\x89\x88\x87R"
    + b"("
    + integer(3)
    + text("<")
    + b"NNN"
    + b"J\xff\xff\xff\xffJ\xff\xff\xff\xff"
    + integer(0)
    + b"tb"
    + global_("_codecs", "encode")
    + text("\x00" * 8)
    + text("latin1")
    + b"\x86R\x86R"
)
STATE = {
    "loss": SCALAR,
    "bytes": b"C\x03abc",
    "hyper_parameters": global_("argparse", "Namespace") + b")\x81}" + text("lr") + SCALAR + b"sb",
    "shape": global_("torch", "Size") + b"(K\x01K\x02t\x85R",
    "device": global_("torch", "device") + text("cuda") + b"\x85R",
    "groups": global_("collections", "defaultdict")
    + global_("__builtin__", "list")
    + b"\x85R("
    + text("a")
    + b"]u",
    "names": global_("__builtin__", "set") + b"]" + text("a") + b"a\x85R",
    "more": b"\x8f(" + text("a") + b"\x90",
    "path": global_("pathlib", "PosixPath") + text("a") + b"\x85R",
    "scaler": global_("deepspeed.runtime.fp16.loss_scaler", "LossScaler")
    + b")\x81}"
    + text("cur_scale")
    + integer(1)
    + b"sb",
}


@pytest.mark.parametrize("name", STATE)
def test_trainer_state_is_passed_over(tmp_path, official, name):
    source = write_nested(tmp_path / "in.pth", {name: STATE[name], "state_dict": small()})
    assert converted(source, tmp_path / "out.bin")[0] == official(small())


def test_other_classes_are_refused_by_name(tmp_path):
    source = write_nested(
        tmp_path / "in.pth", {"x": global_("os", "system") + text("true") + b"\x85R"}
    )
    with pytest.raises(rwkv_convert.UnsafePickleError, match=r"the global 'os\.system'|os\.system"):
        rwkv_convert.info(source)


def test_state_with_what_runs_code_inside_is_refused(tmp_path):
    bad = global_("argparse", "Namespace") + b")\x81}" + text("x")
    bad += global_("posix", "system") + text("true") + b"\x85Rsb"
    with pytest.raises(rwkv_convert.UnsafePickleError, match=r"posix\.system"):
        rwkv_convert.info(write_nested(tmp_path / "in.pth", {"x": bad, "model": small()}))


def test_fp64_is_rounded_to_fp32(tmp_path, official):
    path = tmp_path / "in.safetensors"
    header, data = {}, b""
    for name, array in small().items():
        raw = array.astype("<f8").tobytes()
        header[name] = {
            "dtype": "F64",
            "shape": array.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text_ = json.dumps(header).encode()
    path.write_bytes(len(text_).to_bytes(8, "little") + text_ + data)
    for dtype in ("fp32", "q5_1"):
        assert converted(path, tmp_path / "out.bin", dtype=dtype)[0] == official(
            small(), dtype=dtype
        )


# --------------------------------------------------------------------------------------------------
# What is not known is refused

UNKNOWN = {
    "matrices": ({"head_q.weight": (16, 64), "head_k.weight": (16, 64)}, "'head_q.weight', 'head"),
    "in a layer": ({"blocks.1.att.extra": (1, 1, 64)}, r"'blocks\.1\.att\.extra'"),
    "a bias": ({"blocks.1.att.key.bias": (64,)}, r"'blocks\.1\.att\.key\.bias'"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_may_be_a_part_of_the_model_is_refused(tmp_path, official, case):
    shapes, message = UNKNOWN[case]
    extra = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    source = write_safetensors(tmp_path / "in.st", {**small("4"), **extra}, "fp32")
    with pytest.raises(ModelError, match=f"no others, got {message}.*Try ignore="):
        rwkv_convert.convert(source, tmp_path / "out.bin")
    with pytest.raises(ModelError, match="no others"):
        rwkv_convert.info(source)
    found, summary = converted(source, tmp_path / "out.bin", ignore=list(extra))
    assert found == official(small("4"))
    assert len(summary.notes) == 1 and summary.notes[0].startswith("ignored: ")


def test_the_file_s_own_name_is_told(tmp_path):
    tensors = {**fla_7(small()), "model.layers.0.attn.extra.weight": np.ones((4, 4), np.float32)}
    source = write_safetensors(tmp_path / "in.st", tensors, "fp32")
    with pytest.raises(ModelError, match=r"got 'model\.layers\.0\.attn\.extra\.weight'"):
        rwkv_convert.info(source)


def test_pattern_that_ignores_nothing_is_told(tmp_path, make_pth):
    summary = rwkv_convert.convert(make_pth("4"), tmp_path / "out.bin", ignore=["copy_*"])
    assert "no tensor has a name like 'copy_*'" in summary.warnings[0]


def test_tensors_that_a_layout_cannot_take_apart_are_refused(tmp_path):
    tensors = fla_7(small())
    tensors["model.layers.1.attn.w_lora.lora.0.weight"] = np.zeros((2, 2, 2), np.float32)
    source = write_safetensors(tmp_path / "in.st", tensors, "fp32")
    with pytest.raises(ModelError, match=r"w_lora\.lora\.0\.weight', expected 2 dimensions"):
        rwkv_convert.info(source)


# --------------------------------------------------------------------------------------------------
# Names of any kind

WORDS = ["blocks", "layers", "0", "1", "att", "attn", "attention", "k_k", "x_x", "x_bias", "emb"]
WORDS += ["weight", "bias", "head", "lm_head", "model", "module", "w_lora", "lora", "2", "x" * 9]


@given(
    names=st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(".".join)
        | st.text(max_size=9),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    shape=st.lists(st.integers(0, 6), max_size=3),
    key=st.none() | st.sampled_from(["model", ""]),
)
@settings(deadline=None)
def test_names_of_any_kind_are_converted_or_refused(tmp_path_factory, names, shape, key):
    path = tmp_path_factory.getbasetemp() / "names.st"
    write_safetensors(path, {n: np.zeros(shape, np.float32) for n in names}, "fp32")
    try:
        found = find_model(open_source(path), key)
        rwkv_convert.info(path, key=key)
    except ConvertError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
    else:
        assert len(found.tensors) >= len(names)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_name_changed_anywhere_is_noticed(tmp_path_factory, data):
    """A tensor under a wrong name is never left out silently."""
    layout, version = data.draw(st.sampled_from(EVERY))
    theirs = LAYOUTS[layout][1](small(version))
    name = data.draw(st.sampled_from(sorted(theirs)))
    at = data.draw(st.integers(0, len(name) - 1))
    wrong = name[:at] + data.draw(st.sampled_from("qQ_.7")) + name[at + 1 :]
    if wrong in theirs:
        return
    theirs = {wrong if n == name else n: a for n, a in theirs.items()}
    path = write_safetensors(tmp_path_factory.getbasetemp() / "wrong.st", theirs, "fp32")
    unused = version == "7" and re.search(r"\b0\.(att|attn|attention|linear_attn)\.v", name)
    if not unused:
        with pytest.raises(ConvertError):
            rwkv_convert.info(path)
