"""Guesses change how long a text takes, and nothing of the text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

from rwkv_py import (
    Chat,
    Engine,
    InvalidArgumentError,
    Model,
    PrefixCache,
    Session,
)
from rwkv_py._arguments import as_tokens
from rwkv_py.draft import DraftGuesser
from rwkv_py.guessers import GUESSERS
from rwkv_py.lookup import LookupGuesser
from rwkv_py.pass_times import PassTimes
from rwkv_py.speculation import MAX_GUESSES, Pass, Speculation, SpeculationCounts

from .conftest import ModelFile

VERSIONS = ("4", "5.1", "5.2", "6", "7")
PROMPT = (
    "import json\nimport os\n\n\ndef load(path):\n    with open(path) as file:\n        return json"
)


class Knowing:
    """Knows what comes, and errs at a rate."""

    is_free = True
    source = "knowing"

    def __init__(self, text: Sequence[int], rate: float, seed: int = 1):
        self._text = list(text)
        self._rate = rate
        self._random = random.Random(seed)
        self._n_read = 0

    def begin(self, text: list[int]) -> None:
        self._n_read = len(text)

    def read(self, token: int) -> None:
        self._n_read += 1

    @classmethod
    def guess(cls, wanted: Sequence[tuple[Knowing, int]]) -> list[list[int]]:
        return [guesser._guess(n) for guesser, n in wanted]

    def _guess(self, n: int) -> list[int]:
        right = self._text[self._n_read : self._n_read + n]
        return [(t + (self._random.random() >= self._rate)) % 256 for t in right]


@pytest.fixture
def knows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`knows(tokens, rate)`: the name of a guesser that knows a text, prompt and all."""

    def know(text: Sequence[int], rate: float) -> str:
        monkeypatch.setitem(GUESSERS, "knowing", lambda draft, last: Knowing(text, rate))
        return "knowing"

    return know


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let passes read some guesses, whether they are worth it or not."""
    dice = random.Random(5)

    def some(self: Pass, offers: list[Any]) -> None:
        for offer in offers:
            offer.n_wanted = dice.randint(0, offer.limit)

    monkeypatch.setattr(Pass, "_choose", some)
    monkeypatch.setattr(Speculation, "_may_lose", lambda self: True)


class Case(NamedTuple):
    """A text: the model, the prompt, the options, and which guesser."""

    model: Model
    prompt: list[int]
    options: dict[str, Any]
    guessing: dict[str, Any]


@pytest.fixture(scope="module")
def models(model_file: ModelFile) -> dict[str, Model]:
    return {version: Model(model_file(version, n_vocab=256)) for version in VERSIONS}


def any_case(dice: random.Random, models: dict[str, Model], trained: Model) -> Case:
    """Return a random text; half of them are of the trained model, which repeats itself."""
    model = trained if dice.random() < 0.4 else models[dice.choice(VERSIONS)]
    prompt = list(dice.choice([PROMPT, "abcabcabcab", "x" * 300, "a"]).encode())
    options: dict[str, Any] = {
        "max_tokens": dice.choice([1, 2, 7, 40]),
        "temperature": dice.choice([0, 0.3, 1.0, 2.0]),
        "top_p": dice.choice([1.0, 0.85, 0.2]),
        "top_k": dice.choice([0, 3]),
        "seed": dice.randrange(1000),
        "stop_tokens": dice.choice([[], [10], [0]]),
        "stop": dice.choice([(), "\n", ["ab", "e "]]),
    }
    if dice.random() < 0.4:
        options |= {"presence_penalty": 0.4, "frequency_penalty": 0.3, "repetition_penalty": 1.1}
    if dice.random() < 0.2:
        options |= {"mirostat_tau": 3.0}
    draft = dice.choice([model, models["7"]])
    guessing = dice.choice(
        [
            {"speculate": "lookup"},
            {"speculate": "draft", "draft": draft},
            {"speculate": "lookup+draft", "draft": draft},
        ]
    )
    return Case(model, prompt, options, guessing)


def equal(one: Session, other: Session) -> bool:
    return bool((one.state == other.state).all() and (one.logits == other.logits).all())


def check_case(case: Case, dice: random.Random) -> None:
    plain, guessed = (Session(case.model, tokenizer="bytes") for _ in range(2))
    text = plain.stream(case.prompt, **case.options)
    expected = "".join(text)
    stream = guessed.stream(case.prompt, **case.options, **case.guessing)
    found, forks = "", []
    for piece in stream:
        found += piece
        if dice.random() < 0.2:  # looked at in the middle
            forks.append((list(stream.tokens), guessed.fork()))
    assert found == expected
    assert stream.tokens == text.tokens
    assert stream.finish_reason == text.finish_reason
    assert equal(plain, guessed)
    for tokens, fork in forks[:2]:
        read = Session(case.model, tokenizer="bytes")
        read.feed(case.prompt)
        for token in tokens:
            read.feed([token])
        assert equal(read, fork)


@pytest.mark.usefixtures("eager")
def test_texts_are_the_same_to_the_bit(models: dict[str, Model], trained: Model) -> None:
    dice = random.Random(1)
    for _ in range(60):
        check_case(any_case(dice, models, trained), dice)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_thousand_texts_are_the_same_to_the_bit(models: dict[str, Model], trained: Model) -> None:
    dice = random.Random(2)
    for _ in range(1000):
        check_case(any_case(dice, models, trained), dice)


def check_in_company(models: dict[str, Model], trained: Model, n_rounds: int) -> None:
    dice = random.Random(3)
    for _ in range(n_rounds):
        cases = [any_case(dice, models, trained) for _ in range(12)]
        cases = [case for case in cases if case.model is cases[0].model]
        expected = [
            Session(case.model, tokenizer="bytes").generate(case.prompt, **case.options)
            for case in cases
        ]
        with Engine(cases[0].model, tokenizer="bytes", max_running=4) as engine:
            requests = [
                engine.submit(
                    case.prompt,
                    keep_session=dice.random() < 0.5,
                    logprobs=2,
                    **case.options,
                    **(case.guessing if dice.random() < 0.8 else {}),
                )
                for case in cases
            ]
            assert [request.result() for request in requests] == expected


@pytest.mark.usefixtures("eager")
def test_in_company_too(models: dict[str, Model], trained: Model) -> None:
    check_in_company(models, trained, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_in_company_too_a_hundred_times(models: dict[str, Model], trained: Model) -> None:
    check_in_company(models, trained, 100)


@pytest.mark.usefixtures("eager")
def test_logprobs_and_the_kept_session_are_the_same(trained: Model) -> None:
    options: dict[str, Any] = {"max_tokens": 40, "seed": 3, "logprobs": 3, "keep_session": True}
    with Engine(trained) as engine:
        plain = engine.submit(PROMPT, **options)
        guessed = engine.submit(PROMPT, speculate="lookup", **options)
        assert plain.result() == guessed.result()
    assert plain.tokens == guessed.tokens
    assert plain.logprobs == guessed.logprobs
    assert equal(plain.session, guessed.session)
    assert plain.speculation is None
    assert guessed.speculation is not None
    assert guessed.speculation.n_guessed > 0


@pytest.mark.usefixtures("eager")
def test_what_is_kept_in_a_cache_is_where_the_text_ended(trained: Model) -> None:
    cache = PrefixCache(trained)
    guessed = Session(trained, cache=cache)
    text = guessed.generate(PROMPT, max_tokens=90, seed=1, speculate="lookup")
    again = Session(trained, cache=cache)
    again.feed(PROMPT + text + ".")
    assert cache.tokens_found >= len((PROMPT + text).encode())
    fresh = Session(trained)
    fresh.generate(PROMPT, max_tokens=90, seed=1)
    fresh.feed(".")
    assert equal(fresh, again)


def test_guesses_that_hold_spare_passes(
    trained: Model, knows: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # every pass takes a second
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(trained, "_pass_times", PassTimes())
    stream = Session(trained).stream(PROMPT, max_tokens=200, seed=4)
    expected = "".join(stream)
    name = knows([*PROMPT.encode(), *stream.tokens], 1.0)
    guessed = Session(trained).stream(PROMPT, max_tokens=200, seed=4, speculate=name)
    assert "".join(guessed) == expected
    counts = guessed.speculation
    assert counts is not None
    assert counts.n_kept == counts.n_guessed > 100
    # Each token but the last was read: by a pass of its own, or as a guess.
    assert counts.n_passes + counts.n_kept == len(guessed.tokens)
    assert counts.tokens_per_pass > 2


def times_of(**seconds: float) -> PassTimes:
    times = PassTimes()
    for rows, each in seconds.items():
        for _ in range(2):
            times.learn(int(rows.removeprefix("r")), each)
    return times


def texts_with(
    guessers: list[Any], limit: int = MAX_GUESSES
) -> list[tuple[Speculation | None, int]]:
    return [(Speculation([guesser], SpeculationCounts()), limit) for guesser in guessers]


def test_no_guesses_where_rows_are_not_free() -> None:
    free = times_of(r1=1.0, r31=1.1, r62=1.2)
    dear = times_of(r1=1.0, r2=2.0, r31=31.0)
    one = Knowing(range(100), 1.0)
    assert len(Pass(free, texts_with([one])).guesses[0]) > 5
    assert Pass(dear, texts_with([one])).guesses == [[]]


def test_never_more_than_a_narrow_pass_takes_nor_than_are_left() -> None:
    free = times_of(r1=1.0, r31=1.0)
    sure = texts_with([Knowing(range(100), 1.0)])
    text = sure[0][0]
    assert text is not None
    for _ in range(50):
        text._record("knowing").learn(held=True)
    assert Pass(free, sure).guesses == [list(range(MAX_GUESSES))]
    assert Pass(free, [(text, 3)]).guesses == [[0, 1, 2]]
    assert Pass(free, [(text, 0)]).guesses == [[]]


def test_the_first_pass_and_passes_beside_a_prompt_have_no_guesses() -> None:
    texts = texts_with([Knowing(range(100), 1.0)])
    assert Pass(PassTimes(), texts).guesses == [[]]
    assert Pass(None, texts).guesses == [[]]


def test_a_lost_share_is_bounded() -> None:
    """Guesses that never hold lose at most a pass or two, and a small share."""
    times = times_of(r1=1.0, r31=1.3)
    ((text, _),) = texts_with([Knowing(range(1000), 0.0)])
    assert text is not None
    lost, n_passes = 0.0, 1000
    for token in range(n_passes):
        guessing = Pass(times, [(text, MAX_GUESSES)])
        n = len(guessing.guesses[0])
        seconds = 1 + 0.01 * n
        lost += seconds - 1
        guessing._began -= seconds  # as if it had taken as long
        guessing.made()
        text.took(token)
    assert lost < 0.03 * n_passes


def test_what_a_draft_takes_counts() -> None:
    """A draft as slow as the model is not asked for long."""
    times = times_of(r1=1.0, r31=1.0)
    ((text, _),) = texts_with([Knowing(range(1000), 1.0)])
    assert text is not None
    text._record("knowing").seconds = 2.0
    assert Pass(times, [(text, 9)]).guesses == [[]]
    text._record("knowing").seconds = 0.1
    assert Pass(times, [(text, 9)]).guesses != [[]]


def test_a_guesser_that_fails_leaves_the_text_alone(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = Model(trained.path)
    options: dict[str, Any] = {"max_tokens": 30, "seed": 2}
    expected = Session(trained).generate(PROMPT, **options)
    stream = Session(trained).stream(PROMPT, speculate="draft", draft=draft, **options)
    found = next(stream)
    draft.close()
    assert found + "".join(stream) == expected


class TestLookup:
    """The suffix automaton, against what it stands for."""

    def matches(self, text: Sequence[int]) -> tuple[int, set[int]]:
        """Return the length of the longest suffix that occurred before, and where it ended."""
        for length in range(len(text) - 1, 0, -1):
            ends = {
                end
                for end in range(length, len(text))
                if text[end - length : end] == text[len(text) - length :]
            }
            if ends:
                return length, ends
        return 0, set()

    @pytest.mark.parametrize("n_letters", [1, 2, 3, 20])
    def test_the_longest_suffix_that_occurred_before(self, n_letters: int) -> None:
        dice = random.Random(n_letters)
        for _ in range(30):
            guesser, text = LookupGuesser(), list[int]()
            for _ in range(60):
                text.append(dice.randrange(n_letters))
                guesser.read(text[-1])
                length, ends = self.matches(text)
                assert guesser._match[0] == length
                if length:
                    at = guesser._match[1]
                    assert at in ends
                    (guess,) = LookupGuesser.guess([(guesser, 70)])
                    assert guess[: len(text) - at] == text[at:]
                    assert len(guess) == 70
                    assert guess[len(text) - at :] == guess[: 70 - (len(text) - at)]
                else:
                    assert guesser.source == ""

    def test_the_last_of_several_places_is_taken(self) -> None:
        guesser = LookupGuesser()
        guesser.begin(list(b"ab1 ab2 ab3 ab"))
        assert LookupGuesser.guess([(guesser, 1)]) == [[ord("3")]]

    def test_a_long_text_is_forgotten_at_its_beginning(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rwkv_py.lookup._MAX_TOKENS", 100)
        guesser = LookupGuesser()
        guesser.begin(list(range(90)))
        for token in [*range(90, 180), 50]:
            guesser.read(token)
        assert guesser._match[0] == 0
        guesser.read(150)
        guesser.read(151)
        assert LookupGuesser.guess([(guesser, 2)]) == [[152, 153]]


class TestDraft:
    """Guesses of a model."""

    def test_they_are_what_it_holds_most_probable(self, trained: Model) -> None:
        guessers = [DraftGuesser(trained) for _ in range(3)]
        prompts = [b"import ", PROMPT.encode(), b"x" * 600]
        for guesser, prompt in zip(guessers, prompts, strict=True):
            guesser.begin(list(prompt))
        wanted = list(zip(guessers, (4, 9, 5), strict=True))
        guesses = DraftGuesser.guess(wanted)
        for prompt, found, n in zip(prompts[:2], guesses, (4, 9), strict=False):
            stream = Session(trained).stream(prompt, max_tokens=n, temperature=0, stop_tokens=[])
            "".join(stream)
            assert found == stream.tokens
        assert guesses[2] == []  # a piece of it was read, and others did not wait for more
        DraftGuesser.guess(wanted)
        assert len(DraftGuesser.guess(wanted)[2]) == 5

    def test_it_goes_on_with_what_was_taken(self, trained: Model) -> None:
        guesser = DraftGuesser(trained)
        guesser.begin(list(b"import o"))
        DraftGuesser.guess([(guesser, 8)])
        for token in b"s\nimport ":
            guesser.read(token)
        (found,) = DraftGuesser.guess([(guesser, 6)])
        fresh = DraftGuesser(trained)
        fresh.begin(list(b"import os\nimport "))
        assert DraftGuesser.guess([(fresh, 6)]) == [found]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"speculate": "magic"}, "speculate: expected lookup, draft, or several joined by +"),
        ({"speculate": 3}, "speculate: expected a name"),
        ({"speculate": "draft"}, "expected a draft model"),
        ({"draft": "model.bin"}, "draft: expected a Model, got str"),
    ],
)
def test_wrong_options(trained: Model, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Session(trained).stream("a", **options)
    with Engine(trained) as engine, pytest.raises(InvalidArgumentError, match=complaint):
        engine.submit("a", **options)


def test_a_draft_has_the_same_tokens(trained: Model, model_file: ModelFile) -> None:
    other = Model(model_file("7", n_vocab=64))
    with pytest.raises(InvalidArgumentError, match="same 256 tokens, got one with 64"):
        Session(trained).stream("a", draft=other)
    with pytest.raises(InvalidArgumentError, match="expected with 'draft'"):
        Session(trained).stream("a", draft=trained, speculate="lookup")


@pytest.mark.usefixtures("eager")
def test_what_a_grammar_forces_is_guessed(trained: Model) -> None:
    pytest.importorskip("llguidance")
    options: dict[str, Any] = {
        "regex": r'\{"name": "[a-z]{1,9}", "value": [0-9]{1,4}\}',
        "seed": 1,
        "max_tokens": 80,
    }
    expected = Session(trained).generate("x = ", **options)
    stream = Session(trained).stream("x = ", speculate="lookup", **options)
    assert "".join(stream) == expected
    assert stream.speculation is not None
    assert stream.speculation.n_kept > 10


def test_a_fork_shares_what_was_read_until_it_goes_on_differently(trained: Model) -> None:
    first = Session(trained)
    first.feed("abc")
    second = first.fork()
    first.feed("d")
    second.feed("e")
    histories = [s._sequence.history.since(0).tobytes() for s in (first, second)]
    assert histories == [as_tokens(list(text)).tobytes() for text in (b"abcd", b"abce")]


def test_the_logits_of_a_fork_do_not_change(trained: Model, knows: Callable[..., str]) -> None:
    stream = Session(trained).stream(PROMPT, max_tokens=60, seed=4)
    "".join(stream)
    name = knows([*PROMPT.encode(), *stream.tokens], 1.0)
    session = Session(trained)
    kept = []
    for _ in session.stream(PROMPT, max_tokens=60, seed=4, speculate=name):
        fork = session.fork()
        kept.append((fork, fork.logits.copy()))
    assert all(np.array_equal(fork.logits, logits) for fork, logits in kept)


def test_the_chat_takes_the_options(trained: Model) -> None:
    plain, guessed = Chat(Session(trained)), Chat(Session(trained))
    for question in ("What is json?", "What is json?"):
        expected = plain.ask(question, max_tokens=40, seed=1)
        reply = guessed.stream(question, max_tokens=40, seed=1, speculate="lookup")
        assert reply.read() == expected
        assert reply.speculation is not None


class TestBegin:
    """A text that goes on with the last one: what was read is not read again."""

    def test_the_draft_reads_what_is_new(
        self, trained: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft = Model(trained.path)
        n_read = 0
        step = Model._step

        def counted(model: Model, work: Any, *wanted: Any, **how: Any) -> Any:
            nonlocal n_read
            n_read += sum(len(tokens) for _, tokens in work) * (model is draft)
            return step(model, work, *wanted, **how)

        def all_of_them(self: Pass, offers: list[Any]) -> None:
            for offer in offers:
                offer.n_wanted = offer.limit

        monkeypatch.setattr(Model, "_step", counted)
        monkeypatch.setattr(Pass, "_choose", all_of_them)  # whatever they take on this machine
        session = Session(trained)
        session.generate("x" * 200, max_tokens=9, draft=draft, stop_tokens=[])
        n_first, n_read = n_read, 0
        session.generate("y", max_tokens=9, draft=draft, stop_tokens=[])
        assert n_read < n_first - 150
        n_read = 0
        session.reset()
        session.generate("z" * 200, max_tokens=9, draft=draft, stop_tokens=[])
        assert n_read >= 200

    def test_the_same_guesses_as_anew(self, trained: Model) -> None:
        beginnings = [b"import o", b"import os\nimp", b"import os\nimport ", b"def f(", b"def f(x"]
        kinds: list[Callable[[], Any]] = [LookupGuesser, lambda: DraftGuesser(trained)]
        for make in kinds:
            kept = make()
            for text in beginnings:
                kept.begin(list(text))
                fresh = make()
                fresh.begin(list(text))
                assert kept.source == fresh.source
                assert type(kept).guess([(kept, 5)]) == type(kept).guess([(fresh, 5)])


def test_a_guesser_that_cannot_say_what_it_has_leaves_the_others_alone(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Knowing):
        @property
        def source(self) -> str:  # type: ignore[override]
            raise RuntimeError("broken")

    monkeypatch.setitem(GUESSERS, "broken", lambda draft, last: Broken([], 1.0))
    expected = Session(trained).generate(PROMPT, max_tokens=20, seed=1)
    with Engine(trained) as engine:
        requests = [
            engine.submit(PROMPT, max_tokens=20, seed=1, speculate=name)
            for name in ("broken", "lookup", None)
        ]
        assert [request.result() for request in requests] == [expected] * 3


def rows_of_passes(
    times: PassTimes, rate: float, seconds_of: Callable[[int], float], most: int = 5
) -> list[int]:
    """How many rows the passes have in which 1 000 tokens are written, at most so many each."""
    tokens = [i % 256 for i in range(1000)]
    ((text, _),) = texts_with([Knowing(tokens, rate)])
    assert text is not None
    n_rows = []
    while tokens:
        guessing = Pass(times, [(text, min(most - 1, len(tokens) - 1))])
        n_rows.append(1 + len(guessing.guesses[0]))
        guessing._began -= seconds_of(n_rows[-1])
        guessing.made()
        for guess in [*guessing.guesses[0], None]:  # those that hold, and what is drawn then
            token = tokens.pop(0)
            text.took(token)
            if guess != token:
                break
    return n_rows


def test_a_size_that_was_slow_once_is_tried_again() -> None:
    """Its first pass asked for memory, or the machine was busy: that does not last."""
    times = times_of(r1=1.0, r2=1.8, r5=3.0)
    n_rows = rows_of_passes(times, 0.8, lambda rows: 1 + 0.1 * rows)
    assert 5 in n_rows[:250]
    assert n_rows[-100:].count(5) > 50


def test_a_pass_that_asks_for_memory_says_nothing_of_the_next() -> None:
    """The first of more rows than any before, which takes twice as long here."""
    seen = {1}

    def seconds(rows: int) -> float:
        first = rows > max(seen)
        seen.add(rows)
        return (2 if first else 1) * (1 + 0.1 * rows)

    n_rows = rows_of_passes(PassTimes(), 0.8, seconds)
    assert n_rows[:40].count(5) > 30


def test_a_size_before_a_step_is_found() -> None:
    """Rows are taken by twos and fours: a fifth takes much more, though a fourth is free."""
    seconds = {1: 28.0, 2: 28.4, 3: 33.0, 4: 30.1, 5: 42.2, 6: 53.1}
    n_rows = rows_of_passes(PassTimes(), 0.8, seconds.__getitem__, most=6)
    assert 4 in n_rows[:30]
    assert n_rows[-100:].count(4) > 90


def test_a_size_that_is_dear_is_seldom_tried() -> None:
    times = times_of(r1=1.0, r2=1.8, r5=4.2)
    n_rows = rows_of_passes(times, 0.6, lambda rows: 1 + 0.8 * (rows - 1))
    assert max(n_rows) > 1  # it may have become better
    assert sum(1 + 0.8 * (rows - 1) for rows in n_rows) < 1.02 * 1000


def test_what_is_old_follows_what_the_machine_does() -> None:
    times = PassTimes()
    for _ in range(20):
        times.learn(1, 1.0)
        times.learn(4, 1.2)
    for _ in range(200):  # slower, for whatever reason
        times.learn(1, 2.0)
    one, four = times.of(1), times.of(4)
    assert one is not None and four is not None
    assert one == pytest.approx(2.0, rel=0.01)
    assert one <= four <= 1.2 * one
    for _ in range(200):
        times.learn(4, 0.6)
    one = times.of(1)
    assert one is not None and one <= 0.61


def test_times_are_learnt_in_several_threads() -> None:
    times = times_of(r1=1.0, r120=1.0)

    def use(first: int) -> None:
        for i in range(3000):
            times.learn((first + i) % 120 + 1, 1.0)
            assert times.of(i % 130 + 1) is not None

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(use, 30 * i) for i in range(4)]:
            done.result()


def test_without_memory_for_guesses_the_next_try_is_whole(
    trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = Session(trained)._sequence
    sequence.room_ahead(4)

    def none(*_: Any) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("rwkv_py.sequence.np.empty", none)
        with pytest.raises(MemoryError):
            sequence.room_ahead(20)
    tokens = as_tokens(list(range(1, 21)))
    sequence.read_ahead(tokens)
    assert sequence.takes(2)
