"""Our own library, through its C API."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..machine import LIBRARY

LOGITS_LAST, LOGITS_ALL = 1, 2


class _Options(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("n_threads", c_size_t), ("ln_x_eps", c_float))


class _Info(ctypes.Structure):
    """The beginning of rwkv_model_info: the library fills as much of it as there is."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("version", c_char_p),
        *((name, c_size_t) for name in ("n_vocab", "n_embd", "n_layer", "n_head", "head_size")),
        *((name, c_size_t) for name in ("n_ffn", "state_size")),
        ("data_type", c_char_p),
        *((name, c_uint64) for name in ("n_parameters", "file_bytes", "weight_bytes")),
        ("n_threads", c_size_t),
        ("kernels", c_char_p),
        ("ln_x_eps", c_float),
    )


def _library(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    tokens = POINTER(c_int32)
    logits = POINTER(c_float)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rwkv_error_message": (c_char_p, []),
        "rwkv_model_options_init": (None, [POINTER(_Options), c_size_t]),
        "rwkv_model_open": (c_int32, [c_char_p, POINTER(_Options), POINTER(c_void_p)]),
        "rwkv_model_free": (None, [c_void_p]),
        "rwkv_model_info_get": (c_int32, [c_void_p, POINTER(_Info), c_size_t]),
        "rwkv_session_create": (c_int32, [c_void_p, POINTER(c_void_p)]),
        "rwkv_session_free": (None, [c_void_p]),
        "rwkv_session_feed": (c_int32, [c_void_p, tokens, c_size_t, logits]),
        "rwkv_session_reset": (None, [c_void_p]),
        "rwkv_batch_create": (c_int32, [c_void_p, POINTER(c_void_p)]),
        "rwkv_batch_free": (None, [c_void_p]),
        "rwkv_batch_add": (c_int32, [c_void_p, c_void_p, tokens, c_size_t, c_int32, logits]),
        "rwkv_batch_run": (c_int32, [c_void_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Engine:
    """One model with as many sessions as were asked for; `library` may be another build."""

    def __init__(self, path: str, threads: int, library: str = str(LIBRARY)) -> None:
        self._library = _library(library)
        options = _Options()
        self._library.rwkv_model_options_init(byref(options), ctypes.sizeof(options))
        options.n_threads = threads
        self._model = c_void_p()
        self._check(
            self._library.rwkv_model_open(path.encode(), byref(options), byref(self._model))
        )
        self._info = _Info()
        size = ctypes.sizeof(self._info)
        self._check(self._library.rwkv_model_info_get(self._model, byref(self._info), size))
        self.n_vocab: int = self._info.n_vocab
        self._sessions: list[c_void_p] = []
        self._batch = c_void_p()
        self._check(self._library.rwkv_batch_create(self._model, byref(self._batch)))
        self._logits = np.empty((0, self.n_vocab), np.float32)
        self._rooms(1)

    def describe(self) -> dict[str, Any]:
        """What runs."""
        return {
            "engine": "rwkv-runtime",
            "kernels": self._info.kernels.decode(),
            "threads": self._info.n_threads,
            "file_bytes": self._info.file_bytes,
            "weight_bytes": self._info.weight_bytes,
        }

    def close(self) -> None:
        """Gives everything back."""
        for session in self._sessions:
            self._library.rwkv_session_free(session)
        self._library.rwkv_batch_free(self._batch)
        self._library.rwkv_model_free(self._model)

    def reset(self, n_sequences: int = 1) -> None:
        """Fresh states for that many sequences."""
        self._rooms(n_sequences)
        for session in self._sessions[:n_sequences]:
            self._library.rwkv_session_reset(session)

    def feed(self, tokens: NDArray[np.int32]) -> None:
        """The first sequence reads tokens; the logits after the last are computed."""
        self._check(
            self._library.rwkv_session_feed(
                self._sessions[0], _tokens(tokens), len(tokens), _floats(self._logits)
            )
        )

    def step(self, tokens: NDArray[np.int32]) -> None:
        """Each of the first len(tokens) sequences reads one token, with logits."""
        for i in range(len(tokens)):
            self._add(i, tokens[i : i + 1], LOGITS_LAST, self._logits[i : i + 1])
        self._check(self._library.rwkv_batch_run(self._batch))

    def feed_all(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """The first sequence reads tokens; returns the logits after each, (n, n_vocab)."""
        logits = np.empty((len(tokens), self.n_vocab), np.float32)
        self._add(0, tokens, LOGITS_ALL, logits)
        self._check(self._library.rwkv_batch_run(self._batch))
        return logits

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each token from a fresh state, fed one by one: (n, n_vocab)."""
        self.reset()
        rows = []
        for token in tokens:
            self.feed(np.array([token], np.int32))
            rows.append(self._logits[0].copy())
        return np.stack(rows)

    def _add(
        self, i: int, tokens: NDArray[np.int32], wanted: int, logits: NDArray[np.float32]
    ) -> None:
        self._check(
            self._library.rwkv_batch_add(
                self._batch,
                self._sessions[i],
                _tokens(tokens),
                len(tokens),
                wanted,
                _floats(logits),
            )
        )

    def _rooms(self, n: int) -> None:
        while len(self._sessions) < n:
            session = c_void_p()
            self._check(self._library.rwkv_session_create(self._model, byref(session)))
            self._sessions.append(session)
        if len(self._logits) < n:
            self._logits = np.zeros((n, self.n_vocab), np.float32)

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(self._library.rwkv_error_message().decode())


def _tokens(tokens: NDArray[np.int32]) -> Any:
    return tokens.ctypes.data_as(POINTER(c_int32))


def _floats(values: NDArray[np.float32]) -> Any:
    return values.ctypes.data_as(POINTER(c_float))
