"""Texts that must fit something do, whatever the model wants: here it wants anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_py import Engine, InvalidArgumentError, Model, Session, Tokenizer
from whim import write

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b\n"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of the package `tokenizers` that knows half of Latin-1, and few words."""
    tokenizers = pytest.importorskip("tokenizers")
    printable = [chr(c) for c in range(0x21, 0x7F)] + ["Ġ", "Ċ", "Ã", "¶"]
    vocabulary = {text: i for i, text in enumerate(["<end>", *printable, "tr", "ue", '{"'])}
    model = tokenizers.models.BPE(vocabulary, [("t", "r"), ("u", "e"), ("{", '"')])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    path = tmp_path_factory.mktemp("json") / "tokenizer.json"
    tokenizer.save(str(path))
    return Tokenizer.open(path)


VOCABULARIES = ["bytes", "world", "json"]


@pytest.fixture
def vocabulary(request: pytest.FixtureRequest, bpe: Tokenizer) -> tuple[Tokenizer, int]:
    return {
        "bytes": (Tokenizer.bytewise(), 256),
        "world": (Tokenizer.world(), 65536),
        "json": (bpe, 128),  # more than the tokenizer has
    }[request.param]


@pytest.mark.parametrize("vocabulary", VOCABULARIES, indirect=True)
def test_a_schema_is_fitted(vocabulary: tuple[Tokenizer, int]) -> None:
    reasons = set()
    for seed in range(6):
        text, reason = write(*vocabulary, seed, json_schema=PERSON)
        reasons.add(reason)
        if reason == "end":
            jsonschema.validate(json.loads(text), PERSON)
        assert "\n" not in text
    assert "end" in reasons


@pytest.mark.parametrize("vocabulary", VOCABULARIES, indirect=True)
def test_an_expression_is_fitted(vocabulary: tuple[Tokenizer, int]) -> None:
    expression = r"(ab|ö[^x\n]{0,3})+/\d{2}"
    for seed in range(5):
        text, reason = write(*vocabulary, seed, regex=expression, max_tokens=100)
        assert reason == "length" or re.fullmatch(expression, text)


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "sum " NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,2}/\n',
        'root ::= "sum " number ("+" number)*\nnumber ::= [1-9] [0-9]? [0-9]?\n',
    ],
    ids=["lark", "gbnf"],
)
def test_a_grammar_is_fitted(grammar: str) -> None:
    ended = 0
    for seed in range(20):
        text, reason = write(Tokenizer.bytewise(), 256, seed, grammar=grammar, max_tokens=60)
        ended += reason == "end"
        assert reason == "length" or re.fullmatch(r"sum [1-9]\d{0,2}(\+[1-9]\d{0,2})*", text)
    assert ended


@pytest.mark.parametrize(
    ("gbnf", "expression"),
    [
        (
            r'root ::= "\"" char{3} "\""' + "\n" + r'char ::= [^"\\\x7F\x00-\x1F]',
            r'"[^"\\\x7f\0-\x1f]{3}"',
        ),
        ('root ::= "é\\u00e9" [\\u00e0-\\U000000ff]{2}', "éé[à-ÿ]{2}"),
        ('root ::= a-b\na-b ::= "x" | (\n "y"\n | "z" )  # said by\n', "[xyz]"),
        ('root ::= [一-龥]{2} "\\\\u"', "[一-龥]{2}\\\\u"),
        ('root ::= "" | "a" root', "a*"),
    ],
)
def test_gbnf_of_many_kinds(gbnf: str, expression: str) -> None:
    for seed in range(5):
        text, reason = write(Tokenizer.bytewise(), 256, seed, grammar=gbnf)
        assert reason == "length" or re.fullmatch(expression, text)


