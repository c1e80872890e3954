"""PrefixCache finds what was read as text, in whatever tokens it was read."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rwkv_py import Engine, Model, PrefixCache, Session, Tokenizer
from rwkv_py._arguments import TokenSequence
from rwkv_py.prompt import Prompt
from rwkv_py.sequence import Sequence

SYSTEM = "The documentation of the Python standard library, in its own words. "
TH, NOTHING = 1, 2  # tokens of `Pairs`


class Pairs(Tokenizer):
    """Bytes, but "th" is one token (though it may be written as two), and one token is nothing."""

    @property
    def n_vocab(self) -> int:
        return 256

    def encode(self, text: str | bytes) -> list[int]:
        encoded = text.encode() if isinstance(text, str) else text
        return [*encoded.replace(b"th", bytes([TH]))]

    def decode_bytes(self, tokens: TokenSequence) -> bytes:
        return b"".join({TH: b"th", NOTHING: b""}.get(token, bytes([token])) for token in tokens)


@pytest.fixture
def cache(trained: Model) -> PrefixCache:
    return PrefixCache(trained)


def read(*parts: TokenSequence, model: Model) -> Session:
    session = Session(model)
    for part in parts:
        session.feed(part)
    return session


def test_a_prompt_is_found_that_goes_on_after_a_generated_answer(
    trained: Model, cache: PrefixCache
) -> None:
    """The model drew "t" and "h"; the prompt that quotes the answer has "th" in one token."""
    pairs = Pairs()
    first = Session(trained, tokenizer=pairs, cache=cache)
    prompt = SYSTEM + "It returns the value of "
    stream = first.stream(prompt, max_tokens=40, temperature=0, banned_tokens=[TH, NOTHING, 0])
    answer = "".join(stream)
    assert "th" in answer
    again = Session(trained, tokenizer=pairs, cache=cache)
    follow_up = prompt + answer + "\n\nAnd now?"
    logits = again.feed(follow_up)
    assert cache.tokens_found == len(pairs.encode(prompt + answer))
    rest = pairs.encode("\n\nAnd now?")
    expected = read(pairs.encode(prompt), stream.tokens, rest, model=trained)
    assert np.array_equal(again.state, expected.state)
    assert np.array_equal(logits, expected._sequence.logits)
    cut_anew = read(pairs.encode(follow_up), model=trained)
    assert not np.array_equal(again.state, cut_anew.state)  # it matters, and is what is promised


def test_a_system_prompt_that_was_read_by_itself_is_found(
    trained: Model, cache: PrefixCache
) -> None:
    Session(trained, cache=cache).feed(SYSTEM)
    session = Session(trained, cache=cache)
    logits = session.feed(SYSTEM + "What does json do?")
    assert cache.tokens_found == len(SYSTEM)
    expected = Session(trained)
    expected.feed(SYSTEM)
    assert np.array_equal(logits, expected.feed("What does json do?"))


def test_a_place_inside_a_token_of_the_new_prompt_does_not_count(
    trained: Model, cache: PrefixCache
) -> None:
    """Else "t" would be read before "he" where the tokenizer has "th"."""
    pairs = Pairs()
    text = SYSTEM + "What is t"
    Session(trained, tokenizer=pairs, cache=cache).feed(text)
    session = Session(trained, tokenizer=pairs, cache=cache)
    session.feed(text + "his about?")
    assert cache.tokens_found == 0
    expected = read(pairs.encode(text + "his about?"), model=trained)
    assert np.array_equal(session.state, expected.state)
    Session(trained, tokenizer=pairs, cache=cache).feed(text + "o be done?")
    assert cache.tokens_found == len(pairs.encode(text))


def test_no_character_is_torn(trained: Model, cache: PrefixCache) -> None:
    """World's tokens for text that is read from a place inside a character would be other ones."""
    pairs = Pairs()
    cut = (SYSTEM + "é").encode()
    Session(trained, tokenizer=pairs, cache=cache).feed(cut[:-1])
    session = Session(trained, tokenizer=pairs, cache=cache)
    session.feed(SYSTEM + "é is a letter")  # byte tokens have a boundary there: it counts
    assert cache.tokens_found == len(pairs.encode(cut)) - 1
    expected = read(pairs.encode(cut[:-1]), pairs.encode(b"\xa9 is a letter"), model=trained)
    assert np.array_equal(session.state, expected.state)


