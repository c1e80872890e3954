"""Beginnings that many texts share, read once."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from . import _core
from ._arguments import as_count
from .errors import InvalidArgumentError, OutOfMemoryError
from .model import Model
from .prompt import Prompt, pieces
from .sequence import Place, ReadText, Sequence
from .state_folder import StateFolder
from .text_index import TextIndex, beginnings
from .tokenizer import Tokenizer

__all__ = ["PrefixCache"]

# Shorter prompts cost less to read than to keep.
MIN_TOKENS = 32

# What a text was read after, what rendered it, its length and its digest. A tokenizer is equal to
# itself alone.
_TextKey: TypeAlias = tuple[bytes, Tokenizer, int, bytes]


class _Kept(NamedTuple):
    core: _core.Session
    place: Place
    n_bytes: int


class PrefixCache:
    """States after beginnings of texts, so that sessions of a model read each beginning once.

    A prompt is looked up in two ways, and the longer of the two beginnings found is left out:

    - as tokens: after the same state, the same tokens were read in the same pieces. What follows is
      the same to the bit. The library reads a prompt in pieces of 256 tokens from where it begins,
      so two prompts share what they have in common up to a multiple of 256 tokens, and a prompt
      that is the whole beginning of another if that goes on at such a multiple.
    - as text, for prompts that are text: after the same state, the same bytes were read, in any
      tokens and pieces. So a prompt is found that is an earlier prompt, the answer that was
      generated, and something more, though the model drew other tokens than the tokenizer would
      cut; and so is a system prompt that was fed by itself. A place counts only where the
      tokenizer's own cutting of the new prompt has a boundary too, so that what is left is read in
      the tokens in which it would be read anyway, and no word or character is torn.

    The states kept are those after each piece of a prompt of 32 tokens or more, and those where a
    generated text has ended. With a folder, the states at the end of prompts and of texts are
    written there as well, and so is what the cache has no room for: they are found again after a
    restart. A session whose state was loaded shares what it reads with those that loaded the same;
    one whose state was set does not use the cache until it is reset.

    May be shared by sessions, engines and threads. In a child process made by `fork` it is empty.

    Args:
        model: whose states.
        budget: bytes of states at most; the ones not used for the longest time go.
        exact: look prompts up as tokens only, so that nothing depends on what was read before.
        folder: where states are kept beyond the budget, and from one run to the next.

    Attributes:
        tokens_read: tokens of prompts that were read: of those of 32 tokens or more.
        tokens_found: tokens that were spared.

    >>> cache = PrefixCache(model, budget=50_000_000)
    >>> system = "The documentation of the Python standard library, in its own words. "
    >>> for question in ("What does json do?", "What does os do?"):
    ...     session = Session(model, cache=cache)
    ...     _ = session.feed(system)
    ...     text = session.generate(question, max_tokens=5, seed=1)
    >>> cache.tokens_found == len(system)
    True
    >>> follow_up = system + question + text + " And what else? Tell me more of it."
    >>> _ = Session(model, cache=cache).generate(follow_up, max_tokens=5)
    >>> cache.tokens_found - len(system) >= len(system + question)
    True
    """

    def __init__(
        self,
        model: Model,
        *,
        budget: int = 256 << 20,
        exact: bool = False,
        folder: StateFolder | None = None,
    ):
        if not isinstance(model, Model):
            raise InvalidArgumentError(
                f"model: expected a Model, got {type(model).__name__}: {model!r}",
                remedy="Try PrefixCache(session.model)",
            )
        if not (folder is None or isinstance(folder, StateFolder)):
            raise InvalidArgumentError(
                f"folder: expected a StateFolder, got {type(folder).__name__}: {folder!r}",
                remedy="Try folder=StateFolder(path)",
            )
        self._model = model
        self._folder = folder
        self._model_name = StateFolder.model_name(model)
        self._budget = as_count("budget", budget)
        self._exact = exact
        self._lock = threading.Lock()  # also: a kept session is copied by one thread at a time
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # by pieces; the last used at the end
        self._by_text: dict[_TextKey, bytes] = {}  # which of those was kept last
        self._lengths = TextIndex()  # of those texts
        self._n_bytes = 0
        self.tokens_read = 0
        self.tokens_found = 0
        _caches.add(self)

    def __repr__(self) -> str:
        return (
            f"<PrefixCache of {self._model!r}: {len(self)} states, {self._n_bytes / 2**20:.1f} of "
            f"{self._budget / 2**20:.1f} MiB>"
        )

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def budget(self) -> int:
        """Bytes of states at most."""
        return self._budget

    @property
    def n_bytes(self) -> int:
        """The bytes in use, never more than the budget."""
        return self._n_bytes

    def __len__(self) -> int:
        """The number of states kept."""
        return len(self._kept)

    def clear(self) -> None:
        """Forget all states that are in memory."""
        with self._lock:
            self._kept.clear()
            self._by_text.clear()
            self._lengths = TextIndex()
            self._n_bytes = 0

    # What `Reading` and the end of a text use.

    @property
    def _wants_text(self) -> bool:
        """Whether it uses what text a sequence has read."""
        return not self._exact or self._folder is not None

    def _find(self, sequence: Sequence, prompt: Prompt) -> int:
        """Move `sequence` past the longest beginning of `prompt` that is kept.

        Returns how many tokens of the prompt that beginning is.
        """
        begin = sequence.place
        if begin is None:
            return 0
        n_found, pieces_read = self._same_pieces(begin, prompt)
        text_read = None
        if not self._exact:
            for text, state in self._same_text(begin, prompt):
                n_tokens = prompt.n_tokens_of(text.n_bytes - _n_bytes(begin))
                if n_tokens is None:
                    continue
                if n_tokens <= n_found:  # what is the same to the bit is as good
                    break
                n_found, pieces_read, text_read = n_tokens, state, text
                break
        if not n_found:
            return 0
        with self._lock:
            kept = self._kept.get(pieces_read)
            if kept is not None:
                sequence.core.copy_state(kept.core)
                self._kept.move_to_end(pieces_read)
                place = kept.place
        if kept is None:
            if self._folder is None or not self._folder._load(
                self._model_name, pieces_read, sequence.core
            ):
                # It went just now, and is found no more.
                return self._find(sequence, prompt) if self._folder is not None else 0
            if text_read is None:
                place = begin.after(prompt.tokens[:n_found])
            else:
                place = Place(begin.begin, pieces_read, text_read)
        sequence.found(place, prompt.tokens[:n_found])
        if kept is None:
            self._keep(sequence)
        return n_found

    def _same_pieces(self, place: Place, prompt: Prompt) -> tuple[int, bytes]:
        """Return the longest beginning that was read so: how many tokens, and the state's key."""
        longest, n_tokens = (0, b""), 0
        for piece in pieces(prompt.tokens):
            place = Place(place.begin, place.pieces, None).after(piece)
            n_tokens += piece.size
            if place.pieces in self._kept or (
                self._folder is not None and self._folder._has(self._model_name, place.pieces)
            ):
                longest = (n_tokens, place.pieces)
        return longest

    def _same_text(self, place: Place, prompt: Prompt) -> list[tuple[ReadText, bytes]]:
        """Return the beginnings of its text that were read, longest first: what, state's key."""
        before, text = place.text, prompt.text
        if before is None or text is None or before.tokenizer is not prompt.tokenizer:
            return []
        folder, tokenizer = self._folder, before.tokenizer

        def lengths(anchor: bytes) -> set[int]:
            with self._lock:
                known = set(self._lengths.lengths((place.begin, tokenizer, anchor)))
            if folder is not None:
                known.update(folder._lengths(self._model_name, place.begin, tokenizer, anchor))
            return known

        found = []
        for read in beginnings(before, text, lengths):
            state = self._by_text.get((place.begin, tokenizer, read.n_bytes, read.hash.digest()))
            if state is None and folder is not None:
                state = folder._named(self._model_name, place.begin, read)
            if state is not None:
                found.append((read, state))
        return found[::-1]

    def _keep(self, sequence: Sequence, *, is_end: bool = False) -> None:
        """Keep the state of `sequence`, if it is known where it is and there is room.

        Args:
            sequence: where it is.
            is_end: whether a prompt or a text ends here, from which the next may go on.
        """
        place = sequence.place
        n_bytes = 4 * (self._model.state_size + self._model.info.n_embd)
        if place is None:
            return
        with contextlib.suppress(OutOfMemoryError):  # then it is read again, some day
            if is_end and self._folder is not None:
                self._folder._keep(self._model_name, sequence.fork_core(), place, n_bytes)
            if n_bytes > self._budget:
                return
            with self._lock:
                if place.pieces in self._kept:
                    self._kept.move_to_end(place.pieces)
                    return
                while self._n_bytes + n_bytes > self._budget:
                    self._let_go(next(iter(self._kept)))
                self._kept[place.pieces] = _Kept(sequence.fork_core(), place, n_bytes)
                self._n_bytes += n_bytes
                if (name := _text_key(place)) is not None:
                    if name not in self._by_text:
                        self._lengths.add(*_length_key(place))
                    self._by_text[name] = place.pieces

    def _keep_end(self, sequence: Sequence) -> None:
        """Keep the state where a text has ended, from which the next turn may go on."""
        place = sequence.place
        if place is None or place.text is None or self._exact:  # it could not be found as text
            return
        if place.text.n_bytes >= MIN_TOKENS:
            self._keep(sequence, is_end=True)

    def _let_go(self, key: bytes) -> None:
        gone = self._kept.pop(key)
        if self._folder is not None:
            self._folder._keep(self._model_name, gone.core, gone.place, gone.n_bytes)
        self._n_bytes -= gone.n_bytes
        name = _text_key(gone.place)
        if name is not None and self._by_text.get(name) == key:
            del self._by_text[name]
            self._lengths.discard(*_length_key(gone.place))

    def _count(self, n_found: int, n_read: int) -> None:
        with self._lock:
            self.tokens_found += n_found
            self.tokens_read += n_read

    def _begin_in_child(self) -> None:
        """Begin anew: a thread that is not here may have been at work on it."""
        self._lock = threading.Lock()
        self.clear()


def _n_bytes(place: Place) -> int:
    return 0 if place.text is None else place.text.n_bytes


def _text_key(place: Place) -> _TextKey | None:
    text = place.text
    return text and (place.begin, text.tokenizer, text.n_bytes, text.hash.digest())


def _length_key(place: Place) -> tuple[tuple[bytes, Tokenizer, bytes], int]:
    assert place.text is not None
    return (place.begin, place.text.tokenizer, place.text.anchor), place.text.n_bytes


_caches: weakref.WeakSet[PrefixCache] = weakref.WeakSet()


def _begin_in_child() -> None:
    for cache in list(_caches):
        cache._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
