"""`rwkv_py.compat.rwkv_cpp`: the interface of rwkv.cpp's Python modules, and its numbers."""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rwkv_convert
from rwkv_py import Model, Session, VocabularyError, _core
from rwkv_py.compat.rwkv_cpp import rwkv_world_tokenizer, sampling, tokenizer_util
from rwkv_py.compat.rwkv_cpp.rwkv_cpp_model import RWKVModel
from rwkv_py.compat.rwkv_cpp.rwkv_cpp_shared_library import (
    QUANTIZED_FORMAT_NAMES,
    RWKVSharedLibrary,
    load_rwkv_shared_library,
)

ModelFile = Callable[..., Path]
VERSIONS = ["4", "5.1", "5.2", "6", "7"]
# rwkv.cpp computes the norm of version 5 with this eps, the official models with another.
EPS = {"5.1": 1e-5, "5.2": 1e-5}


@pytest.fixture
def library() -> RWKVSharedLibrary:
    return load_rwkv_shared_library()


@pytest.fixture
def model(library: RWKVSharedLibrary, converted: Callable[[str], Path]) -> RWKVModel:
    return RWKVModel(library, str(converted("q4_0")))


@pytest.mark.parametrize(
    ("name", "type", "tolerance"),
    [
        ("4v0-660K", "FP32", 1e-3),
        ("5v2-730K", "FP32", 1e-3),
        ("6v0-3m", "Q5_1", 0.3),
        ("7v0-834K", "FP32", 1e-3),
    ],
)
def test_expected_logits_of_rwkv_cpp(
    name: str, type: str, tolerance: float, library: RWKVSharedLibrary, shared: Path
) -> None:
    model = RWKVModel(library, str(shared / f"models/tiny-rwkv-{name}-{type}.bin"), 2)
    logits, state = None, None
    for token in b'"in':
        logits, state = model.eval(token, state, state, logits, use_numpy=True)
    expected = np.fromfile(shared / f"models/expected-logits-{name}.bin", np.float32)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
    assert (model.arch_version_major, model.arch_version_minor) == (int(name[0]), int(name[2]))