def schemas() -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "number"}]),
        st.builds(lambda n, k: {"type": "integer", "minimum": n, "maximum": n + k}, _small, _count),
        st.builds(lambda n: {"type": "string", "maxLength": n}, _count),
        st.sampled_from(
            [{"type": "string", "pattern": "^[a-c]{2,4}$"}, {"const": {"a": [1, "ü"]}}]
        ),
        st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=4)), min_size=1, max_size=3).map(
            lambda values: {"enum": values}
        ),
        st.sampled_from(
            [{"type": "string", "format": "date"}, {"type": "string", "format": "uuid"}]
        ),
    )
    return st.recursive(leaves, _larger, max_leaves=6)


_small, _count = st.integers(-20, 20), st.integers(0, 6)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b c", "ö", '"', "\n"])
    return st.one_of(
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, max_size=3),
            st.sets(names),
        ),
        st.builds(lambda s, n: {"type": "array", "items": s, "maxItems": n}, inner, _count),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    )


@given(schemas(), st.integers(0, 2**32))
@settings(max_examples=25)
def test_whatever_ends_fits_its_schema(schema: Any, seed: int) -> None:
    text, reason = write(Tokenizer.bytewise(), 256, seed, json_schema=schema, max_tokens=300)
    if reason == "end":
        jsonschema.validate(
            json.loads(text), schema, format_checker=jsonschema.FormatChecker(["date", "uuid"])
        )
    else:
        assert reason == "length"


def expressions() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["a", "bc", "[x-z]", "[^ab]", ".", r"\d", "é", r"\.", "/", "\n", " "])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, b: f"({a}|{b})", inner, inner),
            st.builds(lambda a, how: f"({a}){how}", inner, st.sampled_from("*+?")),
            st.builds(lambda a, n: f"({a}){{1,{n}}}", inner, st.integers(1, 4)),
        ),
        max_leaves=6,
    )


