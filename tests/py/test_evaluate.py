"""Perplexity, comparison and LAMBADA: against the plain formulas, and as commands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from rwkv_py import InvalidArgumentError, Model, NoTokenizerError, Session, Tokenizer
from rwkv_py.evaluate import compare, lambada, perplexity, read_lambada
from twin import model as twin

pytestmark = pytest.mark.slow

RunCli = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def text(examples: Path) -> bytes:
    """600 bytes: three pieces of a prompt, the last of which is short."""
    return (examples / "heldout_a.txt").read_bytes()[:600]


@pytest.fixture(scope="module")
def pair(converted: Callable[[str], Path]) -> tuple[Model, Model]:
    return Model(converted("fp32")), Model(converted("q4_0"))


@pytest.fixture(scope="module")
def passages(examples: Path) -> list[str]:
    """More than are read at once, of different lengths."""
    lines = (examples / "heldout_a.txt").read_text().splitlines()
    return [line.strip() for line in lines if len(line.split()) > 3][:40]


def log_probabilities(model: Model, tokens: bytes) -> np.ndarray:
    """ln p after each token, one token at a time: float64 (n_tokens, n_vocab)."""
    session = Session(model)
    logits = np.array([session.feed([token]) for token in tokens], np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def test_perplexity_is_the_formula(pair: tuple[Model, Model], text: bytes) -> None:
    log_p = log_probabilities(pair[0], text)
    nats = -sum(log_p[i, text[i + 1]] for i in range(len(text) - 1))
    seen = []
    score = perplexity(pair[0], text, progress=lambda done, total: seen.append((done, total)))
    assert score.n_tokens == score.n_bytes == 599
    assert score.nats == pytest.approx(nats, rel=1e-6)
    assert score.bits_per_token == score.bits_per_byte
    assert score.bits_per_byte == pytest.approx(nats / 599 / math.log(2), rel=1e-6)
    assert score.perplexity == pytest.approx(math.exp(nats / 599), rel=1e-6)
    assert seen == [(256, 599), (512, 599), (599, 599)]


@pytest.mark.parametrize(
    ("ignored", "limit"), [(0, 40), (1, 300), (5, None), (300, 301), (256, 599)]
)
def test_perplexity_of_a_part(
    ignored: int, limit: int | None, pair: tuple[Model, Model], text: bytes
) -> None:
    """The first tokens are read, and count for nothing."""
    log_p = log_probabilities(pair[0], text)
    targets = range(max(1, ignored), limit or len(text))
    score = perplexity(pair[0], text, ignore_first=ignored, token_limit=limit)
    assert score.n_tokens == score.n_bytes == len(targets)
    nats = -sum(log_p[i - 1, text[i]] for i in targets)
    assert score.nats == pytest.approx(nats, rel=1e-6)


def test_perplexity_of_no_part_is_refused(pair: tuple[Model, Model], text: bytes) -> None:
    for options, message in [
        ({"ignore_first": 600}, "ignore_first: expected fewer than the 600 tokens .*got 600"),
        ({"ignore_first": 9, "token_limit": 9}, "ignore_first: expected fewer than the 9 tokens"),
        ({"ignore_first": -1}, "ignore_first: expected 0 or more, got -1"),
        ({"token_limit": 1}, "token_limit: expected 2 or more, got 1"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            perplexity(pair[0], text, **options)


def test_command_perplexity_of_a_part(
    pair: tuple[Model, Model], text: bytes, run_cli: RunCli
) -> None:
    expected = perplexity(pair[1], text, ignore_first=9, token_limit=50)
    command = ("rwkv", "perplexity", pair[1].path, "-", "--ignore-first", "9", "--token-limit")
    facts = json.loads(run_cli(*command, "50", "--json", check=True, stdin=text.decode()).stdout)
    assert facts["perplexity"] == pytest.approx(expected.perplexity)
    assert (facts["n_tokens"], facts["n_read"]) == (41, 49)
    assert 0 < facts["seconds"] < 60
    done = run_cli(*command, "50", check=True, stdin=text.decode())
    assert re.search(r"read +49 tokens in \d+\.\d s, \d+\.\d\d ms each", done.stdout)
    refused = run_cli(*command, "9", stdin=text.decode())
    assert refused.returncode == 1 and "expected fewer than the 9 tokens" in refused.stderr


def test_perplexity_counts_the_bytes_of_tokens(
    model_file: Callable[..., Path], tmp_path: Path
) -> None:
    lines = [f"{i} {bytes([i - 1])!r} 1" for i in range(1, 257)] + ["257 'the ' 4"]
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("\n".join(lines) + "\n")
    model = Model(model_file("7", n_vocab=258))
    score = perplexity(model, "the the end", tokenizer=vocabulary)
    assert (score.n_tokens, score.n_bytes) == (4, 7)
    assert score.bits_per_byte == pytest.approx(score.bits_per_token * 4 / 7)
    with pytest.raises(NoTokenizerError):
        perplexity(model, "the end")


@pytest.mark.parametrize("short", ["", "a"])
def test_perplexity_of_nothing_is_refused(pair: tuple[Model, Model], short: str) -> None:
    with pytest.raises(InvalidArgumentError, match="expected at least 2 tokens"):
        perplexity(pair[0], short)


def test_compare_is_the_formula(pair: tuple[Model, Model], text: bytes) -> None:
    log_a, log_b = (log_probabilities(model, text[:-1]) for model in pair)
    kl = (np.exp(log_a) * (log_a - log_b)).sum(axis=1)
    found = compare(*pair, text)
    assert found.n_tokens == 599
    # Read in pieces a level may use bf16 tiles, token by token it does not: hence the tolerance.
    assert found.kl_mean == pytest.approx(kl.mean(), rel=2e-2)
    assert found.kl_median == pytest.approx(np.median(kl), rel=1e-1)
    assert found.kl_p99 == pytest.approx(np.percentile(kl, 99), rel=1e-1)
    assert found.kl_max == pytest.approx(kl.max(), rel=1e-1)
    agree = (log_a.argmax(axis=1) == log_b.argmax(axis=1)).mean()
    assert found.top1_agreement == pytest.approx(agree, abs=5e-3)
    assert 0 < found.max_logit_difference < 10
    assert found.a == perplexity(pair[0], text)
    assert found.b == perplexity(pair[1], text)


def test_compare_largest_logit_difference(pair: tuple[Model, Model], text: bytes) -> None:
    sessions = [Session(model) for model in pair]
    tokens = [*text[:200]]
    (a,), (b,) = (s.model.step([(s, tokens)], logits="all") for s in sessions)
    assert a is not None
    assert b is not None
    found = compare(*pair, text[:201])
    assert found.max_logit_difference == pytest.approx(np.abs(a - b).max(), rel=1e-6)


def test_compare_with_itself(pair: tuple[Model, Model], text: bytes) -> None:
    found = compare(pair[1], pair[1].path, text)
    assert found.kl_max == found.max_logit_difference == 0
    assert found.top1_agreement == 1


def test_compare_refuses_other_vocabularies(
    pair: tuple[Model, Model], model_file: Callable[..., Path]
) -> None:
    other = model_file("7", n_vocab=300)
    with pytest.raises(InvalidArgumentError, match=r"same tokens, got 256 .* and 300"):
        compare(pair[0], other, "some text", tokenizer=Tokenizer.bytewise())


def test_lambada_is_the_formula(pair: tuple[Model, Model], passages: list[str]) -> None:
    model = pair[1]
    n_right, log_p = 0, 0.0
    for passage in passages:
        context, word = passage.rsplit(" ", 1)
        session = Session(model)
        logits = session.feed([0, *context.encode()])
        right = True
        for token in f" {word}".encode():
            log_p += logits[token] - np.logaddexp.reduce(logits.astype(np.float64))
            right &= logits.argmax() == token
            logits = session.feed([token])
        n_right += right
    seen = []
    found = lambada(model, passages, progress=lambda done, total: seen.append((done, total)))
    assert found.n_texts == len(passages) == 40
    assert found.accuracy == pytest.approx(n_right / 40)
    assert 0 < n_right < 40
    assert found.perplexity == pytest.approx(math.exp(-log_p / 40), rel=1e-4)
    assert seen == [(16, 40), (32, 40), (40, 40)]


@pytest.mark.parametrize(
    ("texts", "message"), [([], "at least one"), (["two words", "one"], r"texts\[1\]: .*'one'")]
)
def test_lambada_refuses(pair: tuple[Model, Model], texts: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        lambada(pair[1], texts)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b'{"text": "a b"}\n\n{"txt": "a b"}\n', r'lambada\.jsonl:3: expected {"text"'),
        (b'["a b"]\n', r":1: expected"),
        (b'{"text": 5}\n', r":1: expected"),
        (b'{"text": "  word  "}\n', r":1: expected"),
        (b'{"text": "word"}\n', r":1: expected .* got '{\"text\": \"word\"}'"),
        (b"\xff\xfe\n", r":1: expected"),
        (b"[" * 100_000, r":1: expected"),
        (b"\n", r"lambada\.jsonl: expected JSON lines, got an empty file"),
    ],
)
def test_read_lambada_refuses(tmp_path: Path, lines: bytes, message: str) -> None:
    file = tmp_path / "lambada.jsonl"
    file.write_bytes(lines)
    with pytest.raises(InvalidArgumentError, match=message):
        read_lambada(file)


def test_read_lambada_refuses_what_never_ends(tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.write(b'{"text": "two words"}\n')
        file.truncate((64 << 20) + 1)  # sparse: it takes no disk
    for path in (large, Path("/dev/zero")):
        with pytest.raises(InvalidArgumentError, match=f"{path}: expected at most 67108864 bytes"):
            read_lambada(path)


@pytest.mark.slow
def test_command_perplexity_of_the_shipped_text(
    converted: Callable[[str], Path], examples: Path, run_cli: RunCli
) -> None:
    """The number that examples/README.md promises."""
    done = run_cli(
        "rwkv", "perplexity", converted("fp32"), examples / "heldout_a.txt", "--json", check=True
    )
    facts = json.loads(done.stdout)
    assert round(facts["bits_per_byte"], 4) == 1.1138
    assert facts["n_bytes"] == 197_091
    assert done.stderr == ""


def test_command_perplexity(pair: tuple[Model, Model], text: bytes, run_cli: RunCli) -> None:
    expected = perplexity(pair[1], text)
    done = run_cli("rwkv", "perplexity", pair[1].path, "-", check=True, stdin=text.decode())
    assert re.search(rf"bits per byte +{expected.bits_per_byte:.4f}\b", done.stdout)
    assert re.search(rf"perplexity +{expected.perplexity:.4f}\b", done.stdout)
    assert "599 tokens, 599 bytes" in done.stdout


def test_command_compare(
    pair: tuple[Model, Model], text: bytes, tmp_path: Path, run_cli: RunCli
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(text)
    expected = compare(*pair, text)
    args = ("rwkv", "compare", pair[0].path, pair[1].path, file)
    facts = json.loads(run_cli(*args, "--json", check=True).stdout)
    assert facts["kl_mean"] == pytest.approx(expected.kl_mean)
    assert facts["top1_agreement"] == expected.top1_agreement
    assert facts["a"]["bits_per_byte"] == pytest.approx(expected.a.bits_per_byte)
    shown = run_cli(*args, check=True).stdout
    assert f"{expected.kl_mean:.6f} nats" in shown
    assert f"{expected.top1_agreement:.2%}" in shown


def test_command_lambada(
    pair: tuple[Model, Model], passages: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    file = tmp_path / "lambada.jsonl"
    file.write_text("".join(json.dumps({"text": passage}) + "\n" for passage in passages))
    assert read_lambada(file) == passages
    expected = lambada(pair[1], passages)
    args = ("rwkv", "lambada", pair[1].path, file)
    facts = json.loads(run_cli(*args, "--json", check=True).stdout)
    assert (facts["accuracy"], facts["n_texts"]) == (expected.accuracy, 40)
    assert facts["perplexity"] == pytest.approx(expected.perplexity)
    assert f"{expected.accuracy:.2%}" in run_cli(*args, check=True).stdout


def greedy_passages(model: Model, text: str, n: int) -> list[str]:
    """Passages of a text, whose last word is one that the model would write after token 0.

    Like LAMBADA's they have several lines, and quotation marks.
    """
    found = []
    spaces = [at for at, character in enumerate(text) if character == " " and at > 150]
    for at in spaces:
        context = f"\u201c{text[at - 150 : at]}"
        if found and context[1:50] in found[-1]:  # another passage
            continue
        session = Session(model)
        session.feed([0, *context.encode()])
        written = session.generate("", max_tokens=20, temperature=0)
        word = re.match(r" \S+(?=\s)", written)
        if word and "\n" in context:
            found.append(context + word[0])
        if len(found) == n:
            break
    return found


def test_command_lambada_is_the_definition(
    pair: tuple[Model, Model], examples: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    """A file like OpenAI's lambada_test.jsonl, and the twin as judge."""
    text = (examples / "heldout_a.txt").read_text()
    lines = [" ".join(line.split()) for line in text[20_000:].splitlines()]
    known = greedy_passages(pair[0], text, 3)
    unknown = [f"\u201c{line}\u201d\n{line} \u2014 {line}" for line in lines if 30 < len(line) < 60]
    passages = [*known, *unknown[:3], f"  {known[0]} \n"]
    assert len(passages) == 7
    file = tmp_path / "lambada_test.jsonl"
    file.write_text("".join(json.dumps({"text": passage}) + "\n" for passage in passages))
    assert b"\\u201c" in file.read_bytes()

    judge = twin.load(pair[0].path)
    n_right, log_p = 0, 0.0
    for passage in passages:
        context, word = passage.rstrip().rsplit(" ", 1)
        read, target = [0, *context.encode()], list(f" {word}".encode())
        logits = judge.forward([*read, *target])[len(read) - 1 : -1]
        assert len(logits) == len(target)
        n_right += int((logits.argmax(axis=1) == target).all())
        log_p += (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))[
            np.arange(len(target)), target
        ].sum()
    assert 3 <= n_right < 7

    done = run_cli("rwkv", "lambada", pair[0].path, file, "--json", check=True)
    facts = json.loads(done.stdout)
    assert (facts["n_texts"], facts["accuracy"]) == (7, n_right / 7)
    assert facts["perplexity"] == pytest.approx(math.exp(-log_p / 7), rel=1e-5)