@pytest.mark.parametrize("version", VERSIONS)
def test_states_go_in_and_come_out(
    version: str, library: RWKVSharedLibrary, model_file: ModelFile
) -> None:
    path = model_file(version)
    model = RWKVModel(library, path, thread_count=1, gpu_layers_count=99)
    session = Session(Model(path, ln_x_eps=EPS.get(version)))
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    expected, expected_state = session.feed(tokens), session.state
    assert (model.n_vocab, model.n_embed, model.n_layer) == (64, 128, 2)
    assert model._state_buffer_element_count == expected_state.size

    logits, state = model.eval_sequence(tokens, None, use_numpy=True)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state, expected_state)

    # In place, as scripts do; then from one buffer to others.
    logits, state = model.eval_sequence_in_chunks(tokens[:5], None, chunk_size=2, use_numpy=True)
    kept = state.copy()
    same = model.eval_sequence(tokens[5:], state, state, logits)
    assert same[0] is logits and same[1] is state
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state, expected_state)
    again, after = model.eval_sequence(tokens[5:], kept.copy())
    np.testing.assert_array_equal(again, expected)
    for token in tokens[5:]:
        logits, kept = model.eval(token, kept)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(kept, after)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_is_opened_once(
    version: str,
    library: RWKVSharedLibrary,
    model_file: ModelFile,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And nothing is said of rwkv.cpp's eps, which it has."""
    paths, open_file = [], _core.Model

    def counted(path: bytes, *options: Any) -> _core.Model:
        paths.append(path)
        return open_file(path, *options)

    monkeypatch.setattr(_core, "Model", counted)
    RWKVModel(library, model_file(version))
    assert len(paths) == 1
    assert caplog.records == []


def test_functions_of_the_library_take_addresses(
    library: RWKVSharedLibrary, converted: Callable[[str], Path]
) -> None:
    ctx = library.rwkv_init_from_file(str(converted("q4_0")), 2, 0)
    n_state = library.rwkv_get_state_buffer_element_count(ctx)
    n_logits = library.rwkv_get_logits_buffer_element_count(ctx)
    state, logits = np.zeros(n_state, np.float32), np.zeros(n_logits, np.float32)
    into = (state.ctypes.data, logits.ctypes.data)
    library.rwkv_eval(ctx, 72, None, *into)
    library.rwkv_eval_sequence(ctx, [105, 33], state.ctypes.data, *into)
    library.rwkv_eval_sequence_in_chunks(ctx, [33, 33], 16, state.ctypes.data, *into)
    session = Session(converted("q4_0"))
    np.testing.assert_array_equal(logits, session.feed(b"Hi!!!"))
    np.testing.assert_array_equal(state, session.state)
    before = logits.copy()
    library.rwkv_eval(ctx, 1, 0, None, None)  # nothing is wanted
    np.testing.assert_array_equal(logits, before)
    assert (library.rwkv_get_n_vocab(ctx), library.rwkv_get_n_embed(ctx)) == (256, 256)
    assert library.rwkv_get_n_layer(ctx) == 6
    assert library.rwkv_get_arch_version_major(ctx) == 7
    assert "rwkv-runtime" in library.rwkv_get_system_info_string()
    library.rwkv_free(ctx)
    assert ctx.ptr is None
    with pytest.raises(ValueError, match="rwkv_eval failed: ctx: was freed"):
        library.rwkv_eval(ctx, 72, None, *into)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_path": "/nowhere/a.bin"}, "/nowhere/a.bin is not a file"),
        ({"thread_count": 0}, "Thread count must be > 0, .*got 0$"),
        ({"gpu_layer_count": -1}, "GPU layer count must be >= 0"),
        ({"gpu_layers_count": -1}, "GPU layer count must be >= 0"),
    ],
)
def test_models_that_cannot_be_opened(
    arguments: dict[str, Any],
    message: str,
    library: RWKVSharedLibrary,
    converted: Callable[[str], Path],
) -> None:
    with pytest.raises(ValueError, match=message):
        RWKVModel(library, **{"model_path": converted("q4_0"), **arguments})


def test_a_file_of_something_else(library: RWKVSharedLibrary, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"<html>" * 20)
    with pytest.raises(ValueError, match=r"^rwkv_init_from_file failed: \S*a\.bin: .*expected"):
        RWKVModel(library, str(tmp_path / "a.bin"))


def test_freed_models(model: RWKVModel) -> None:
    model.free()
    with pytest.raises(ValueError, match="Already freed"):
        model.free()
    for use in (
        lambda: model.eval(1, None, use_numpy=True),
        lambda: model.eval_sequence([1], None, use_numpy=True),
        lambda: model.eval_sequence_in_chunks([1], None, use_numpy=True),
    ):
        with pytest.raises(ValueError, match="Model was freed"):
            use()


def test_nobody_has_to_free(library: RWKVSharedLibrary, converted: Callable[[str], Path]) -> None:
    model = RWKVModel(library, converted("q4_0"))
    opened = weakref.ref(model._ctx.opened.model)
    model.eval(1, None, use_numpy=True)
    del model
    gc.collect()
    assert opened() is None


@pytest.mark.parametrize(
    ("name", "buffer", "message"),
    [
        ("state_in", np.zeros(5, np.float32), r"invalid shape, expected \(101376,\), got \(5,\)"),
        ("state_in", np.zeros(101376), "not of type float32, .*got float64"),
        ("state_out", np.zeros(2 * 101376, np.float32)[::2], "not contiguous"),
        ("logits_out", np.zeros((1, 256), np.float32), r"invalid shape.*\(1, 256\)"),
        ("logits_out", [0.0] * 256, "expected a numpy array or a torch tensor, got list"),
        ("logits_out", np.broadcast_to(np.float32(0), (256,)), "contiguous|read-only"),
    ],
)
def test_buffers_that_do_not_fit(name: str, buffer: Any, message: str, model: RWKVModel) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*({message})"):
        model.eval(1, **{"state_in": None, "use_numpy": True, name: buffer})


