"""What `benchmarks.speculate` measures: passes of several rows, and texts with guesses."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from rwkv_py import Model, Sampler, Session, Tokenizer
from rwkv_py._arguments import Tokens, as_tokens
from rwkv_py.draft import DraftGuesser
from rwkv_py.generation import Plan
from rwkv_py.lookup import LookupGuesser
from rwkv_py.sequence import MAX_AHEAD, History, Logits
from rwkv_py.session import _Writer
from rwkv_py.speculation import Guesser, SpeculationCounts
from rwkv_py.text_stream import TextStream

from . import quiet
from .models import SHAPES, into_page_cache, model_file
from .paths import REPO
from .speculate import Curve, Written

ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, MAX_AHEAD)
RATES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)
DRAFT_RATE = 0.7
FIVE = 5


class Given:
    """Draws as a sampler does, and says what the text has: all work is done, the text is known."""

    def __init__(self, tokens: Sequence[int], n_vocab: int):
        self._sampler = Sampler(n_vocab, seed=1)
        self._tokens = iter(tokens)

    def sample(self, logits: Any) -> int:
        """Draw a token, and return the text's."""
        self._sampler.sample(logits)
        return next(self._tokens)

    def accept(self, token: int) -> None:
        """Let it count."""
        self._sampler.accept(token)


class Knowing:
    """Knows the text, and errs at a rate; at most so many guesses at once."""

    is_free = True
    source = "knowing"

    def __init__(self, tokens: Sequence[int], rate: float, most: int):
        self._tokens = list(tokens)
        self._rate = rate
        self._most = most
        self._random = random.Random(1)
        self._n_read = 0

    def begin(self, text: list[int]) -> None:
        """Know how far the text is."""
        self._n_read = len(text)

    def read(self, token: int) -> None:
        """Know that it is further."""
        self._n_read += 1

    @classmethod
    def guess(cls, wanted: Sequence[tuple[Knowing, int]]) -> list[list[int]]:
        """Guess, rightly at the rate."""
        return [guesser._guess(min(n, guesser._most)) for guesser, n in wanted]

    def _guess(self, n: int) -> list[int]:
        right = self._tokens[self._n_read : self._n_read + n]
        return [t if self._random.random() < self._rate else t ^ 1 for t in right]


class DraftThatHolds(DraftGuesser):
    """A draft that computes all it has to, and then guesses the text at a rate."""

    def __init__(self, model: Model, tokens: Sequence[int], rate: float):
        super().__init__(model)
        self._knowing = Knowing(tokens, rate, 1)

    def begin(self, text: list[int]) -> None:
        """Know how far the text is."""
        super().begin(text)
        self._knowing.begin(text)

    def read(self, token: int) -> None:
        """Know that it is further."""
        super().read(token)
        self._knowing.read(token)

    def _most_probable(self, logits: Any, n_guessed: int) -> int:
        super()._most_probable(logits, n_guessed)
        at = self._knowing._n_read
        self._knowing._n_read += n_guessed
        guess = self._knowing._guess(1)
        self._knowing._n_read = at
        return guess[0] if guess else 0


ROUND = 0.2  # seconds of passes of a number of rows in a round, at least


