"""The World tokenizer against the TRIE_TOKENIZER of the PyPI package `rwkv`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rwkv_py import Tokenizer

OURS = Tokenizer.world()


def their_folder() -> Path:
    spec = importlib.util.find_spec("rwkv")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def theirs() -> Any:
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    return TRIE_TOKENIZER(str(their_folder() / "rwkv_vocab_v20230424.txt"))


def test_vocabulary_is_theirs(theirs: Any) -> None:
    assert OURS.n_vocab == max(theirs.idx2token) + 1
    for token, data in theirs.idx2token.items():
        assert OURS.decode_bytes([token]) == data


# Pieces of which the vocabulary has many combinations: letters, spaces, code, several scripts.
words = st.sampled_from(
    ["the", " The", "\n", "\n\n", "  ", "\t", "import ", "def", "():", "===", "1984", " ", "é", "ß",
     "你好", "中国", "。", "こんにちは", "привет", "🙂", "\u200d", "\\", "'", '"', "-", "\r\n"]
)  # fmt: skip
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.lists(words, max_size=60).map("".join)
)


@settings(max_examples=1500)
@given(texts)
@example("")
@example("\0")
def test_encode_text(theirs: Any, text: str) -> None:
    assert OURS.encode(text) == theirs.encode(text)


@settings(max_examples=1500)
@given(st.binary(max_size=200))
def test_encode_and_decode_bytes(theirs: Any, data: bytes) -> None:
    tokens = theirs.encodeBytes(data)
    assert OURS.encode(data) == tokens
    assert OURS.decode_bytes(tokens) == theirs.decodeBytes(tokens) == data


@given(st.lists(st.integers(1, 65529), max_size=50))
def test_decode_any_tokens(theirs: Any, tokens: list[int]) -> None:
    assert OURS.decode_bytes(tokens) == theirs.decodeBytes(tokens)


def test_encode_whole_files(theirs: Any, examples: Path) -> None:
    for path in (examples / "heldout_a.txt", their_folder() / "rwkv_vocab_v20230424.txt"):
        data = path.read_bytes()[:300_000]
        assert OURS.encode(data) == theirs.encodeBytes(data)
