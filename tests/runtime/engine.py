"""The engine as these tests use it: its levels, and one way of feeding tokens for each cut."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import rwkv_runtime
from rwkv_py import Model, Session

Floats = NDArray[np.float32]


def supported_levels() -> list[str]:
    """The names of the kernel levels that RWKV_KERNELS takes on this machine, lowest first."""
    library = ctypes.CDLL(str(rwkv_runtime.library_path()))
    library.rwkv_kernels_all.restype = ctypes.POINTER(ctypes.c_char_p)
    names = library.rwkv_kernels_all()  # ends with NULL
    count = next(i for i in itertools.count() if names[i] is None)
    return [name.decode() for name in names[:count] if library.rwkv_kernels_supported(name)]


LEVELS = supported_levels()


def in_pieces(model: Model, tokens: Sequence[int], sizes: Sequence[int]) -> tuple[Floats, Floats]:
    """Feed `tokens` in pieces of `sizes` (the last of them repeated).

    Returns the logits after each token, (T, n_vocab), and the state after the last.
    """
    session = Session(model)
    rows = []
    done = 0
    while done < len(tokens):
        n = sizes[min(len(rows), len(sizes) - 1)]
        [logits] = model.step([(session, tokens[done : done + n])], logits="all")
        assert logits is not None
        rows.append(logits)
        done += n
    return np.concatenate(rows), session.state


def one_by_one(model: Model, tokens: Sequence[int]) -> tuple[Floats, Floats]:
    """As `in_pieces`, each token with `Session.feed`."""
    session = Session(model)
    return np.stack([session.feed([token]) for token in tokens]), session.state


def in_company(model: Model, tokens: Sequence[int]) -> tuple[Floats, Floats]:
    """As `in_pieces`, in two steps, each together with sequences of other tokens and lengths."""
    session = Session(model)
    rows = []
    half = len(tokens) // 2
    for part in (tokens[:half], tokens[half:]):
        neighbours = [
            (Session(model), [(7 * i + n) % model.n_vocab for i in range(n)]) for n in (3, 1, 40)
        ]
        work = [neighbours[0], (session, part), *neighbours[1:]]
        logits = model.step(work, logits=["last", "all", None, "all"])[1]
        assert logits is not None
        rows.append(logits)
    return np.concatenate(rows), session.state


CHUNKINGS: dict[str, Callable[[Model, Sequence[int]], tuple[Floats, Floats]]] = {
    "one by one": one_by_one,
    "one chunk": lambda model, tokens: in_pieces(model, tokens, [len(tokens)]),
    "uneven": lambda model, tokens: in_pieces(model, tokens, [1, 7, 2, 29, 3, 11]),
    "in company": in_company,
}
"""Ways of feeding tokens that must all give the same logits."""