def curve(model: Model, shape: str, repeats: int) -> list[Curve]:
    """Time passes, in turns."""
    found: dict[int, tuple[list[float], list[float], list[float]]] = {
        rows: ([], [], []) for rows in ROWS
    }
    plain, sequence = (Session(model)._sequence for _ in range(2))
    for each in (plain, sequence):
        each.read(as_tokens([1]))

    def straight(tokens: Tokens, rows: Logits) -> None:
        plain.core.feed_all(tokens, rows.reshape(-1))
        for i in range(tokens.size):  # the same notes
            plain.moved(tokens[i : i + 1], rows[i])

    def ahead(tokens: Tokens, n_taken: int) -> None:
        sequence.read_ahead(tokens)
        for token in tokens[1:n_taken]:
            sequence.takes(int(token))

    for _ in range(repeats):
        for rows, kinds in found.items():
            tokens = as_tokens([(7 * i + rows) % 1000 for i in range(rows)])
            end = time.perf_counter() + ROUND
            while time.perf_counter() < end:
                if rows == 1:
                    seconds = _seconds(partial(plain.read, tokens))
                    for kind in kinds:
                        kind.append(seconds)
                    continue
                room = sequence.room_ahead(rows)
                kinds[0].append(_seconds(partial(straight, tokens, room), 2))
                for kind, n_taken in zip(kinds[1:], (rows, (rows + 1) // 2), strict=True):
                    # What is kept decides what the next pass does, and the one after it.
                    for _ in range(2):
                        ahead(tokens, n_taken)
                    kind.append(_seconds(partial(ahead, tokens, n_taken), 2))
    return [
        Curve(shape, model.info.n_threads, rows, *(statistics.median(kind) for kind in kinds))
        for rows, kinds in found.items()
    ]


def _seconds(work: Callable[[], None], times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def write(
    session: Session, before: list[int], tokens: list[int], guesser: Guesser | None
) -> tuple[float, SpeculationCounts | None]:
    """Write a text; return its tokens per second, without the first."""
    n_vocab = session.model.n_vocab
    options: dict[str, Any] = {"max_tokens": len(tokens), "stop_tokens": []}
    plan = Plan.of(session.tokenizer, n_vocab, [], **options)
    plan = plan._replace(make_sampler=lambda: Given(tokens, n_vocab))
    if guesser is not None:
        plan = plan._replace(make_guessers=lambda last: [guesser], speculation=SpeculationCounts())
    prompt = session._beginning.prompt(before[-1:])
    session.reset()
    # What the guesser looks through, as if the model had read it.
    session._sequence.history = History.nothing().after(as_tokens(before[:-1]))
    stream = TextStream(_Writer(session, prompt, plan), plan.builder)
    next(stream, None)
    n_before, began = len(stream.tokens), time.perf_counter()
    for _ in stream:
        pass
    seconds = time.perf_counter() - began
    assert stream.tokens == tokens
    return (len(tokens) - n_before) / seconds, stream.speculation


def given_texts(tokenizer: Tokenizer, n_tokens: int) -> dict[str, tuple[list[int], list[int]]]:
    """What lookup is tried on: what was read, and what is written then."""

    def text(path: str) -> str:
        return (REPO / path).read_text()

    file = text("packages/rwkv-py/src/rwkv_py/waiting_line.py")
    edited = file.replace("share", "client").replace("WaitingLine", "Line")
    guide, readme = text("docs/guides/quick-start.md"), text("README.md")
    records = text("examples/pychat_questions.jsonl")
    texts = {
        "editing a file": (file, edited),
        "a README from a guide": (guide, readme[readme.find("## ") :]),
        "records in JSON": (records[: len(records) // 2], records[len(records) // 2 :]),
    }
    return {
        name: (tokenizer.encode(read), tokenizer.encode(written)[:n_tokens])
        for name, (read, written) in texts.items()
    }


def measure(args: argparse.Namespace, others: quiet.Others) -> tuple[list[Curve], list[Written]]:
    """Everything, for each shape and number of threads."""
    curves: list[Curve] = []
    written: list[Written] = []
    tokenizer = Tokenizer.world()
    texts = given_texts(tokenizer, args.tokens)
    # One that lookup would find nothing in, and nobody needs to.
    dice = random.Random(2)
    plain_text = [dice.randrange(256, 60_000) for _ in range(args.tokens + 1)]
    for shape in args.shapes:
        path = model_file(SHAPES[shape], args.type)
        into_page_cache(path)
        for threads in args.threads:
            model = Model(path, threads=threads)
            session = Session(model, tokenizer=tokenizer)
            others.look()
            curves += curve(model, shape, args.repeats * 3)

            tries: dict[str, tuple[list[int], list[int], Callable[[], Guesser]]] = {}
            before, tokens = plain_text[:1], plain_text[1:]
            for rate in RATES:
                for most, name in ((FIVE, "5 a pass"), (MAX_AHEAD, "as many as are chosen")):
                    tries[f"{rate:.0%} hold, {name}"] = (
                        before,
                        tokens,
                        partial(Knowing, plain_text, rate, most),
                    )
            for name, (read, text) in texts.items():
                tries[f"lookup, {name}"] = (read, text, LookupGuesser)
            if shape != "0.1B" and args.draft:
                draft = Model(model_file(SHAPES["0.1B"], args.type), threads=threads)
                tries[f"a 0.1B draft, {DRAFT_RATE:.0%} hold"] = (
                    before,
                    tokens,
                    partial(DraftThatHolds, draft, plain_text, DRAFT_RATE),
                )
            bar = tqdm(tries.items(), disable=None, unit="text", desc=f"{shape}, {threads} threads")
            for what, (read, text, make) in bar:
                others.look()
                rates: list[tuple[float, float]] = []
                counts = SpeculationCounts()
                for _ in range(args.repeats):
                    plain, _none = write(session, read, text, None)
                    guessed, found = write(session, read, text, make())
                    rates.append((plain, guessed))
                    counts = found or counts
                written.append(
                    Written(
                        shape,
                        args.type,
                        model.info.kernels,
                        threads,
                        what,
                        statistics.median(plain for plain, _ in rates),
                        statistics.median(guessed for _, guessed in rates),
                        statistics.median(guessed / plain for plain, guessed in rates),
                        counts.n_kept / max(counts.n_guessed, 1),
                        counts.tokens_per_pass,
                    )
                )
    return curves, written
