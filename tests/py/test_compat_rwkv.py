"""`rwkv_py.compat.rwkv`: the interface of the PyPI package. tests/oracle compares the numbers."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import (
    InvalidArgumentError,
    Model,
    ModelFileError,
    Session,
    StateMismatchError,
    TokenOutOfRangeError,
    VocabularyError,
)
from rwkv_py.compat.rwkv import PIPELINE, PIPELINE_ARGS, RWKV, TRIE_TOKENIZER

ModelFile = Callable[..., Path]


@pytest.fixture
def rwkv(converted: Callable[[str], Path]) -> RWKV:
    return RWKV(model=converted("q4_0"), strategy="cpu fp32", tensors="numpy")


@pytest.mark.parametrize("version", ["4", "5.1", "5.2", "6", "7"])
def test_states_are_lists_that_can_be_kept(version: str, model_file: ModelFile) -> None:
    path = model_file(version)
    rwkv = RWKV(path, tensors="numpy")
    session = Session(Model(path))
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    expected = session.feed(tokens)
    for cut in (1, 5):
        _, state = rwkv.forward(tokens[:cut], None)
        kept = copy.deepcopy(state)
        rwkv.forward([7, 7], state)
        logits, after = rwkv.forward(tokens[cut:], kept)
        np.testing.assert_array_equal(logits, expected)
    info = session.model.info
    of_heads = (info.n_head, info.head_size, info.head_size)
    shift = (info.n_embd,)
    shapes = [shift] * 5 if version == "4" else [shift, of_heads, shift]
    assert [part.shape for part in after] == shapes * info.n_layer
    assert all(part.dtype == np.float32 for part in after)
    assert not np.shares_memory(after[0], after[1])


@pytest.mark.parametrize("version", ["4", "7"])
def test_a_list_that_is_given(version: str, model_file: ModelFile) -> None:
    """Up to version 6 the package puts new tensors into it, for version 7 it makes another."""
    rwkv = RWKV(model_file(version), tensors="numpy")
    state = rwkv.generate_zero_state()
    arrays, values = list(state), copy.deepcopy(state)
    _, after = rwkv.forward([1, 2], state)
    assert (after is state) == (version == "4")
    assert all(a is b for a, b in zip(state, arrays, strict=True)) == (version == "7")
    for array, value in zip(arrays, values, strict=True):
        np.testing.assert_array_equal(array, value)


def test_zero_state_is_where_none_begins(model_file: ModelFile) -> None:
    rwkv = RWKV(model_file("4"), tensors="numpy")
    state = rwkv.generate_zero_state()
    assert all((state[5 * i + 3] == np.float32(-1e30)).all() for i in range(2))
    np.testing.assert_array_equal(rwkv.forward([1], state)[0], rwkv.forward([1], None)[0])


def test_full_output(rwkv: RWKV) -> None:
    rows, _ = rwkv.forward([72, 105, 33], None, full_output=True)
    assert rows.shape == (3, 256)
    state = None
    for token, row in zip([72, 105, 33], rows, strict=True):
        logits, state = rwkv.forward(token, state)  # an int is a token
        np.testing.assert_array_equal(logits, row)
    assert rwkv.forward([72], None, True)[0].shape == (256,)


def test_what_it_tells_of_itself(rwkv: RWKV, model_file: ModelFile) -> None:
    args = rwkv.args
    assert (args.n_layer, args.n_embd, args.vocab_size, args.head_size) == (6, 256, 256, 64)
    assert (args.n_ffn, args.n_att, args.n_head) == (1024, 256, 4)
    assert (rwkv.n_layer, rwkv.n_embd, rwkv.n_head, rwkv.head_size) == (6, 256, 4, 64)
    versions = {"4": 4, "5.1": 5, "5.2": 5.2, "6": 6}
    assert {v: RWKV(model_file(v)).version for v in versions} == versions
    assert rwkv.version == 7


def test_the_file_is_found_as_a_pth_is(tmp_path: Path, converted: Callable[[str], Path]) -> None:
    for file in ("a.bin", "b.gguf", "c.d", "e.pth"):
        (tmp_path / file).symlink_to(converted("q4_0"))
    (tmp_path / "e.bin").symlink_to(converted("q8_0"))
    (tmp_path / "a.gguf").write_bytes(b"")  # .bin comes first
    for name in ("a", "a.bin", "a.pth", "b", "b.gguf", "c.d", " a\n"):
        assert RWKV(f"{tmp_path}/{name}" if name != " a\n" else f" {tmp_path}/a\n").version == 7
    assert RWKV(tmp_path / "e.pth").model.info.data_type == "q8_0"
    with pytest.raises(
        ModelFileError, match=r"x\.bin: does not exist, .*x\.gguf\. Try `rwkv-convert \S*x\.pth "
    ):
        RWKV(tmp_path / "x")
    with pytest.raises(ModelFileError, match=r"x\.bin"):
        RWKV(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "strategy",
    [
        "cpu fp32", "cuda fp16", "cuda:0 fp16 *10 -> cuda:1 fp16 *8 -> cpu fp32", "mps bf16",
        "cuda fp16i8 *10+", "cuda fp16i8 *0+ -> cpu fp32 *1", "cpu fp32i8", "dml fp32",
    ],
)  # fmt: skip
def test_strategies_of_the_package(strategy: str, converted: Callable[[str], Path]) -> None:
    assert RWKV(converted("q4_0"), strategy).args.strategy_string == strategy


@pytest.mark.parametrize("strategy", ["", "cpu", "fp32", "cpu fp8", "cpu fp32 -> ", "gpu fp16"])
def test_strategies_that_make_no_sense(strategy: str, converted: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="strategy: expected 'cpu fp32'"):
        RWKV(converted("q4_0"), strategy)


def test_bad_arguments(rwkv: RWKV, converted: Callable[[str], Path]) -> None:
    _, state = rwkv.forward([1], None)
    uses: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (InvalidArgumentError, "at least one token", lambda: rwkv.forward([], None)),
        (TokenOutOfRangeError, r"tokens\[1\].*got 256", lambda: rwkv.forward([1, 256], None)),
        (InvalidArgumentError, "tokens", lambda: rwkv.forward("text", None)),
        (StateMismatchError, "18 arrays, 3 a layer, got 17", lambda: rwkv.forward([1], state[1:])),
        (StateMismatchError, "got Floats", lambda: rwkv.forward([1], state[1])),
        (
            StateMismatchError,
            r"state\[3\]: expected shape \(256,\), got \(4, 64, 64\)",
            lambda: rwkv.forward([1], [*state[:3], state[1], *state[4:]]),
        ),
        (
            InvalidArgumentError,
            "Try the command rwkv-convert",
            lambda: RWKV(converted("q4_0"), "cpu fp32", convert_and_save_and_exit="a"),
        ),
        (
            InvalidArgumentError,
            "tensors: expected",
            lambda: RWKV(converted("q4_0"), tensors="jax"),  # type: ignore[arg-type]
        ),
    ]
    for kind, message, use in uses:
        with pytest.raises(kind, match=message):
            use()


def test_a_failed_call_changes_no_state(rwkv: RWKV) -> None:
    _, state = rwkv.forward([1], None)
    before = copy.deepcopy(state)
    with pytest.raises(TokenOutOfRangeError):
        rwkv.forward([300], state)
    assert all((a == b).all() for a, b in zip(state, before, strict=True))


def test_arrays_answer_as_tensors_do(rwkv: RWKV) -> None:
    logits, _ = rwkv.forward([1], None)
    plain = logits.detach().cpu().float().numpy()
    assert type(plain) is np.ndarray
    copied = logits.clone()
    copied[0] = 5
    assert logits[0] == plain[0] != 5


def test_torch_is_not_imported(converted: Callable[[str], Path]) -> None:
    program = (
        "import sys\n"
        "from rwkv_py.compat.rwkv import PIPELINE, RWKV\n"
        "model = RWKV(sys.argv[1])\n"
        "PIPELINE(model, 'bytes').generate('a', 3)\n"
        "assert not {'torch', 'tokenizers', 'tiktoken'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, converted("q4_0")], check=True)


def test_torch_that_is_missing(rwkv: RWKV, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    rwkv._tensors = "torch"
    with pytest.raises(ImportError, match=r'found none.* tensors="numpy" in RWKV'):
        rwkv.forward([1], None)


def test_generate_greedily_is_what_a_session_writes(rwkv: RWKV) -> None:
    pieces: list[str] = []
    args = PIPELINE_ARGS(temperature=0, alpha_presence=0.3, alpha_frequency=0.4, alpha_decay=0.9)
    text = PIPELINE(rwkv, "bytes").generate("import ", 60, args, callback=pieces.append)
    assert "".join(pieces) == text
    assert text == Session(rwkv.model).generate(
        "import ",
        max_tokens=60,
        temperature=0,
        presence_penalty=0.3,
        frequency_penalty=0.4,
        penalty_decay=0.9,
        stop_tokens=(),
    )


def test_generate_goes_on_from_a_state(rwkv: RWKV) -> None:
    pipeline = PIPELINE(rwkv, "bytes")
    args = PIPELINE_ARGS(temperature=0, chunk_len=3)
    _, state = rwkv.forward(list(b"The :mod:`json`"), None)
    whole = pipeline.generate("The :mod:`json` module", 30, PIPELINE_ARGS(temperature=0))
    assert pipeline.generate(" module", 30, args, state=state) == whole
    assert pipeline.generate("a", 0) == ""
    with pytest.raises(InvalidArgumentError, match="ctx: expected a text of at least one token"):
        pipeline.generate("", 1)


class Fixed:
    """A model that expects the same whatever it reads: tokens 65 to 68, ever less."""

    def forward(self, tokens: list[int], state: Any) -> tuple[np.ndarray, Any]:
        logits = np.full(256, -50, np.float32)
        logits[65:69] = [4, 3, 2, 1]
        return logits, state


def test_bans_stops_and_penalties() -> None:
    pipeline = PIPELINE(Fixed(), "bytes")
    greedy: dict[str, Any] = {"temperature": 0, "alpha_presence": 0, "alpha_frequency": 0}
    assert pipeline.generate("x", 3, PIPELINE_ARGS(**greedy)) == "AAA"
    assert pipeline.generate("x", 3, PIPELINE_ARGS(**greedy, token_ban=[65])) == "BBB"
    assert pipeline.generate("x", 3, PIPELINE_ARGS(**greedy, token_stop=[65])) == ""
    presence = PIPELINE_ARGS(temperature=0, alpha_presence=1.5, alpha_frequency=0)
    assert pipeline.generate("x", 4, presence) == "ABAA"
    frequency = PIPELINE_ARGS(temperature=0, alpha_presence=0, alpha_frequency=1.5, alpha_decay=1)
    assert pipeline.generate("x", 4, frequency) == "ABAC"
    np.random.seed(1)
    two = PIPELINE_ARGS(top_p=1, top_k=2, temperature=2, alpha_presence=0, alpha_frequency=0)
    assert set(pipeline.generate("x", 60, two)) == {"A", "B"}
    # 0.644 + 0.237: the second reaches 0.8.
    cut = PIPELINE_ARGS(top_p=0.8, temperature=2, alpha_presence=0, alpha_frequency=0)
    assert set(pipeline.generate("x", 60, cut)) == {"A", "B"}


def test_sampling_is_seeded_with_numpy(rwkv: RWKV) -> None:
    pipeline = PIPELINE(rwkv, "bytes")
    texts = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        texts.append(pipeline.generate("import ", 20))
    assert texts[0] == texts[1] != texts[2]


def test_rounding_that_never_reaches_top_p() -> None:
    """A sum that stays below 1 cuts nothing; the package takes the most probable token then."""
    pipeline = PIPELINE(Fixed(), "bytes")
    logits = np.zeros(1000, np.float32)
    assert np.cumsum(np.full(1000, np.exp(np.float32(0)) / np.float32(1000)))[-1] < 1
    np.random.seed(1)
    assert len({pipeline.sample_logits(logits, top_p=1.0) for _ in range(50)}) > 20


def test_trie_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = PIPELINE(Fixed(), "rwkv_vocab_v20230424")
    tokenizer = pipeline.tokenizer
    assert isinstance(tokenizer, TRIE_TOKENIZER)
    assert pipeline.encode("Hello, world!") == [33155, 45, 40213, 34]
    assert pipeline.decode([33155, 45]) == "Hello,"
    assert tokenizer.decodeBytes(tokenizer.encodeBytes(b"\xff!")) == b"\xff!"
    assert tokenizer.decode([33155, 195]) == tokenizer.decode([0]) == "\ufffd"
    assert tokenizer.decode([65531]) == "\ufffd"
    assert tokenizer.idx2token[33155] == b"Hello" and tokenizer.token2idx[b"Hello"] == 33155
    assert 0 not in tokenizer.idx2token and len(tokenizer.idx2token) == 65529
    tokenizer.printTokens([33155, 256])
    assert capsys.readouterr().out == "'Hello'33155 b'\\xff'256 \n"


def test_other_vocabularies(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    path = tmp_path / "20B_tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(path))
    pipeline = PIPELINE(Fixed(), path)
    assert pipeline.encode("b") == [1]
    assert pipeline.decode([1]) == "b"
    with pytest.raises(VocabularyError, match=r"missing\.json: expected a tokenizer.json"):
        PIPELINE(Fixed(), tmp_path / "missing.json")


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package, name in (("tiktoken", "cl100k_base"), ("tokenizers", str(tmp_path / "a.json"))):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"expected the package {package} .*Try `pip"):
            PIPELINE(Fixed(), name)


def test_refine_context() -> None:
    pipeline = PIPELINE(Fixed(), "bytes")
    assert pipeline.refine_context("  a \r\n\n\u3000b\u3000\n  \n") == "\na\nb"
    assert pipeline.refine_context(" \n ") == "\n"
