"""Speculation: several tokens for one pass over the weights, where guesses of them hold.

Decoding is bound by reading the weights, and a pass over a few tokens reads them once, too. So a
pass reads the token that was drawn *and* guesses of what follows; each position's token is then
drawn from the model's own logits, as ever, and guesses are kept for as long as they are those
tokens. The text is the same to the bit, whatever the guesses are: they decide how long it takes.

How many guesses a pass takes is chosen by what is measured while texts are written. With tokens
that hold with probability p each, k guesses give 1 + p + p^2 + ... + p^k tokens (Leviathan et al.
2023, arXiv:2211.17192, eq. 1) for the time of a pass of k + 1 rows: k is where tokens a second are
most. What guesses may lose is bounded besides, by a small share of the time that the text takes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .pass_times import PassTimes
from .sequence import MAX_AHEAD

__all__ = ["Guesser", "Pass", "Speculation", "SpeculationCounts"]

MAX_GUESSES = MAX_AHEAD - 1  # beside the token that was drawn

# Rows of a pass beyond which no guesses are added: with so many texts a pass computes, and does not
# wait for memory.
_MAX_ROWS = 128

# What guesses may lose: this share of the time that a text takes, and so many passes to begin with;
# and of what they won at most so many passes again.
_SHARE = 0.015
_AT_FIRST = 1.5
_AT_MOST = 8.0


class Guesser(Protocol):
    """Guesses how a text goes on."""

    @property
    def source(self) -> str:
        """What its next guesses come of, such as "draft"; "" if it has none.

        Guesses of one source should hold about equally often.
        """

    @property
    def is_free(self) -> bool:
        """Whether guesses take no time that is worth measuring."""

    def begin(self, text: list[int]) -> None:
        """Know the text so far, from its beginning; it may go on with the last one."""

    def read(self, token: int) -> None:
        """Know that the text goes on with this."""

    @classmethod
    def guess(cls, wanted: Sequence[tuple[Any, int]]) -> list[list[int]]:
        """Guess for several texts at once, each with its guesser: at most so many tokens."""


@dataclass
class SpeculationCounts:
    """What guesses gave a text.

    Attributes:
        n_passes: how many passes over the weights it took to write it.
        n_guessed: how many guesses they checked.
        n_kept: how many of those held, each of which is a token without a pass of its own.
    """

    n_passes: int = 0
    n_guessed: int = 0
    n_kept: int = 0

    @property
    def tokens_per_pass(self) -> float:
        """How many tokens a pass gave; 1.0 where no guess held."""
        return 1 + self.n_kept / self.n_passes if self.n_passes else 1.0


class _Record:
    """How guesses of a source do, of late; it begins with a belief."""

    _FORGETS = 0.97  # of what is known, at each guess

    def __init__(self) -> None:
        self._held, self._tried = 1.0, 2.0
        self.seconds = 0.0  # what a guess takes to make

    @property
    def p(self) -> float:
        """The share that holds."""
        return self._held / self._tried

    def learn(self, *, held: bool) -> None:
        self._held = self._held * self._FORGETS + held
        self._tried = self._tried * self._FORGETS + 1

    def doubt(self) -> None:
        """Come back to the belief, slowly: what is known was long ago."""
        self._held += 0.01
        self._tried += 0.02


class Speculation:
    """A text's guesses, and how they do.

    Args:
        guessers: what guesses: the first that has something.
        counts: where to count what they give.

    Attributes:
        guessers: the same; none if one has failed.
    """

    def __init__(self, guessers: Sequence[Guesser], counts: SpeculationCounts):
        self.guessers = guessers
        self._counts = counts
        self._records: dict[str, _Record] = {}
        self._expected: list[int] = []  # what was guessed and not refuted, of `_source`
        self._n_ahead = 0  # how many of these the pass has read
        self._source = ""
        self._credit: float | None = None  # seconds that guesses may lose
        self._worth = 0.0  # seconds that a token takes without guesses

    def begin(self, text: list[int]) -> None:
        """Know what was read before the first token is drawn."""
        for guesser in self.guessers:
            guesser.begin(text)

    def took(self, token: int) -> None:
        """Know that the text goes on with `token`."""
        if self._expected:
            held = self._expected.pop(0) == token
            self._record(self._source).learn(held=held)
            if held and self._n_ahead > 0:
                self._counts.n_kept += 1
                self._earn(self._worth)
            self._n_ahead -= 1
            if not held:
                self._expected = []
        for guesser in self.guessers:
            guesser.read(token)

    def _record(self, source: str) -> _Record:
        return self._records.setdefault(source, _Record())

    def _earn(self, seconds: float) -> None:
        if self._credit is not None:
            self._credit = min(self._credit + seconds, _AT_MOST * self._worth)

    # What `Pass` asks and tells.

    def _guesser(self) -> Guesser | None:
        try:
            return next((guesser for guesser in self.guessers if guesser.source), None)
        except Exception:  # the text does without
            self.guessers = ()
            return None

    def _may_lose(self) -> bool:
        return self._credit is None or self._credit > 0

    def _guessed(self, source: str, guesses: list[int], n_read: int) -> list[int]:
        self._source, self._expected, self._n_ahead = source, guesses, n_read
        self._counts.n_guessed += n_read
        return guesses[:n_read]

    def _passed(self, worth: float, lost: float) -> None:
        self._counts.n_passes += 1
        if not worth:
            return
        self._worth = worth
        if self._credit is None:
            self._credit = _AT_FIRST * worth
        self._earn(_SHARE * worth - lost)


class _Offer:
    """What a text's guesser has for the next pass."""

    def __init__(self, text: Speculation, index: int, guesser: Guesser, limit: int):
        self.text = text
        self.index = index
        self.guesser = guesser
        self.source = guesser.source
        self.limit = limit
        self.record = text._record(self.source)
        self.guesses: list[int] = []
        self.n_wanted = 0


