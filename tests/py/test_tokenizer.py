from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rwkv_runtime
from rwkv_py import (
    InvalidArgumentError,
    StreamingDecoder,
    Tokenizer,
    TokenOutOfRangeError,
    VocabularyError,
)

WORLD = Tokenizer.world()
BYTEWISE = Tokenizer.bytewise()
any_text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("\n", [11]),
        ("\n\n", [261]),
        ("Hello, world!", [33155, 45, 40213, 34]),
        ("User: 你好\n\nAssistant:", [24281, 59, 33, 10464, 11685, 261, 5585, 41693, 59]),
        (b"\x00\xff", [1, 256]),
    ],
)
def test_world_known_tokens(text: str | bytes, tokens: list[int]) -> None:
    assert WORLD.encode(text) == tokens


@given(any_text)
def test_round_trip_text(text: str) -> None:
    for tokenizer in (WORLD, BYTEWISE):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.binary())
def test_round_trip_bytes(data: bytes) -> None:
    for tokenizer in (WORLD, BYTEWISE):
        assert tokenizer.decode_bytes(tokenizer.encode(data)) == data


@given(st.text(alphabet=" \n\tabcdefe\u0301你好🙂-=", max_size=300))
def test_round_trip_repetitive_text(text: str) -> None:
    assert WORLD.decode(WORLD.encode(text)) == text


def test_world_every_token_alone() -> None:
    for token in range(1, WORLD.n_vocab):
        assert WORLD.encode(WORLD.decode_bytes([token])) == [token]


def test_world_token_0_is_no_text() -> None:
    assert WORLD.decode_bytes([0]) == b""
    assert BYTEWISE.decode_bytes([0]) == b"\0"


def test_decode_invalid_utf8_is_replaced() -> None:
    assert BYTEWISE.decode([0x61, 0xFF]) == "a\ufffd"
    assert BYTEWISE.decode([0x61, 0xFF], errors="ignore") == "a"
    with pytest.raises(UnicodeDecodeError):
        BYTEWISE.decode([0xFF], errors="strict")


@pytest.mark.parametrize("token", [-1, 65530, 65535, 2**31 - 1, 2**31, 2**32 + 5, -(2**31)])
def test_unknown_token_is_an_index_error(token: int) -> None:
    with pytest.raises(TokenOutOfRangeError, match=rf"token.* {token}\b"):
        WORLD.decode([100, token])
    with pytest.raises(IndexError):
        WORLD.decode([token])


@pytest.mark.parametrize("tokens", [[1.5], [[1]], ["a"], 5, [True]])
def test_decode_wants_integers(tokens: object) -> None:
    with pytest.raises(InvalidArgumentError, match="tokens: expected a flat sequence of integers"):
        WORLD.decode(tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.uint8])
def test_decode_takes_arrays(dtype: type) -> None:
    assert WORLD.decode(np.array([34, 35], dtype)) == '!"'
    assert WORLD.decode(np.array([34, 0, 35, 0], dtype)[::2]) == '!"'


def test_encode_wants_text() -> None:
    with pytest.raises(InvalidArgumentError, match="text: expected str or bytes, got int"):
        WORLD.encode(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"lone surrogate '.udc80' at 1"):
        WORLD.encode("a\udc80")


def test_missing_tokens() -> None:
    assert list(WORLD.missing(65536)) == [65530, 65531, 65532, 65533, 65534, 65535]
    assert list(BYTEWISE.missing(256)) == []


def test_of_model() -> None:
    assert Tokenizer.of_model(65536) is WORLD
    assert Tokenizer.of_model(256) is BYTEWISE
    assert Tokenizer.of_model(50277) is None


