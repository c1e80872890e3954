"""A state, and what is known of it: what sessions and requests are made of."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import Tokens
from .errors import InvalidArgumentError
from .prompt import BEGIN_OF_DOCUMENT, Prompt, pieces
from .tokenizer import Tokenizer

__all__ = ["Moving", "Place", "ReadText", "Sequence", "next_anchor", "place_of_state"]

Logits = NDArray[np.float32]


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


class Sequence:
    """A native session with the logits after its last token and its place, if they are known.

    It checks nothing that the library does not check. `fork` costs a copy of the state; all else
    that is known is immutable and shared.

    Attributes:
        model: the native model that it is of.
        core: the native session.
        n_vocab: how many logits there are.
        has_logits: whether the last token read is known, and so the logits after it.
        has_read: whether it has read anything, or its state was set.
        place: where it is; None if that is not known, after its state was set from elsewhere.
    """

    def __init__(
        self,
        model: _core.Model,
        core: _core.Session,
        n_vocab: int,
        place: Place | None = None,
    ):
        self.model = model
        self.core = core
        self.n_vocab = n_vocab
        self.has_logits = False
        self.has_read = False
        self.place = place
        self._logits: Logits | None = None  # where they were computed or asked for

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
        copy = Sequence(self.model, self.core.fork(), self.n_vocab)
        copy._know(self)
        return copy

    def copy_from(self, other: Sequence) -> None:
        """Be where `other`, one of the same model, is."""
        self.core.copy_state(other.core)
        self._know(other)

    def become(self, other: Sequence) -> None:
        """Take the state of `other`, which is used no more; this cannot fail."""
        self.core = other.core
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

    def was_set(self, *, has_logits: bool = False) -> None:
        """Note that the state is from elsewhere, and whether it knows its last token."""
        self._logits = None
        self.has_logits = has_logits
        self.has_read = True
        self.place = None

    def found(self, place: Place) -> None:
        """Note that the state is one that was kept at `place`."""
        self._logits = None
        self.has_logits = self.has_read = True
        self.place = place

    def was_reset(self, place: Place) -> None:
        """Note that the state is fresh, and begins at `place`."""
        self._logits = None
        self.has_logits = self.has_read = False
        self.place = place

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
        self._logits = other._logits
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
