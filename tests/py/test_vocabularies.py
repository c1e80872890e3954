"""Vocabulary files of every kind, and what is none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rwkv_runtime
from conftest import RunCli
from rwkv_py import InvalidArgumentError, Tokenizer, TokenOutOfRangeError, VocabularyError
from rwkv_py.generation import Plan
from rwkv_py.sequence import place_of_state
from twin import ggmf, synth

tokenizers = pytest.importorskip("tokenizers", reason="the extra [tokenizers] is not installed")

WORLD_FILE = Path(rwkv_runtime.world_vocabulary_path())


# --------------------------------------------------------------------------------------------------
# vocab.json of RWKV-LM's character mode

TEXT = "the value of the module, né 你好 🙂\n"
CHARACTERS = sorted(set(TEXT))
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


def write_characters(path: Path, characters: list[str], encoding: str = "utf-16") -> Path:
    """As RWKV-LM writes it."""
    table = dict(enumerate(characters))
    path.write_bytes(json.dumps(table, ensure_ascii=False).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_characters(tmp_path: Path, encoding: str) -> None:
    tokenizer = Tokenizer.open(write_characters(tmp_path / "vocab.json", CHARACTERS, encoding))
    assert tokenizer.n_vocab == len(CHARACTERS)
    tokens = tokenizer.encode(TEXT)
    assert tokens == [CHARACTERS.index(character) for character in TEXT]
    assert tokenizer.decode(tokens) == TEXT
    assert [tokenizer.decoder().push(token) for token in tokens] == list(TEXT)
    assert list(tokenizer.missing(len(CHARACTERS) + 1)) == [len(CHARACTERS)]
    with pytest.raises(TokenOutOfRangeError, match=f"got {len(CHARACTERS)}$"):
        tokenizer.decode([len(CHARACTERS)])


def test_character_that_is_missing(tmp_path: Path) -> None:
    path = write_characters(tmp_path / "vocab.json", ["\n", "a", "b"])
    with pytest.raises(
        InvalidArgumentError, match=r"text: character 2, expected one of the vocabulary's 3, got 'x"
    ):
        Tokenizer.open(path).encode("abx")
    path = write_characters(tmp_path / "vocab.json", ["\n", "a", "b", "\ue083"])
    assert Tokenizer.open(path).encode("abx") == [1, 2, 3]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"0": "a", "1": "bc"}, "token 1, expected one character, got 'bc'"),
        ({"0": "a", "1": ""}, "token 1, expected one character, got ''"),
        ({"0": "a", "1": "\ud800"}, r"token 1, expected one character, got '\\ud800'"),
        ({"0": "a", "1": "a"}, "token 1, expected each token and each character once, got 'a'"),
        ({"1": "a", "01": "b"}, "token 1, expected each token and each character once"),
        ({"0": "a", "1048576": "b"}, "token, expected at most 1048575, got 1048576"),
    ],
)
def test_table_of_no_characters_is_refused(
    tmp_path: Path, table: dict[str, str], message: str
) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(table))
    with pytest.raises(VocabularyError, match=rf"vocab\.json: {message}"):
        Tokenizer.open(tmp_path / "vocab.json")


def test_line_feed_as_token_0_does_not_end_a_text(tmp_path: Path) -> None:
    characters = Tokenizer.open(write_characters(tmp_path / "vocab.json", ["\n", "a"]))
    builder = Plan.of(characters, 2, (0,)).builder
    assert [builder.push(token) for token in (1, 0, 1)] == ["a", "\n", "a"]
    assert builder.finish_reason is None
    builder = Plan.of(Tokenizer.bytewise(), 256, (0,)).builder
    assert builder.push(0) == "" and builder.finish_reason == "end"


def test_model_of_characters_on_the_command_line(tmp_path: Path, run_cli: RunCli) -> None:
    vocabulary = write_characters(tmp_path / "vocab.json", CHARACTERS)
    checkpoint = synth.checkpoint("4", n_layer=2, n_embd=64, n_vocab=len(CHARACTERS))
    # Such that token 0, the line feed, is the most probable always.
    checkpoint["head.weight"][:] = 0
    checkpoint["head.weight"][0] = 1
    checkpoint["ln_out.weight"][:] = 0
    checkpoint["ln_out.bias"][:] = 1
    ggmf.write(tmp_path / "m.bin", ggmf.convert_reference(checkpoint))
    run = ("rwkv", "generate", tmp_path / "m.bin", "-p", "the", "--tokenizer", vocabulary)
    done = run_cli(*run, "--temperature", "0", "-n", "4", check=True)
    assert done.stdout.removeprefix("the").startswith("\n\n\n\n")


# --------------------------------------------------------------------------------------------------
# tokenizer.json: the text is what its own decoder says

TRAINING = ["the value of the module is the name of the value", "né 你好 🙂 do n't  stop ."] * 9


def trained(model: Any, before: Any, decoder: Any, normalizer: Any = None) -> Any:
    tokenizer = tokenizers.Tokenizer(model)
    if before is not None:
        tokenizer.pre_tokenizer = before
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if decoder is not None:
        tokenizer.decoder = decoder
    kind = type(model).__name__
    options: dict[str, Any] = {"vocab_size": 90, "show_progress": False}
    if kind == "BPE":
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        options["initial_alphabet"] = alphabet if "ByteLevel" in str(decoder) else []
        options["vocab_size"] += len(options["initial_alphabet"])
        options["end_of_word_suffix"] = "</w>" if "BPEDecoder" in str(decoder) else None
    trainer = getattr(tokenizers.trainers, f"{kind.replace('BPE', 'Bpe')}Trainer")(
        special_tokens=["<pad>", "[UNK]"],
        **{name: value for name, value in options.items() if value is not None},
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.add_tokens(["  ", "éé"])
    return tokenizer


def llama(left: int = 1) -> Any:
    """As LLaMA's: bytes where there is no token, and a space before the text."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for text in ["▁", "▁the", "the", "▁▁", "a", "é", "▁a", ".", "▁value", "ing"]:
        vocabulary.setdefault(text, len(vocabulary))
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [], byte_fallback=True, fuse_unk=True)
    )
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=left, right=0),
        ]
    )
    return tokenizer


