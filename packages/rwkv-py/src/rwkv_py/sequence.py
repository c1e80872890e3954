"""A state, and what is known of it: what sessions and requests are made of."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import Tokens
from .errors import InvalidArgumentError
from .prompt import BEGIN_OF_DOCUMENT, Prompt, pieces
from .tokenizer import Tokenizer

__all__ = [
    "MAX_AHEAD",
    "History",
    "Moving",
    "Place",
    "ReadText",
    "Sequence",
    "next_anchor",
    "place_of_state",
]

Logits = NDArray[np.float32]

# Tokens that are read in one call of which some may be taken back, at most: with one more the pass
# could take the wide way, which does not give the same numbers to the bit.
MAX_AHEAD = 31


class ReadText(NamedTuple):
    """The bytes that a sequence has read, as its tokenizer renders its tokens.

    Attributes:
        tokenizer: what renders them.
        n_bytes: how many there are.
        hash: a running digest of them, which is copied before it goes on.
        anchor: the digest of the first of them, as many as `next_anchor` named last; b"" before.
    """

    tokenizer: Tokenizer
    n_bytes: int
    hash: Any
    anchor: bytes

    @staticmethod
    def nothing(tokenizer: Tokenizer) -> ReadText:
        """Return what has been read before anything is."""
        return ReadText(tokenizer, 0, hashlib.blake2b(digest_size=32), b"")

    def after(self, piece: Tokens) -> ReadText | None:
        """Return what has been read after a piece; None if a token in it stands for no text."""
        try:
            parts = [self.tokenizer.decode_bytes([token]) for token in piece.tolist()]
        except Exception:  # a token that the vocabulary lacks, or a fault in somebody's tokenizer
            return None
        return self.followed_by(b"".join(parts)) if all(parts) else None

    def followed_by(self, text: bytes) -> ReadText:
        """Return what has been read after more bytes."""
        running, anchor, n_hashed = self.hash.copy(), self.anchor, 0
        end = self.n_bytes + len(text)
        at = next_anchor(self.n_bytes)
        while at <= end:
            running.update(text[n_hashed : at - self.n_bytes])
            n_hashed = at - self.n_bytes
            anchor, at = running.digest(), next_anchor(at)
        running.update(text[n_hashed:])
        return ReadText(self.tokenizer, end, running, anchor)


def next_anchor(n_bytes: int) -> int:
    """Return the next length at which a text that is read gets another anchor: powers of two."""
    return max(64, 1 << n_bytes.bit_length())


class Place(NamedTuple):
    """Where a sequence is: all that its state depends on.

    Attributes:
        begin: a digest of the state that it began with; b"" for the model's own.
        pieces: a digest of `begin` and of all pieces read since, in order: two sequences of a model
            with the same have the same state to the bit.
        text: the bytes read since; None if nobody asked, or if a token stands for none.
    """

    begin: bytes
    pieces: bytes
    text: ReadText | None

    def after(self, tokens: Tokens) -> Place:
        """Return the place after tokens that were read in one call, which the library cuts."""
        digest, text = self.pieces, self.text
        for piece in pieces(tokens):
            # Too long for two to meet by chance.
            digest = hashlib.blake2b(digest + piece.tobytes(), digest_size=32).digest()
            text = None if text is None else text.after(piece)
        return Place(self.begin, digest, text)


def place_of_state(
    state: NDArray[np.float32] | None,
    tokenizer: Tokenizer | None,
    *,
    person: bytes = b"fresh state",
) -> Place:
    """Return the place of a sequence that begins so.

    Args:
        state: the numbers of a state, or None for the model's own initial one.
        tokenizer: what renders the text that it reads, if that is to be known.
        person: what kind of numbers they are.
    """
    begin = b""
    if state is not None:
        data = state.tobytes()
        begin = hashlib.blake2b(data, digest_size=32, person=person).digest()
    text = None
    if tokenizer is not None and tokenizer.is_context_free:  # else parts of it do not make it up
        text = ReadText.nothing(tokenizer)
    return Place(begin, begin, text)


class History(NamedTuple):
    """Tokens that were read, in memory that forks share until they go on differently.

    Attributes:
        all: at least these tokens.
        n_tokens: how many of them are meant.
    """

    all: array[int]
    n_tokens: int

    @staticmethod
    def nothing() -> History:
        """Return what was read before anything is."""
        return History(array("i"), 0)

    def after(self, tokens: Tokens) -> History:
        """Return what has been read after more tokens."""
        n_tokens = self.n_tokens + tokens.size
        if len(self.all) == self.n_tokens:
            self.all.frombytes(tokens.tobytes())
            if len(self.all) == n_tokens:
                return History(self.all, n_tokens)
        # Another fork went on with them, perhaps just now in another thread.
        own = self.all[: self.n_tokens]
        own.frombytes(tokens.tobytes())
        return History(own, n_tokens)

    def since(self, n_tokens: int) -> Tokens:
        """Return the tokens after the first `n_tokens`: int32, a copy."""
        return np.array(self.all[n_tokens : self.n_tokens], np.int32)


class Sequence:
    """A native session with the logits after its last token and its place, if they are known.

    It checks nothing that the library does not check. `fork` costs a copy of the state; all else
    that is known is immutable and shared.

    It can read ahead: a token, and guesses of what will follow, in one pass over the weights.
    `takes` then says of each token that follows whether it was guessed, in which case it has been
    read already. Whoever asks for anything else meanwhile finds it where it would be without the
    guesses: those that nobody has taken are taken back first.

    Attributes:
        model: the native model that it is of.
        n_vocab: how many logits there are.
        has_logits: whether the last token read is known, and so the logits after it.
        has_read: whether it has read anything, or its state was set.
        place: where it is; None if that is not known, after its state was set from elsewhere.
        history: the tokens that it is known to have read, the last ones at least.
    """

    def __init__(
        self,
        model: _core.Model,
        core: _core.Session,
        n_vocab: int,
        place: Place | None = None,
    ):
        self.model = model
        self.n_vocab = n_vocab
        self.has_logits = False
        self.has_read = False
        self.place = place
        self.history = History.nothing()
        self._core = core
        self._logits: Logits | None = None  # where they were computed or asked for
        self._last: Logits | None = None  # (1, n_vocab), see `room_for_last`
        # What was read ahead: tokens (n,), the logits after each (n, n_vocab) in memory that is
        # used again, and how many of the tokens were taken.
        self._ahead: Tokens | None = None
        self._n_taken = 0
        self._rows: Logits | None = None
        self._most_ahead = 0

    @property
    def core(self) -> _core.Session:
        """The native session, which has read what was taken and nothing else."""
        self._settle()
        return self._core

    @property
    def logits(self) -> Logits:
        """The logits after the last token: float32 (n_vocab,), read-only."""
        if self._logits is None:
            logits = np.empty(self.n_vocab, np.float32)
            self.core.read_logits(logits)
            logits.flags.writeable = False
            self._logits = logits
        return self._logits

    def _moving(self) -> Sequence:
        """Return itself: it may always be moved. See `Moving`."""
        return self

    def fork(self) -> Sequence:
        """Return another that goes on from here."""
        copy = Sequence(self.model, self.fork_core(), self.n_vocab)
        copy._know(self)
        return copy

    def fork_core(self) -> _core.Session:
        """Return another native session that goes on from here, to be kept."""
        copy = self.core.fork()
        if self._most_ahead:
            copy.allow_take_back(0)  # whose memory only those need who read ahead
        return copy

    def copy_from(self, other: Sequence) -> None:
        """Be where `other`, one of the same model, is."""
        self.core.copy_state(other.core)
        self._know(other)

    def become(self, other: Sequence) -> None:
        """Take the state of `other`, which is used no more and has read nothing ahead.

        This cannot fail.
        """
        self._forget_ahead()
        self._core = other._core
        self._most_ahead, self._rows = other._most_ahead, other._rows
        self._last = other._last
        self._know(other)

    def read(self, piece: Tokens, *, wants_logits: bool = True) -> None:
        """Read at least one token, all or none."""
        logits = np.empty(self.n_vocab, np.float32) if wants_logits else None
        self.core.feed(piece, logits)
        self.moved(piece, logits)

    def moved(self, tokens: Tokens, logits: Logits | None) -> None:
        """Note that `tokens` were read in one call, and the logits after the last, our own."""
        if logits is not None:
            logits.flags.writeable = False
        self._logits = logits
        self.has_logits = self.has_read = True
        self.place = None if self.place is None else self.place.after(tokens)
        self.history = self.history.after(tokens)

    def room_for_last(self) -> Logits:
        """Return room for the logits after a last token: (n_vocab,), used again the next time.

        Memory that is new for each token costs a page fault for every 1024 logits.
        """
        if self._last is None:
            self._last = np.empty((1, self.n_vocab), np.float32)
        room: Logits = self._last[0]
        return room

    def room_ahead(self, n_tokens: int) -> Logits:
        """Return room for the logits after tokens that are to be read ahead: (n_tokens, n_vocab).

        For 2 to `MAX_AHEAD` tokens. The room is used again the next time.
        """
        core = self.core
        if n_tokens > self._most_ahead:
            # Its memory grows with it: most texts never need all of it.
            most = next(most for most in (8, 16, MAX_AHEAD) if most >= n_tokens)
            rows = np.empty((most, self.n_vocab), np.float32)  # first: either may find no room
            core.allow_take_back(most)
            self._most_ahead, self._rows = most, rows
        assert self._rows is not None
        return self._rows[:n_tokens]

    def read_ahead(self, tokens: Tokens) -> None:
        """Read a token, and guesses of those that follow it: all or none."""
        room = self.room_ahead(tokens.size)
        self._core.feed_all(tokens, room.reshape(-1))
        self.moved_ahead(tokens)

    def moved_ahead(self, tokens: Tokens) -> None:
        """Note that `tokens` were read in one call, and what is in `room_ahead`."""
        assert self._rows is not None
        self._ahead, self._n_taken = tokens, 0
        self._take(tokens[0])

    def takes(self, token: int) -> bool:
        """Let `token` come next if it was guessed right, and so was read; else it must be read."""
        if self._ahead is None:
            return False
        if self._n_taken < self._ahead.size and self._ahead[self._n_taken] == token:
            self._take(token)
            return True
        self._settle()
        return False

    def _take(self, token: int) -> None:
        assert self._ahead is not None
        assert self._rows is not None
        row = self._n_taken
        self._n_taken += 1
        self.moved(self._ahead[row : row + 1], self._rows[row])

    def _settle(self) -> None:
        """Take back what was read ahead and not taken."""
        if self._ahead is None:
            return
        if self._n_taken < self._ahead.size:
            self._core.keep(self._n_taken)
        self._forget_ahead()

    def _forget_ahead(self) -> None:
        self._ahead = None

    def was_set(self, *, has_logits: bool = False) -> None:
        """Note that the state is from elsewhere, and whether it knows its last token."""
        self._logits = None
        self.has_logits = has_logits
        self.has_read = True
        self.place = None
        self.history = History.nothing()

    def found(self, place: Place, tokens: Tokens) -> None:
        """Note that the state is one that was kept at `place`, after what `tokens` stand for."""
        self._logits = None
        self.has_logits = self.has_read = True
        self.place = place
        self.history = self.history.after(tokens)

    def was_reset(self, place: Place | None) -> None:
        """Note that the state is fresh, and begins at `place`."""
        self._logits = None
        self.has_logits = self.has_read = False
        self.place = place
        self.history = History.nothing()

    def before_writing(self, prompt: Prompt) -> Prompt:
        """Return what must be read before the first token is drawn: `prompt`, token 0, nothing."""
        if prompt.tokens.size or self.has_logits:
            return prompt
        if not self.has_read:
            return BEGIN_OF_DOCUMENT
        raise InvalidArgumentError(
            "prompt: expected at least one token after the numbers of a state were set, which do "
            "not say what the last token was, got an empty prompt"
        )

    def _know(self, other: Sequence) -> None:
        logits = other._logits
        if logits is not None and logits.base is not None:  # a row of what is used again
            logits = logits.copy()
            logits.flags.writeable = False
        self._logits = logits
        self.history = other.history
        self.has_logits = other.has_logits
        self.has_read = other.has_read
        self.place = other.place


class Moving(Protocol):
    """What a step asks of each session: the sequence in it, if it may be moved now."""

    def _moving(self) -> Sequence:
        """Return the sequence.

        Raises:
            InvalidArgumentError: something else is moving it.
        """