class Pass:
    """The guesses of one pass, in which each text reads the token that was drawn for it.

    Args:
        times: how long passes take; told how long this one took, from now to `made`. None for a
            pass that reads something else besides: there are then no guesses.
        texts: each text's speculation, or None, and how many guesses it may have.

    Attributes:
        guesses: for each text those that it should read behind its token.
    """

    def __init__(self, times: PassTimes | None, texts: Sequence[tuple[Speculation | None, int]]):
        self.guesses: list[list[int]] = [[] for _ in texts]
        self._times = times
        self._texts = texts
        self._seconds_of_guessing = 0.0
        self._plain: float | None = None  # the seconds of a pass without guesses
        if times is not None:
            self._plain = times.of(len(texts))
            self._guess()
        self._began = time.perf_counter()

    def _guess(self) -> None:
        texts = self._texts
        offers = [
            _Offer(text, index, guesser, min(limit, MAX_GUESSES))
            for index, (text, limit) in enumerate(texts)
            if text is not None and limit > 0 and (guesser := text._guesser()) is not None
        ]
        # What is free is asked in any case: whether it would have held is seen without a pass.
        free = [offer for offer in offers if offer.guesser.is_free]
        self._ask(free, [offer.limit for offer in free])
        for offer in free:
            offer.limit = len(offer.guesses)
        self._choose([offer for offer in offers if offer.text._may_lose()])
        others = [offer for offer in offers if not offer.guesser.is_free]
        wanted = [offer for offer in others if offer.n_wanted]
        self._ask(wanted, [offer.n_wanted for offer in wanted])
        for offer in others:
            if not offer.n_wanted:
                offer.record.doubt()
        for offer in offers:
            n_read = min(offer.n_wanted, len(offer.guesses))
            self.guesses[offer.index] = offer.text._guessed(offer.source, offer.guesses, n_read)

    def made(self) -> None:
        """Know that the pass was made: just now."""
        seconds = time.perf_counter() - self._began
        n_texts = len(self._texts)
        n_guesses = sum(map(len, self.guesses))
        n_rows = n_texts + n_guesses
        lost = self._seconds_of_guessing
        if self._times is None:
            plain = 0.0
        else:
            usual = self._times.learn(n_rows, seconds)
            plain = self._plain or seconds
            lost += usual - plain if n_guesses else 0.0
        for (text, _), guesses in zip(self._texts, self.guesses, strict=True):
            if text is not None:
                share = len(guesses) / n_guesses if n_guesses else 1 / n_texts
                text._passed(plain / n_texts, lost * share)

    def _ask(self, offers: list[_Offer], n_wanted: list[int]) -> None:
        """Let guessers of a kind guess together."""
        kinds = {type(offer.guesser) for offer in offers}
        for kind in kinds:
            asked = [
                (offer, n)
                for offer, n in zip(offers, n_wanted, strict=True)
                if type(offer.guesser) is kind
            ]
            began = time.perf_counter()
            try:
                found = kind.guess([(offer.guesser, n) for offer, n in asked])
            except Exception:  # such as a draft that was closed: the texts do without
                for offer, _ in asked:
                    offer.text.guessers = ()
                continue
            seconds = time.perf_counter() - began
            for (offer, _), guesses in zip(asked, found, strict=True):
                offer.guesses = guesses
            n_guesses = sum(map(len, found))
            if n_guesses and not asked[0][0].guesser.is_free:
                self._seconds_of_guessing += seconds
                for offer, _ in asked:
                    each = seconds / n_guesses
                    known = offer.record.seconds
                    offer.record.seconds = known + 0.2 * (each - known) if known else each

    def _choose(self, offers: list[_Offer]) -> None:
        """Say how many guesses of each text are worth it: most tokens a second."""
        if self._times is None or self._plain is None or not offers:
            return
        n_texts = len(self._texts)
        # Of each text in order: what a guess gives, in tokens, falls with its place.
        gains = []
        for offer in offers:
            gain = 1.0
            for _ in range(offer.limit):
                gain *= offer.record.p
                gains.append((gain, offer))
        gains.sort(key=lambda each: each[0], reverse=True)
        tokens, making, best = float(n_texts), 0.0, n_texts / self._plain
        n_best = 0
        for n, (gain, offer) in enumerate(gains[: _MAX_ROWS - n_texts], 1):
            tokens += gain
            making += offer.record.seconds
            rate = tokens / ((self._times.of(n_texts + n) or self._plain) + making)
            if rate > best:
                best, n_best = rate, n
        for _, offer in gains[:n_best]:
            offer.n_wanted += 1