def test_the_longest_beginning_counts(trained: Model, cache: PrefixCache) -> None:
    longer = SYSTEM + "A longer one. "
    for text in (SYSTEM, longer, SYSTEM + "Another."):
        Session(trained, cache=cache).feed(text)
    before = cache.tokens_found
    assert before == 2 * len(SYSTEM)
    Session(trained, cache=cache).feed(longer + "And more.")
    assert cache.tokens_found - before == len(longer)


def test_what_is_the_same_to_the_bit_comes_first(trained: Model, cache: PrefixCache) -> None:
    """The same text is there in other tokens too, and those were read last."""
    pairs = Pairs()
    for tokens in (pairs.encode(SYSTEM), [*SYSTEM.encode()]):
        Session(trained, tokenizer=pairs, cache=cache).feed(tokens)
    logits = Session(trained, tokenizer=pairs, cache=cache).feed(SYSTEM)
    expected = read(pairs.encode(SYSTEM), model=trained)
    assert cache.tokens_found == len(pairs.encode(SYSTEM))
    assert np.array_equal(logits, expected._sequence.logits)


def test_tokens_are_found_as_tokens_only(trained: Model, cache: PrefixCache) -> None:
    pairs = Pairs()
    Session(trained, tokenizer=pairs, cache=cache).feed([*SYSTEM.encode()])
    other = Session(trained, tokenizer=pairs, cache=cache)
    tokens = pairs.encode(SYSTEM)
    assert np.array_equal(other.feed(tokens), read(tokens, model=trained)._sequence.logits)
    assert cache.tokens_found == 0


def test_a_token_that_stands_for_nothing_is_not_text(trained: Model, cache: PrefixCache) -> None:
    """As token 0 of World: with it the state is another, though the text is the same."""
    pairs = Pairs()
    for tokens in ([NOTHING, *pairs.encode(SYSTEM)], [*pairs.encode(SYSTEM), NOTHING]):
        Session(trained, tokenizer=pairs, cache=cache).feed(tokens)
    session = Session(trained, tokenizer=pairs, cache=cache)
    logits = session.feed(SYSTEM)
    assert cache.tokens_found == 0
    expected = read(pairs.encode(SYSTEM), model=trained)
    assert np.array_equal(logits, expected._sequence.logits)
    assert Tokenizer.world().decode_bytes([0]) == b""


def test_tokenizers_and_beginnings_are_told_apart(trained: Model, cache: PrefixCache) -> None:
    Session(trained, tokenizer=Pairs(), cache=cache).feed(SYSTEM)
    state = np.full((6, 4, 64, 64), 0.1, np.float32)
    for options in ({"tokenizer": Pairs()}, {}, {"time_state": state, "tokenizer": Pairs()}):
        session = Session(trained, cache=cache, **options)  # type: ignore[arg-type]
        plain = Session(trained, **options)  # type: ignore[arg-type]
        assert np.array_equal(session.feed(SYSTEM + "x"), plain.feed(SYSTEM + "x"))
    # As "th" is read in two tokens by one of them, all three states differ.
    assert cache.tokens_found == 0


def test_exact_looks_for_tokens_only(trained: Model) -> None:
    cache = PrefixCache(trained, exact=True)
    Session(trained, cache=cache).generate(SYSTEM, max_tokens=5)
    assert len(cache) == 1  # nothing that only its text could find
    Session(trained, cache=cache).feed(SYSTEM + "What does json do?")
    assert cache.tokens_found == 0
    Session(trained, cache=cache).feed(SYSTEM)
    assert cache.tokens_found == len(SYSTEM)


def test_states_that_went_are_not_found_as_text(trained: Model) -> None:
    one = 4 * (trained.state_size + trained.n_vocab)
    cache = PrefixCache(trained, budget=2 * one)
    texts = [f"{i}: {SYSTEM}" for i in range(5)]
    for text in texts:
        Session(trained, cache=cache).feed(text)
    assert len(cache) == len(cache._by_text) == 2
    for text in texts:
        logits = Session(trained, cache=cache).feed(text + "!")
        expected = read([*text.encode()], [*b"!"], model=trained)
        assert np.array_equal(logits, expected._sequence.logits)
        assert cache.n_bytes <= 2 * one
        assert len(cache._by_text) == len(cache)
    cache.clear()
    assert not cache._by_text