def test_bad_tokens_and_chunks_change_nothing(model: RWKVModel) -> None:
    logits, state = model.eval(1, None, use_numpy=True)
    before = logits.copy(), state.copy()
    for tokens in ([256], [-1], [], [2, 300]):
        with pytest.raises(ValueError, match=r"^rwkv_eval_sequence failed: .*expected"):
            model.eval_sequence(tokens, state, state, logits)
    with pytest.raises(ValueError, match="rwkv_eval failed"):
        model.eval(256, state, state, logits)
    with pytest.raises(ValueError, match="chunk_size: expected 1 or more, got 0"):
        model.eval_sequence_in_chunks([1], state, chunk_size=0)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(state, before[1])


def test_torch_is_late_and_optional(
    model: RWKVModel, converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys\n"
        "from rwkv_py.compat.rwkv_cpp import rwkv_cpp_model, rwkv_cpp_shared_library, sampling\n"
        "from rwkv_py.compat.rwkv_cpp import tokenizer_util\n"
        "library = rwkv_cpp_shared_library.load_rwkv_shared_library()\n"
        "model = rwkv_cpp_model.RWKVModel(library, sys.argv[1])\n"
        "logits, state = model.eval(1, None, use_numpy=True)\n"
        "sampling.sample_logits(logits)\n"
        "assert not {'torch', 'tokenizers', 'rwkv_convert'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, converted("q4_0")], check=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"torch.*use_numpy=True in RWKVModel"):
        model.eval(1, None)


def test_quantize(
    library: RWKVSharedLibrary,
    model_file: ModelFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, out = model_file("7", n_embd=64), tmp_path / "out"
    out.write_text("old")
    for name in QUANTIZED_FORMAT_NAMES:
        if name.endswith("K"):
            with pytest.raises(ValueError, match=r"rwkv_quantize_model_file failed: .*ggmf"):
                library.rwkv_quantize_model_file(source, out, name)
            continue
        library.rwkv_quantize_model_file(str(source), str(out), name)
        ours = tmp_path / "ours.bin"
        rwkv_convert.convert(source, ours, dtype=name, layout="rwkv.cpp", force=True)
        assert out.read_bytes() == ours.read_bytes()
    with pytest.raises(ValueError, match=r"format_name: expected one of Q4_0, .*got 'Q9'"):
        library.rwkv_quantize_model_file(source, out, "Q9")
    with pytest.raises(ValueError, match=r"rwkv_quantize_model_file failed: .*missing"):
        library.rwkv_quantize_model_file(tmp_path / "missing", out, "Q4_0")
    monkeypatch.setitem(sys.modules, "rwkv_convert", None)
    with pytest.raises(ImportError, match="Try `pip install rwkv-convert`"):
        library.rwkv_quantize_model_file(source, out, "Q4_0")


PROBABILITIES = np.array([0.1, 0.4, 0.2, 0.3], np.float32)


def drawn(**options: Any) -> set[int]:
    np.random.seed(1)
    return {sampling.sample_probs(PROBABILITIES, **options) for _ in range(200)}


def test_sample_probs() -> None:
    assert drawn(temperature=0) == {1}
    assert drawn(top_p=0.3) == {1}
    assert drawn(top_p=0.65) == {1, 3}
    assert drawn(top_p=0) == drawn(top_p=1) == {0, 1, 2, 3}
    assert drawn(temperature=0, logit_bias={2: 5.0}) == {2}
    assert drawn(top_p=1.0, temperature=0.01) == {1}
    # The sum must exceed it: 0.5 alone does not exceed 0.5, but reaches it.
    half = np.array([0.5, 0.25, 0.25], np.float32)
    np.random.seed(1)
    assert {sampling.sample_probs(half, top_p=0.5) for _ in range(99)} == {0, 1, 2}
    np.testing.assert_array_equal(PROBABILITIES, np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    for bad in ({"temperature": -1}, {"top_p": 1.1}, {"top_p": -0.1}, {"temperature": np.nan}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))}: expected"):
            sampling.sample_probs(PROBABILITIES, **bad)


def test_sample_logits_leaves_them_as_they_are() -> None:
    logits = np.log(PROBABILITIES) + 5
    before = logits.copy()
    np.testing.assert_allclose(sampling.softmax(logits, axis=-1), PROBABILITIES, rtol=1e-6)
    assert sampling.sample_logits(logits, temperature=0) == 1
    assert sampling.sample_logits(logits, 0, 0.5, {0: 9.0}) == 0
    np.testing.assert_array_equal(logits, before)
    np.random.seed(3)
    mixed = [sampling.sample_logits(logits, 0.8, 0.9) for _ in range(300)]
    np.random.seed(3)
    assert mixed == [sampling.sample_probs(PROBABILITIES, 0.8, 0.9) for _ in range(300)]


def test_world_tokenizer(tmp_path: Path) -> None:
    decode, encode = rwkv_world_tokenizer.get_world_tokenizer_v20230424()
    assert decode(encode("Hello, wörld!")) == "Hello, wörld!"
    assert decode([33155, 195]) == "Hello\ufffd"
    lines = [f"{byte + 1} {bytes([byte])!r} 1" for byte in range(256)]
    (tmp_path / "small.txt").write_text("\n".join([*lines, "300 'Hello' 5\n"]))
    small = rwkv_world_tokenizer.WorldTokenizer(tmp_path / "small.txt")
    assert small.encode("Hello!") == [300, 34]
    assert small.index_to_token == {**{i + 1: bytes([i]) for i in range(256)}, 300: b"Hello"}
    assert small.token_to_index[b"Hello"] == 300
    assert small.decode_bytes(small.encode_bytes(b"\xff\x00")) == b"\xff\x00"


def test_get_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    tokenizer_util.add_tokenizer_argument(parser)
    assert parser.parse_args([]).tokenizer == "auto"
    assert parser.parse_args(["20B"]).tokenizer == "20B"
    for name, n_vocab in (("auto", 65536), ("world", 1)):
        decode, encode = tokenizer_util.get_tokenizer(name, n_vocab)
        assert encode("Hello") == [33155] and decode([33155]) == "Hello"
    assert tokenizer_util.get_tokenizer("auto", 256)[1]("Hi") == [72, 105]
    with pytest.raises(ValueError, match=r"auto, expected 50277 \(20B\).*got 1000"):
        tokenizer_util.get_tokenizer("auto", 1000)

    from tokenizers import Tokenizer, models

    monkeypatch.chdir(tmp_path)
    with pytest.raises(VocabularyError, match=r"20B_tokenizer\.json.*found none"):
        tokenizer_util.get_tokenizer("auto", 50277)
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save("20B_tokenizer.json")
    decode, encode = tokenizer_util.get_tokenizer("20B", 50277)
    assert encode("b") == [1] and decode([1]) == "b"


def test_inference_as_in_the_readme(converted: Callable[[str], Path]) -> None:
    """The steps of rwkv.cpp's example, one after the other."""
    library = load_rwkv_shared_library()
    model = RWKVModel(library, str(converted("q4_0")), gpu_layer_count=99)
    decode, encode = tokenizer_util.get_tokenizer("auto", model.n_vocab)
    logits, state = model.eval_sequence_in_chunks(encode("import "), None, None, None, 16, True)
    np.random.seed(4)
    text = ""
    for _ in range(32):
        token = sampling.sample_logits(logits, temperature=0.8, top_p=0.5)
        text += decode([token])
        logits, state = model.eval(token, state, state, logits, use_numpy=True)
    assert len(text) == 32
    model.free()