@given(st.one_of(st.integers(max_value=-1), st.integers(min_value=65530)), st.integers(0, 3))
def test_unknown_tokens_are_errors_wherever_they_stand(token: int, at: int) -> None:
    tokens = [100, 200, 300]
    tokens.insert(at, token)
    pushed = WORLD.decoder()
    for decode in (WORLD.decode, WORLD.decode_bytes, lambda some: pushed.push(*some)):
        with pytest.raises((TokenOutOfRangeError, InvalidArgumentError), match="token"):
            decode(tokens)
    assert pushed.push(100) == WORLD.decode([100])


@given(any_text)
def test_streaming_decoder_gives_whole_characters(text: str) -> None:
    for tokenizer in (WORLD, BYTEWISE):
        decoder = tokenizer.decoder()
        tokens = tokenizer.encode(text)
        so_far = ""
        for n, token in enumerate(tokens, start=1):
            so_far += decoder.push(token)
            assert so_far == tokenizer.decode(tokens[:n], errors="ignore")
        assert so_far == text
        assert decoder.finish() == ""


# Bytes of which some are UTF-8, some are cut short, and some can never be.
torn_bytes = st.lists(
    st.one_of(
        any_text.map(str.encode),
        st.sampled_from([b"\xff", b"\xc3", b"\xe4\xbd", b"\xf0\x9f\x99", b"\x80", b"\xed\xa0\x80"]),
        st.binary(max_size=4),
    )
).map(b"".join)


@given(torn_bytes, st.lists(st.integers(0, 60)))
def test_streaming_decoder_gives_what_decode_gives(data: bytes, cuts: list[int]) -> None:
    """Whatever the bytes, whichever tokens they are in, and however many come at once."""
    for tokenizer in (WORLD, BYTEWISE):
        by_pieces = [token for part in split_at(data, cuts) for token in tokenizer.encode(part)]
        for tokens in (tokenizer.encode(data), by_pieces):
            decoder = tokenizer.decoder()
            text = "".join(decoder.push(*some) for some in split_at(tokens, cuts))
            assert text + decoder.finish() == data.decode(errors="replace")


def split_at(whole: Sequence[Any], cuts: list[int]) -> list[Any]:
    bounds = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    return [whole[begin:end] for begin, end in itertools.pairwise(bounds)]


def test_streaming_decoder_finish() -> None:
    decoder = StreamingDecoder(BYTEWISE)
    assert decoder.push(*"é".encode(), 0xE4, 0xBD) == "é"
    assert decoder.finish() == "\ufffd"
    assert decoder.push(0x61) == "a"


def test_open_world_format(tmp_path: Path) -> None:
    path = tmp_path / "vöcabulary.txt"
    path.write_text("1 'a' 1\n2 'b' 1\n4 'ab' 2\n")
    tokenizer = Tokenizer.open(path)
    assert tokenizer.n_vocab == 5
    assert tokenizer.encode("aab") == [1, 4]
    assert list(tokenizer.missing(6)) == [3, 5]
    with pytest.raises(InvalidArgumentError, match=r"byte 1, expected .*, got 0x63"):
        tokenizer.encode("ac")