def kinds() -> dict[str, Callable[[], Any]]:
    models, before, decoders = tokenizers.models, tokenizers.pre_tokenizers, tokenizers.decoders
    unknown = {"unk_token": "[UNK]"}
    return {
        "byte level": lambda: trained(
            models.BPE(), before.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        ),
        "byte level in a sequence": lambda: trained(
            models.BPE(),
            before.ByteLevel(add_prefix_space=True),
            decoders.Sequence([decoders.ByteLevel()]),
        ),
        "metaspace": lambda: trained(models.BPE(), before.Metaspace(), decoders.Metaspace()),
        "metaspace, nothing prepended": lambda: trained(
            models.BPE(),
            before.Metaspace(prepend_scheme="never"),
            decoders.Metaspace(prepend_scheme="never"),
        ),
        "unigram": lambda: trained(models.Unigram(), before.Metaspace(), decoders.Metaspace()),
        "word pieces": lambda: trained(
            models.WordPiece(**unknown), before.Whitespace(), decoders.WordPiece()
        ),
        "word pieces as they are": lambda: trained(
            models.WordPiece(**unknown), before.Whitespace(), decoders.WordPiece(cleanup=False)
        ),
        "words, no decoder": lambda: trained(
            models.WordLevel(**unknown), before.WhitespaceSplit(), None
        ),
        "ends of words": lambda: trained(
            models.BPE(end_of_word_suffix="</w>"), before.WhitespaceSplit(), decoders.BPEDecoder()
        ),
        "byte fallback": llama,
        "two spaces before the text": lambda: llama(left=2),
    }


