"""Beginnings that many sessions share, read once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core
from .errors import InvalidArgumentError
from .model import Model

__all__ = ["PrefixCache"]

# Where a session is: a digest of all pieces that it has read since it was fresh, and of what it
# began with.
Position = bytes

# Shorter prompts cost less to read than to keep.
MIN_TOKENS = 32


class _Kept(NamedTuple):
    core: _core.Session
    logits: NDArray[np.float32] | None  # after the last token, where they were computed
    n_bytes: int


class PrefixCache:
    """States after beginnings of prompts, so that sessions of a model read each beginning once.

    With it, nothing that a session computes changes by a bit. The library reads a prompt in pieces
    of 256 tokens from where the prompt begins, and a piece of 32 tokens or more may use other
    arithmetic than its tokens one by one. So a state is a function of what the session began with
    and of the pieces read since then, and it is kept, and found, only after the same. The cache is
    a tree for each beginning, whose edges are pieces: a node is named by the digest of what leads
    to it.

    Two prompts therefore share what they have in common up to a multiple of 256 tokens. A shorter
    common beginning is shared if it is read by itself, before the rest: `session.feed(system)`,
    then `session.generate(question)`. `Chat` reads its system prompt so. Prompts below 32 tokens
    are not kept, and a session whose state was set, loaded or moved by `Model.step` does not use
    the cache until it is reset.

    May be shared by sessions in any number of threads.

    Args:
        model: whose states.
        budget: bytes of states and logits at most; the ones not used for the longest time go.

    Attributes:
        tokens_read: tokens that sessions asked for and had to read.
        tokens_found: tokens that were spared.

    >>> cache = PrefixCache(model, budget=50_000_000)
    >>> system = "The documentation of the Python standard library, in its own words. "
    >>> for question in ("json", "os"):
    ...     session = Session(model, cache=cache)
    ...     _ = session.feed(system)
    ...     text = session.generate(question, max_tokens=5, seed=1)
    >>> cache.tokens_found == len(system)
    True
    """

    def __init__(self, model: Model, *, budget: int = 256 << 20):
        if budget < 0:
            raise InvalidArgumentError(f"budget: expected 0 bytes or more, got {budget}")
        self._model = model
        self._budget = budget
        self._lock = threading.Lock()  # also: a kept session is copied by one thread at a time
        self._kept: OrderedDict[Position, _Kept] = OrderedDict()  # the last used at the end
        self._n_bytes = 0
        self.tokens_read = 0
        self.tokens_found = 0

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def n_bytes(self) -> int:
        """The bytes in use, never more than the budget."""
        return self._n_bytes

    def __len__(self) -> int:
        """The number of states kept."""
        return len(self._kept)

    def clear(self) -> None:
        """Forget all states."""
        with self._lock:
            self._kept.clear()
            self._n_bytes = 0

    def _find(
        self, core: _core.Session, positions: list[Position]
    ) -> tuple[int, NDArray[np.float32] | None]:
        """Move `core` to the last of `positions` that is kept.

        Returns the number of positions passed, and the logits, which the last of them needs.
        """
        with self._lock:
            for i in range(len(positions), 0, -1):
                kept = self._kept.get(positions[i - 1])
                if kept is None or (i == len(positions) and kept.logits is None):
                    continue
                core.copy_state(kept.core)
                self._kept.move_to_end(positions[i - 1])
                return i, kept.logits
        return 0, None

    def _keep(
        self, position: Position, core: _core.Session, logits: NDArray[np.float32] | None
    ) -> None:
        n_bytes = 4 * self._model.state_size + (0 if logits is None else logits.nbytes)
        if n_bytes > self._budget:
            return
        with self._lock:
            old = self._kept.pop(position, None)
            if old is not None:
                self._n_bytes -= old.n_bytes
            while self._n_bytes + n_bytes > self._budget:
                _, gone = self._kept.popitem(last=False)
                self._n_bytes -= gone.n_bytes
            self._kept[position] = _Kept(core.fork(), logits, n_bytes)
            self._n_bytes += n_bytes

    def _count(self, n_found: int, n_read: int) -> None:
        with self._lock:
            self.tokens_found += n_found
            self.tokens_read += n_read


def fresh(state: NDArray[np.float32] | None) -> Position:
    """Return the position before any piece: of the model's own fresh state, or of a given one."""
    if state is None:
        return b""
    return hashlib.blake2b(state.tobytes(), digest_size=32, person=b"fresh state").digest()


def after(position: Position, piece: NDArray[np.int32]) -> Position:
    """Return the position after a piece; the digest is too long for two to meet by chance."""
    return hashlib.blake2b(position + piece.tobytes(), digest_size=32).digest()