@given(expressions(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_whatever_ends_fits_its_expression(expression: str, seed: int) -> None:
    text, reason = write(Tokenizer.bytewise(), 256, seed, regex=expression, max_tokens=80)
    if reason == "end":
        assert re.fullmatch(expression, text)


def test_what_is_cut_can_be_gone_on_with() -> None:
    """A text that is cut is the beginning of one that fits: writing it and the rest succeeds."""
    bytewise = Tokenizer.bytewise()
    for seed in range(10):
        whole, reason = write(bytewise, 256, seed, json_schema=PERSON)
        for cut in range(0, len(whole), 7):
            text, _ = write(bytewise, 256, seed, json_schema=PERSON, max_tokens=cut)
            assert whole.startswith(text)
            assert reason == "length" or cut >= len(whole.encode()) or _ == "length"


def test_a_stop_string_may_follow_what_fits() -> None:
    """Where there is one, a text that could go on can end, as a chat's answer does."""
    reasons = []
    for seed in range(20):
        text, reason = write(
            Tokenizer.bytewise(), 256, seed, regex="[0-9]+", stop=["\n\nUser:"], max_tokens=300
        )
        assert reason == "length" or text.isdigit()
        reasons.append(reason)
    assert "stop" in reasons
    text, reason = write(Tokenizer.bytewise(), 256, 1, regex="[a-c]{40}", stop="b")
    assert reason == "stop" and "b" not in text  # one within it ends it too: it was asked for


def test_an_end_is_no_part_of_a_text() -> None:
    """The byte that ends a document is allowed by `.`, and yet never comes within."""
    text, reason = write(Tokenizer.bytewise(), 256, 3, regex="(?s:.){30}")
    assert reason == "end"
    assert len(text) == 30
    text, reason = write(Tokenizer.bytewise(), 256, 3, regex="[ab]{30}", stop_tokens=[98])
    assert (text, reason) == ("a" * 30, "end")


def test_a_complete_text_ends_where_no_token_is_an_end() -> None:
    text, reason = write(Tokenizer.bytewise(), 256, 3, regex="[ab\\x00]{30}", stop_tokens=[])
    assert (len(text), reason) == (30, "end")
    assert "\0" in text


def test_a_tokenizer_whose_tokens_depend_on_each_other_is_refused() -> None:
    class Joining(Tokenizer):
        n_vocab = 256
        is_context_free = False

        def encode(self, text: str | bytes) -> list[int]:
            return Tokenizer.bytewise().encode(text)

        def decode_bytes(self, tokens: Any) -> bytes:
            return Tokenizer.bytewise().decode_bytes(tokens)

    with pytest.raises(
        InvalidArgumentError, match="regex: expected a tokenizer whose tokens stand"
    ):
        write(Joining(), 256, 1, regex="a")
    assert write(Joining(), 256, 1, max_tokens=3)[1] == "length"


def test_banned_tokens_do_not_come_and_a_complete_text_ends_all_the_same() -> None:
    text, reason = write(Tokenizer.bytewise(), 256, 3, regex="[ab]{9}", banned_tokens=[97, 0])
    assert (text, reason) == ("b" * 9, "end")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"json_schema": "{"}, "json_schema: expected JSON, got: Expecting property name"),
        ({"json_schema": [1]}, r"json_schema: expected an object or true, got \[1\]"),
        ({"json_schema": False}, "json_schema: expected an object or true, got false"),
        ({"json_schema": {"const": float("nan")}}, "json_schema: expected JSON, got: Out of range"),
        ({"json_schema": {"const": {1}}}, "json_schema: expected JSON, got: Object of type set"),
        ({"json_schema": '{"not":' * 9999}, "json_schema: expected JSON, got: maximum recursion"),
        (
            {"json_schema": {"type": "integr"}},
            "json_schema: expected a JSON schema that can be fol",
        ),
        ({"json_schema": {"uniqueItems": True}}, "json_schema: .*uniqueItems"),
        ({"json_schema": {"minimum": 5, "maximum": 3, "type": "number"}}, "Unsatisfiable schema"),
        (
            {"json_schema": {"$ref": "#"}},
            "json_schema: expected what a text can fit, got what none",
        ),
        (
            {"regex": "("},
            "regex: expected an expression that can be followed, got: unclosed group$",
        ),
        (
            {"regex": "(?=a)b"},
            "regex: expected an expression that can be followed, got: look-around",
        ),
        ({"regex": 5}, "regex: expected str, got int"),
        ({"regex": "\ud800"}, "regex: expected Unicode characters"),
        ({"regex": "a" * 600_000}, "regex: expected at most 524288 bytes, got 600000"),
        (
            {"grammar": "start: foo"},
            r'grammar: expected a grammar that can be.*unknown name: "foo"$',
        ),
        (
            {"grammar": "root ::= foo"},
            "grammar: expected a grammar that can be.*Rule 'foo' not found",
        ),
        (
            {"grammar": 'root ::= "\\Uffffffff"'},
            "grammar: expected a grammar that can be followed, got",
        ),
        ({"grammar": "root ::= [a"}, "grammar: expected a grammar that can be followed, got: "),
        ({"grammar": "start: A\nA: /a/ & /b/"}, "grammar: expected what a text can fit"),
        ({"regex": "a", "json_schema": True}, "regex: expected one of json_schema, regex and gra"),
    ],
)
def test_what_cannot_be_followed_is_refused_at_the_door(
    session: Session, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint) as caught:
        session.stream("a", **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"regex": "ab\0"}, "regex: expected a token of the vocabulary with which the text can go"),
        ({"regex": "ab", "banned_tokens": [98]}, "token"),
    ],
)
def test_a_text_that_cannot_go_on_is_an_error(
    trained: Model, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        list(Session(trained).stream("a", **options))
    with Engine(trained) as engine:
        request = engine.submit("a", **options)
        neighbour = engine.submit("import ", max_tokens=20, temperature=0)
        with pytest.raises(InvalidArgumentError, match=complaint):
            request.result()
        assert request.finish_reason == "error"
        assert neighbour.result() == Session(trained).generate(
            "import ", max_tokens=20, temperature=0
        )


@pytest.mark.parametrize("kind", ["r{}", "R{}"], ids=["rules", "terminals"])
def test_a_grammar_that_nests_as_deep_as_it_can_harms_nobody(kind: str) -> None:
    """In a process of its own, which running out of stack would end."""
    n = 40_000
    names = [kind.format(format(i, "x" if kind[0] == "r" else "X")) for i in range(n)]
    rules = [f"{a}:{b}\n" for a, b in zip(["start", *names], [*names, '"a"'], strict=True)]
    program = (
        "import sys; from rwkv_py import Tokenizer; from rwkv_py.grammar import fit_of\n"
        "fit_of(Tokenizer.bytewise(), 256, [], grammar=sys.stdin.read())"
    )
    done = subprocess.run([sys.executable, "-c", program], input="".join(rules).encode()[:524_288])
    assert done.returncode == 0


def test_engine_writes_what_a_session_writes(trained: Model, engine: Engine) -> None:
    options: dict[str, Any] = {"json_schema": PERSON, "max_tokens": 80}
    requests = [engine.submit("As JSON: ", seed=seed, **options) for seed in range(4)]
    requests.append(engine.submit("As JSON: ", seed=9, max_tokens=80))
    for seed, request in enumerate(requests[:4]):
        text = Session(trained).generate("As JSON: ", seed=seed, **options)
        assert request.result() == text
        assert request.finish_reason in ("end", "length")
    texts = engine.generate_batch(["a", "b"], regex="[xy]{5}", seed=1)
    assert all(re.fullmatch("[xy]{5}", text) for text in texts)


def test_a_schema_is_the_callers_to_change(trained: Model, engine: Engine) -> None:
    schema: dict[str, Any] = {"enum": ["first"]}
    request = engine.submit("a", json_schema=schema)
    schema["enum"] = ["second"]
    assert request.result() == '"first"'


def test_without_the_package(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    for options in ({"json_schema": {"const": "none yet"}}, {"grammar": 'root ::= "none"'}):
        with pytest.raises(InvalidArgumentError) as caught:
            session.generate("a", **options)  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"{next(iter(options))}: expected the package llguidance to follow it, got none. "
            "Try `pip install rwkv-py[grammar]`"
        )
    assert session.generate("a", max_tokens=1, seed=1)


def test_command(converted: Callable[[str], Path], run_cli: Any, tmp_path: Path) -> None:
    model = converted("q4_0")
    schema, lark = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text(json.dumps(PERSON))
    lark.write_text('start: "yes" | "no"\n')
    done = run_cli("rwkv", "generate", model, "As JSON: ", "--json-schema", schema, "--seed", "1")
    jsonschema.validate(json.loads(done.stdout), PERSON)
    done = run_cli("rwkv", "generate", model, "a", "--grammar", lark, "--seed", "1")
    assert done.stdout in ("yes\n", "no\n")
    done = run_cli("rwkv", "generate", model, "a", "--regex", "[0-9]{4}", "--json", check=True)
    assert re.fullmatch("[0-9]{4}", json.loads(done.stdout)["text"])


@pytest.mark.parametrize(
    ("content", "arguments", "code", "complaint"),
    [
        (b"{", ["--json-schema", "FILE"], 1, "rwkv: json_schema: expected JSON, got: Expecting"),
        (b"\xff", ["--grammar", "FILE"], 2, "expected UTF-8, got the byte 0xFF at 0"),
        (b"{}", ["--json-schema", "nowhere"], 1, "rwkv: nowhere: cannot be opened"),
        (b"{}", ["--json-schema", "FILE", "--regex", "a"], 2, "expected one of them, got"),
    ],
)
def test_command_refuses(
    converted: Callable[[str], Path],
    run_cli: Any,
    tmp_path: Path,
    content: bytes,
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    arguments = [str(file) if each == "FILE" else each for each in arguments]
    done = run_cli("rwkv", "generate", converted("q4_0"), "a", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert complaint in " ".join(done.stderr.replace("│", " ").split())