def test_read_lambada_ignores_what_else_a_line_has(tmp_path: Path) -> None:
    file = tmp_path / "lambada.jsonl"
    file.write_bytes('\ufeff{"id": 1, "text": "a\u2028b c", "domain": null}\r\n'.encode())
    assert read_lambada(file) == ["a\u2028b c"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["perplexity", "{model}", "{tmp}/none.txt"], r"none\.txt"),
        (["perplexity", "{tmp}/none.bin", "{text}"], r"none\.bin"),
        (["perplexity", "{model}", "{empty}"], "at least 2 tokens"),
        (["perplexity", "{model}", "{text}", "--tokenizer", "{tmp}/v"], "No such file"),
        (["compare", "{model}", "{other}", "{text}"], "same tokens"),
        (["lambada", "{model}", "{text}"], r"text:1: expected"),
    ],
)
def test_commands_fail_in_one_line(
    args: list[str],
    message: str,
    pair: tuple[Model, Model],
    model_file: Callable[..., Path],
    tmp_path: Path,
    run_cli: RunCli,
) -> None:
    files: dict[str, Any] = {"tmp": tmp_path, "model": pair[1].path}
    files |= {"other": model_file("7", n_vocab=300)}
    for name, content in (("text", "some text"), ("empty", "")):
        files[name] = tmp_path / name
        files[name].write_text(content)
    done = run_cli("rwkv", *(arg.format(**files) for arg in args))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rwkv: ")
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)