KINDS = kinds()


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of the package, and ours of its file."""
    path = tmp_path_factory.mktemp("kind") / "tokenizer.json"
    KINDS[request.param]().save(str(path))
    return tokenizers.Tokenizer.from_file(str(path)), Tokenizer.open(path)


def tokens_of(draw: st.DrawFn, tokenizer: Any, **options: int) -> list[int]:
    vocabulary = sorted(tokenizer.get_vocab().values())
    return draw(st.lists(st.sampled_from(vocabulary), **options))  # type: ignore[arg-type]


@given(data=st.data())
def test_whole_and_in_pieces_as_the_own_decoder_says(pair: Any, data: st.DataObject) -> None:
    theirs, ours = pair
    tokens = tokens_of(data.draw, theirs, max_size=30)
    expected = theirs.decode(tokens, skip_special_tokens=False)
    assert ours.decode(tokens) == expected
    decoder = ours.decoder()
    text, begin = "", 0
    while begin < len(tokens):
        count = data.draw(st.integers(1, 4))
        text += decoder.push(*tokens[begin : begin + count])
        assert expected.startswith(text)
        begin += count
    assert text + decoder.finish() == expected
    assert decoder.push(*tokens) + decoder.finish() == expected


@given(data=st.data())
def test_what_is_generated_goes_on(pair: Any, data: st.DataObject) -> None:
    """What is written after a prompt is the rest of the text of both together."""
    theirs, ours = pair
    prompt = tokens_of(data.draw, theirs, min_size=1, max_size=5)
    drawn = tokens_of(data.draw, theirs, max_size=12)
    whole = theirs.decode(prompt + drawn, skip_special_tokens=False)
    before = theirs.decode(prompt, skip_special_tokens=False)
    names = {token: text for text, token in theirs.get_vocab().items()}
    seam = names[prompt[-1]]
    if seam.startswith("<0x") or before.endswith("\ufffd"):
        return  # in the middle of a character
    if "</w>" in "".join(names.values()) and not seam.endswith("</w>"):
        return  # in the middle of a word
    if not before.strip():
        return  # the text has not begun
    builder = Plan.of(ours, ours.n_vocab, ()).builder
    written = "".join(builder.push(token) for token in drawn) + builder.end("length")
    if "\ufffd" not in whole:  # an unfinished character at the end is left out
        assert before + written == whole


def test_text_read_is_known_where_parts_of_it_make_it_up(pair: Any) -> None:
    """A prefix cache that looks for text would else find what was never read."""
    _, ours = pair
    tokens = ours.encode("the value of the value")
    alone = "".join(ours.decode([token]) for token in tokens)
    place = place_of_state(None, ours).after(np.array(tokens, np.int32))
    if alone != ours.decode(tokens):
        assert place.text is None
    elif ours.is_context_free:
        assert place.text is not None and place.text.n_bytes == len(alone)


def test_bytes_at_the_end_of_a_text(tmp_path: Path) -> None:
    """Held back as long as others may follow, they come when the text ends."""
    llama().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.open(tmp_path / "tokenizer.json")
    a = tokenizer.encode("a")[-1]
    tokens = [a, *"né!".encode()]  # whose numbers are the bytes
    for stop, text, reason in (("?", "né!", "length"), ("é", "n", "stop")):
        builder = Plan.of(tokenizer, tokenizer.n_vocab, (), stop=stop, max_tokens=5).builder
        pieces = [builder.push(token) for token in tokens]
        assert "".join(pieces[1:]) == "" and builder.finish_reason is None
        assert builder.full
        assert builder.end("length") == text
        assert builder.finish_reason == reason


def test_pieces_of_an_unknown_token(pair: Any) -> None:
    theirs, ours = pair
    outside = max(theirs.get_vocab().values()) + 1
    decoder = ours.decoder()
    inside = ours.encode("the value")
    for wrong in ([outside], [*inside, outside]):
        with pytest.raises(TokenOutOfRangeError, match=f"got {outside}$"):
            decoder.push(*wrong)
        with pytest.raises(TokenOutOfRangeError, match=f"got {outside}$"):
            ours.decode(wrong)
    assert decoder.push(*inside) + decoder.finish() == ours.decode(inside)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("the value of the module", "metaspace"),
        ("the value of the module", "words, no decoder"),
        ("the value of né 你好 🙂", "byte level"),
        ("the value of the name.", "word pieces"),
        ("the  value é 你", "byte fallback"),
    ],
)
def test_text_comes_back(tmp_path: Path, text: str, kind: str) -> None:
    KINDS[kind]().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.open(tmp_path / "tokenizer.json")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    KINDS["unigram"]().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        InvalidArgumentError, match=r"text: expected one that the vocabulary has to"
    ):
        Tokenizer.open(tmp_path / "tokenizer.json").encode("XYZ")


def refused_decoders() -> dict[str, Any]:
    decoders = tokenizers.decoders
    return {
        "WordPiece after Fuse": [decoders.Fuse(), decoders.WordPiece()],
        "Replace after Fuse": [decoders.Fuse(), decoders.Replace("ab", "c")],
        "Strip after Fuse": [decoders.Fuse(), decoders.Strip(content=" ", left=0, right=1)],
        "ByteLevel": [decoders.ByteLevel(), decoders.Metaspace()],
        "CTC": [decoders.CTC()],
    }


@pytest.mark.parametrize("got", refused_decoders())
def test_decoder_that_looks_far_is_refused(tmp_path: Path, got: str) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.decoder = tokenizers.decoders.Sequence(refused_decoders()[got])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        VocabularyError, match=rf"decoder, expected one whose text .* token by token, got {got}$"
    ):
        Tokenizer.open(tmp_path / "tokenizer.json")


# --------------------------------------------------------------------------------------------------
# World vocabularies with more tokens


def test_world_vocabulary_with_more_lines(tmp_path: Path) -> None:
    path = tmp_path / "rwkv_vocab_more.txt"
    path.write_bytes(WORLD_FILE.read_bytes() + b"65530 '<|im_start|>' 12\n65535 b'\\xff\\xfe' 2\n")
    tokenizer = Tokenizer.open(path)
    assert tokenizer.n_vocab == 65536
    assert tokenizer.encode("<|im_start|>Hello") == [65530, 33155]
    assert tokenizer.encode(b"\xff\xfe") == [65535]
    assert tokenizer.decode_bytes([65530, 65535]) == b"<|im_start|>\xff\xfe"
    assert list(tokenizer.missing(65536)) == [65531, 65532, 65533, 65534]


def world_folder(folder: Path, name: str = "rwkv_vocab_v20230424.txt", **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(WORLD_FILE.read_bytes())
    for stem, table in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(table))
    return folder


CONFIG = {
    "tokenizer_class": "RwkvTokenizer",
    "added_tokens_decoder": {
        "0": {"content": "<|rwkv_tokenizer_end_of_text|>", "special": True},
        "65530": {"content": "\n\n", "special": True},
        "65531": {"content": "[breath]"},
        "65532": {"content": "[breath]["},
    },
}
ADDED = {
    "<|rwkv_tokenizer_end_of_text|>": 0,
    "\n\n": 65530,
    "[breath]": 65531,
    "[breath][": 65532,
}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": CONFIG},
        {"added_tokens": ADDED},
        {"tokenizer_config": CONFIG, "added_tokens": ADDED},
    ],
)
@pytest.mark.parametrize("name", ["rwkv_vocab_v20230424.txt", "vocab.txt"])
def test_tokens_added_beside_a_world_vocabulary(
    tmp_path: Path, files: dict[str, Any], name: str
) -> None:
    world = Tokenizer.world()
    tokenizer = Tokenizer.open(world_folder(tmp_path / "m", name, **files))
    assert tokenizer.n_vocab == 65533
    # A text is cut at an added token, though World has tokens that begin before it.
    assert tokenizer.encode("a[breath]b") == [*world.encode("a"), 65531, *world.encode("b")]
    assert tokenizer.encode("[breath][[breath]") == [65532, 65531]
    assert tokenizer.encode("<|rwkv_tokenizer_end_of_text|>User") == [0, *world.encode("User")]
    # The vocabulary's own token, which the model was trained with, is not displaced.
    assert tokenizer.encode("a\n\nb") == world.encode("a\n\nb")
    assert list(tokenizer.missing(65536)) == [65530, 65533, 65534, 65535]
    text = "né[breath]你\n\n[breath]["
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert "".join(map(tokenizer.decoder().push, tokens)) == text
    assert tokenizer.decode_bytes([]) == b""
    with pytest.raises(TokenOutOfRangeError, match=r"got 65530$"):
        tokenizer.decode([65531, 65530])


def test_folder_with_a_vocabulary_alone(tmp_path: Path) -> None:
    folder = world_folder(tmp_path / "m", tokenizer_config={"tokenizer_class": "RwkvTokenizer"})
    assert Tokenizer.open(folder).n_vocab == 65530
    (tmp_path / "c").mkdir()
    write_characters(tmp_path / "c" / "vocab.json", CHARACTERS)
    assert Tokenizer.named(tmp_path / "c").decode([0]) == "\n"
    (tmp_path / "j").mkdir()
    KINDS["metaspace"]().save(str(tmp_path / "j" / "tokenizer.json"))
    assert (
        Tokenizer.open(tmp_path / "j").decode(Tokenizer.open(tmp_path / "j").encode("of")) == "of"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"added_tokens": {"x y": 5}},
            r"added token 5, expected b'\\x04' as in the vocabulary, got",
        ),
        (
            {"added_tokens": {"x y": -1}},
            r"added tokens, expected numbers below 1048576 .* got '-1'",
        ),
        ({"added_tokens": {"x y": 2**40}}, "added tokens, expected numbers below"),
        ({"added_tokens": {"": 65530}}, "added tokens, expected numbers below .* got '65530'"),
        ({"added_tokens": {"\ud800": 65530}}, "added token 65530, expected Unicode characters"),
        (
            {"tokenizer_config": {"added_tokens_decoder": []}},
            "added tokens, expected a JSON object",
        ),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"1": 2}}},
            "added tokens, expected numbers",
        ),
        (
            {
                "tokenizer_config": {"added_tokens_decoder": {"65530": {"content": "x y"}}},
                "added_tokens": {"z w": 65530},
            },
            r"added_tokens\.json: added token 65530, expected 'x y' as in tokenizer_config\.json",
        ),
    ],
)
def test_added_tokens_that_make_no_sense(
    tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    with pytest.raises(VocabularyError, match=message):
        Tokenizer.open(world_folder(tmp_path / "m", **files))


# --------------------------------------------------------------------------------------------------
# What is none

ACCEPTED = (
    r"expected a vocabulary in the World format \(rwkv_vocab_v20230424\.txt\), a tokenizer\.json, "
    r"a vocab\.json of RWKV-LM's character mode, or a folder with one of them"
)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"#version: 0.2\nt h\n", "a list of merges"),
        (b"<!doctype html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n", "a SentencePiece model"),
        (b"GGUF\3\0\0\0", "a model file"),
        (b"PK\3\4", "a checkpoint or an archive"),
        (b"\x80\2}.", "a checkpoint or an archive"),
        (b"\x50\1\0\0\0\0\0\0{}", "a checkpoint"),
        (b"Hello, world\n", "a file that begins with 'Hello, world"),
        (b"[1, 2]", r"a file that begins with '\[1, 2\]'"),
        (b'"text"', "a file that begins with"),
        (b"{}", "a JSON object of another kind"),
        (b'{"0": 1.5}', "a JSON object of another kind"),
        (b'{"the": 5, "a": 6}', "numbers by text, as beside a tokenizer.json"),
        (b'{"tokenizer_class": "X"}', "the settings of a tokenizer, which its folder may hold"),
    ],
)
@pytest.mark.parametrize("name", ["vocab.json", "vocab.txt"])
def test_what_is_no_vocabulary_gets_the_list(
    tmp_path: Path, run_cli: RunCli, content: bytes, got: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VocabularyError, match=rf"{name}: not a vocabulary, {ACCEPTED}, got {got}"):
        Tokenizer.open(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"{", b'{"0": "a"', b'{"model": ' + b"[" * 100_000, b'{"0": "\xff"}', b"{\0\xd8"]
)
def test_damaged_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(VocabularyError, match="expected JSON, got something else"):
        Tokenizer.open(tmp_path / "tokenizer.json")


def test_folder_without_a_vocabulary(tmp_path: Path, run_cli: RunCli) -> None:
    with pytest.raises(
        VocabularyError, match=r"expected a folder with a tokenizer\.json, .* got nothing\. Try"
    ):
        Tokenizer.open(tmp_path)
    for i in range(9):
        (tmp_path / f"{i}").touch()
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(VocabularyError, match=rf"tokenizer\.json: {ACCEPTED}, got a named pipe"):
        Tokenizer.open(tmp_path)
    done = run_cli("rwkv", "tokenize", "a", "--tokenizer", tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert "got a named pipe. Try --tokenizer world or --tokenizer bytes" in done.stderr


@given(
    data=st.binary(max_size=200), head=st.sampled_from([b"", b"{", b"1 'a' 1\n", b"\xff\xfe{\0"])
)
def test_random_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random-vocabulary"
    path.write_bytes(head + data)
    try:
        Tokenizer.open(path)
    except VocabularyError as error:
        assert error.message.isprintable() and len(error.message) < 1000


@given(data=st.data())
def test_damaged_tokenizer_json_is_refused_or_decodes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Values of a good file exchanged for others."""
    table = json.loads(llama().to_str())
    where = table
    for _ in range(data.draw(st.integers(0, 4))):
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(where[key], dict | list):
            break
        where = where[key]
    keys = list(where) if isinstance(where, dict) else list(range(len(where)))
    if keys:
        where[data.draw(st.sampled_from(keys))] = data.draw(
            st.sampled_from([None, 0, -1, "x", "", [], {}, [[]], {"type": "Fuse"}, 2**70, 0.5])
        )
    path = tmp_path_factory.getbasetemp() / "damaged-tokenizer"
    path.write_text(json.dumps(table))
    try:
        tokenizer = Tokenizer.open(path)
    except VocabularyError as error:
        assert error.message.isprintable() and len(error.message) < 2000
        return
    present = sorted(set(range(min(tokenizer.n_vocab, 999))) - {*tokenizer.missing(999)})
    tokens = np.array(present[:20], np.int32)
    tokenizer.decode(tokens)