def test_open_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("1 'a' 1\n2 'b' 2\n")
    with pytest.raises(VocabularyError, match=r"bad\.txt: line 2: the literal has 1 bytes"):
        Tokenizer.open(path)
    with pytest.raises(VocabularyError, match=r"missing\.txt: "):
        Tokenizer.open(tmp_path / "missing.txt")
    with pytest.raises(InvalidArgumentError, match="zero character"):
        Tokenizer.open("a\0b")


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of the same kind as 20B: added tokens for spaces, trained on our text."""
    tokenizers = pytest.importorskip("tokenizers", reason="the extra [tokenizers] is not installed")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=alphabet,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        show_progress=False,
    )
    bpe.train_from_iterator([Path(__file__).read_text()], trainer)
    bpe.add_tokens(["  ", "    "])
    path = tmp_path_factory.mktemp("json") / "tokenizer.json"
    bpe.save(str(path))
    return path


@given(text=any_text)
def test_json_round_trip(tokenizer_json: Path, text: str) -> None:
    tokenizer = Tokenizer.open(tokenizer_json)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_json_tokens(tokenizer_json: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    ours = Tokenizer.open(tokenizer_json)
    text = "def test():\n        return 'é你'  # spaces"
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode_bytes([0]) == b"<|endoftext|>"
    assert ours.n_vocab == theirs.get_vocab_size()
    assert list(ours.missing(ours.n_vocab + 1)) == [ours.n_vocab]
    with pytest.raises(
        TokenOutOfRangeError, match=f"token: expected one of the vocabulary, .*got {ours.n_vocab}"
    ):
        ours.decode([ours.n_vocab])


def test_json_not_a_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(VocabularyError, match=r"tokenizer\.json: expected a tokenizer\.json, got"):
        Tokenizer.open(tmp_path / "tokenizer.json")


def test_json_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(VocabularyError, match=r"tokenizer\.json: cannot be opened: No such file"):
        Tokenizer.open(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(ImportError, match=r"Try `pip install rwkv-py\[tokenizers\]`$"):
        Tokenizer.open(tmp_path / "tokenizer.json")


def test_json_wants_text(tokenizer_json: Path) -> None:
    tokenizer = Tokenizer.open(tokenizer_json)
    with pytest.raises(InvalidArgumentError, match="text: expected str or bytes, got int"):
        tokenizer.encode(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="lone surrogate"):
        tokenizer.encode("a\udc80")


def test_json_without_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(path))
    with pytest.raises(VocabularyError, match=r"expected a tokenizer\.json with tokens, got none"):
        Tokenizer.open(path)


@pytest.mark.parametrize("choice", ["20B", "World", "wrld", "", "nothing.txt", "nothing.json"])
def test_named_says_what_is_accepted(choice: str) -> None:
    with pytest.raises(VocabularyError) as error:
        Tokenizer.named(choice)
    assert error.value.message == (
        f"{choice or repr(choice)}: cannot be opened: No such file or directory, expected a "
        "vocabulary in the World format (rwkv_vocab_v20230424.txt), a tokenizer.json, a vocab.json "
        "of RWKV-LM's character mode, or a folder with one of them"
    )
    assert error.value.remedy == "Try 'world' or 'bytes' for the tokenizers that are built in"


@pytest.mark.parametrize("choice", [3, b"world", ["world"]])
def test_named_wants_text_or_a_path(choice: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="tokenizer: expected 'world', 'bytes' or the"):
        Tokenizer.named(choice)


@pytest.mark.parametrize("name", ["vocabulary.txt", "tokenizer.json"])
def test_open_what_is_no_file(name: str, tmp_path: Path) -> None:
    """A named pipe would be waited for, without Ctrl-C."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(
        VocabularyError, match=r": expected a vocabulary .*, got a named pipe\. Try"
    ):
        Tokenizer.open(tmp_path / name)


def test_reprs(tmp_path: Path, tokenizer_json: Path) -> None:
    (tmp_path / "v.txt").write_text("1 'a' 1\n2 'b' 1\n")
    assert repr(WORLD) == "<Tokenizer world: tokens 0 to 65529>"
    assert repr(BYTEWISE) == "<Tokenizer bytes: tokens 0 to 255>"
    assert (
        repr(Tokenizer.open(tmp_path / "v.txt")) == f"<Tokenizer '{tmp_path}/v.txt': tokens 0 to 2>"
    )
    assert f"<Tokenizer '{tokenizer_json}': tokens" in repr(Tokenizer.open(tokenizer_json))


def test_tokenizers_is_imported_only_when_needed() -> None:
    code = "import rwkv_py, sys; rwkv_py.Tokenizer.world(); sys.exit('tokenizers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_vocabulary_is_installed() -> None:
    assert Tokenizer.open(rwkv_runtime.world_vocabulary_path()).n_vocab == 65530