@pytest.mark.parametrize("tokenizer", [Tokenizer.bytewise(), Pairs()])
def test_conversations_at_random(
    tokenizer: Tokenizer, trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that quote what was written, in a cache that is too small for all of it.

    Whatever is found, the model has read the bytes of the prompt, in the tokens that led to the
    state: each is noted where it is read, and read again by a session without a cache.
    """
    moved = Sequence.moved
    history: dict[bytes, list[Any]] = {b"": []}

    def noting(sequence: Sequence, tokens: Any, logits: Any) -> None:
        assert sequence.place is not None
        before = history[sequence.place.pieces]
        moved(sequence, tokens, logits)
        history[sequence.place.pieces] = [*before, tokens]

    choice = random.Random(3)
    cache = PrefixCache(trained, budget=2_000_000)
    texts = [SYSTEM, "Another beginning, of another conversation: "]
    hits = 0
    for _ in range(50):
        text = choice.choice(texts)
        session = Session(trained, tokenizer=tokenizer, cache=cache)
        before = cache.tokens_found
        with monkeypatch.context() as patch:
            patch.setattr(Sequence, "moved", noting)
            drawn = {"max_tokens": choice.randrange(1, 12), "seed": choice.randrange(1000)}
            stream = session.stream(text, stop_tokens=(), **drawn)
            _ = list(stream)
        hits += cache.tokens_found > before
        assert session._sequence.place is not None
        parts = history[session._sequence.place.pieces]
        answer = b"".join(tokenizer.decode_bytes([token]) for token in stream.tokens)
        assert b"".join(map(tokenizer.decode_bytes, parts)) == text.encode() + answer
        assert np.array_equal(session.state, read(*parts, model=trained).state)
        assert cache.n_bytes <= 2_000_000
        quoted = answer.decode("utf-8", "ignore")
        texts.append(text + quoted + choice.choice(["", " more", "th", "h", "\n\n"]))
    assert hits > 10


def test_engine_finds_and_keeps(trained: Model, cache: PrefixCache) -> None:
    with Engine(trained, cache=cache) as engine:
        first = engine.submit(SYSTEM, max_tokens=20, temperature=0)
        answer = first.result()
        assert first.n_cached_tokens == 0
        follow_up = SYSTEM + answer[:-1]  # the last token was drawn, not read
        second = engine.submit(follow_up + "\n\nAnd now?", max_tokens=20, temperature=0)
        text = second.result()
        assert second.n_cached_tokens == len(follow_up)
        assert second.n_prompt_tokens == len(follow_up) + len("\n\nAnd now?")
    alone = Session(trained)
    alone.feed(SYSTEM)
    for byte in answer[:-1].encode():
        alone.feed([byte])
    assert alone.generate("\n\nAnd now?", max_tokens=20, temperature=0) == text
    session = Session(trained, cache=cache)  # sessions and engines share it
    before = cache.tokens_found
    session.feed(follow_up + "\n\nAnd now?")
    assert cache.tokens_found - before == len(follow_up + "\n\nAnd now?")


def test_engine_alone_and_in_company(trained: Model) -> None:
    """With the same in the cache each request gets the same, whoever is beside it."""
    prompts = [SYSTEM * (1 + i % 9) + f"Number {i}: " for i in range(24)]
    expected = [
        Session(trained).generate(prompt, max_tokens=10, temperature=0) for prompt in prompts
    ]
    for _ in range(2):
        cache = PrefixCache(trained, budget=8_000_000)
        with Engine(trained, cache=cache, max_running=8) as engine:
            requests = [engine.submit(p, max_tokens=10, temperature=0) for p in prompts]
            assert [request.result() for request in requests] == expected
            assert cache.tokens_found + cache.tokens_read == sum(map(len, prompts))
            assert cache.tokens_found > 0


def test_engine_goes_on_from_sessions_with_the_cache(trained: Model, cache: PrefixCache) -> None:
    base = Session(trained, cache=cache)
    base.feed("Before all else. ")
    expected = base.fork().generate(SYSTEM, max_tokens=9, temperature=0)
    before = cache.tokens_found
    with Engine(trained, cache=cache) as engine:
        for _ in range(2):
            request = engine.submit(SYSTEM, session=base, max_tokens=9, temperature=0)
            assert request.result() == expected
            assert request.n_cached_tokens == len(SYSTEM)
    assert cache.tokens_found - before == 2 * len(SYSTEM)


def test_a_session_with_another_tokenizer_than_the_engine(
    trained: Model, cache: PrefixCache
) -> None:
    """What was read in the one's tokens is not found for the other's prompt."""
    pairs = Pairs()
    base = Session(trained, tokenizer=pairs, cache=cache)
    base.feed(SYSTEM)
    text = "this and that, the other thing, and a third thing."
    base.fork().feed(text)
    plain = read(pairs.encode(SYSTEM), [*text.encode()], model=trained)
    expected = plain.generate("", max_tokens=9, temperature=0)
    with Engine(trained, cache=cache) as engine:
        request = engine.submit(text, session=base, max_tokens=9, temperature=0, keep_session=True)
        assert request.result() == expected
        assert request.n_cached_tokens == 0


def test_engines_and_sessions_in_threads(trained: Model) -> None:
    cache = PrefixCache(trained, budget=3_000_000)
    prompts = [SYSTEM * n + end for n in (1, 3, 6) for end in ("", "a", "b")]
    expected = {p: Session(trained).feed(p) for p in prompts}
    wrong: list[Any] = []

    def work(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(12):
            prompt = choice.choice(prompts)
            if not np.array_equal(Session(trained, cache=cache).feed(prompt), expected[prompt]):
                wrong.append(prompt)

    with Engine(trained, cache=cache) as engine:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        requests = [engine.submit(p, max_tokens=1, temperature=0) for p in prompts * 3]
        for prompt, request in zip(prompts * 3, requests, strict=True):
            assert request.result() == chr(int(expected[prompt].argmax()))
        for thread in threads:
            thread.join()
    assert not wrong


# ---- where text is cut


@pytest.fixture(scope="module")
def world() -> Iterator[Tokenizer]:
    yield Tokenizer.world()


def test_boundaries_of_world_tokens(world: Tokenizer, examples: Path) -> None:
    text = (examples / "heldout_a.txt").read_text()[:400] + " naïve 你好 🙂 "
    prompt = Prompt.of_text(text, world, 65536)
    boundaries = {0: 0}
    n_bytes = 0
    for i, token in enumerate(prompt.tokens.tolist()):
        n_bytes += len(world.decode_bytes([token]))
        boundaries[n_bytes] = i + 1
    assert n_bytes == len(text.encode())
    for place in range(n_bytes + 1):
        assert prompt.n_tokens_of(place) == boundaries.get(place)


class Lossy(Pairs):
    """It writes capitals small."""

    def encode(self, text: str | bytes) -> list[int]:
        return super().encode(text.lower())


def test_a_tokenizer_that_changes_text_has_no_boundaries_after_it(
    trained: Model, cache: PrefixCache, model_file: Callable[..., Path]
) -> None:
    lossy = Lossy()
    prompt = Prompt.of_text("a th B", lossy, 256)
    assert [prompt.n_tokens_of(i) for i in range(7)] == [0, 1, 2, None, 3, 4, None]
    Session(trained, tokenizer=lossy, cache=cache).feed(SYSTEM.lower())
    session = Session(trained, tokenizer=lossy, cache=cache)
    session.feed(SYSTEM + "x")  # read as small letters, but the text is another
    assert cache.tokens_found == 0


def test_loaded_states_share_what_is_read_after_them(trained: Model, tmp_path: Path) -> None:
    """After the same numbers the same text; after others, not."""
    session = Session(trained)
    session.feed("Something to remember.")
    session.save_state(tmp_path / "one.state")
    session.feed(" And more.")
    session.save_state(tmp_path / "two.state")
    session.state = session.state  # without the last token
    session.save_state(tmp_path / "three.state")
    cache = PrefixCache(trained)
    text = "A long text that several want to read after what they remember. "
    for name, n_found in (
        ("one", 0),
        ("two", 0),
        ("one", 1),
        ("three", 1),
        ("two", 2),
        ("three", 3),
    ):
        cached, plain = Session(trained, cache=cache), Session(trained)
        for each in (cached, plain):
            each.load_state(tmp_path / f"{name}.state")
        assert np.array_equal(cached.feed(text), plain.feed(text))
        assert cache.tokens_found == n_found * len(text)
    cached.state = cached.state
    assert np.array_equal(cached.feed(text), cached.logits)
    assert cache.tokens_found == 3 * len(text)
