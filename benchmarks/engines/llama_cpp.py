"""llama.cpp, through the C API that the package `llama-cpp-python` wraps.

python -m benchmarks.engines.llama_cpp FP16.gguf OUT.gguf TYPE [IMATRIX.npz]   runs its quantiser
python -m benchmarks.engines.llama_cpp logits MODEL.gguf TOKENS.npy THREADS   writes to stdout
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

# llama.cpp reports on stderr as it goes; the callback must outlive every call.
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())

MAX_SEQUENCES = 16
MAX_TOKENS = 2048
ROWS_AT_ONCE = 256
"""Logits that are written together."""


def quantize(source: str, target: str, dtype: str, importance: str | None = None) -> None:
    """Runs llama.cpp's own quantiser, with its defaults.

    Args:
        source: an fp16 file.
        target: the file to write.
        dtype: the type, such as q4_K_M.
        importance: an .npz file with the mean square of each input of each matrix, by llama.cpp's
            name.
    """
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{dtype.upper()}")
    if importance is not None:
        with np.load(importance) as means:
            arrays = {name: np.ascontiguousarray(means[name], np.float32) for name in means.files}
        kind = llama_cpp.llama_model_imatrix_data
        floats = ctypes.POINTER(ctypes.c_float)
        entries = [
            kind(name.encode(), values.ctypes.data_as(floats), values.size)
            for name, values in arrays.items()
        ]
        table = (kind * (len(entries) + 1))(*entries, kind(None, None, 0))  # ends with no name
        options.imatrix = table
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options))
    if status != 0:
        raise RuntimeError(f"{source}: llama.cpp's quantiser failed with {status}")


class Engine:
    """One model with one context of up to 16 sequences."""

    def __init__(self, path: str, threads: int) -> None:
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), options)
        if not self._model:
            raise RuntimeError(f"{path}: llama.cpp cannot load it")
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self._model)
        )
        self._contexts: dict[int, Any] = {}
        self._threads = threads
        self._batch = llama_cpp.llama_batch_init(MAX_TOKENS, 0, MAX_SEQUENCES)
        self._position = [0] * MAX_SEQUENCES
        self.reset()

    def _open_context(self, n_sequences: int) -> Any:
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = 1 << 20  # a recurrent model keeps nothing for each token
        context.n_batch = MAX_TOKENS
        context.n_ubatch = 512  # llama.cpp's default
        context.n_seq_max = n_sequences
        context.n_threads = context.n_threads_batch = self._threads
        context.no_perf = True
        opened = llama_cpp.llama_init_from_model(self._model, context)
        if not opened:
            raise RuntimeError("llama.cpp cannot make a context")
        return opened

    def describe(self) -> dict[str, Any]:
        """What runs."""
        return {
            "engine": "llama.cpp",
            "version": llama_cpp.__version__,
            "built_for": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "threads": self._threads,
        }

    def close(self) -> None:
        """Gives everything back."""
        llama_cpp.llama_batch_free(self._batch)
        for context in self._contexts.values():
            llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(self._model)

    def reset(self, n_sequences: int = 1) -> None:
        """Fresh states, in a context made for that many sequences."""
        room = 1 if n_sequences == 1 else MAX_SEQUENCES
        if room not in self._contexts:
            self._contexts[room] = self._open_context(room)
        self._context = self._contexts[room]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._position = [0] * MAX_SEQUENCES

    def feed(self, tokens: NDArray[np.int32]) -> None:
        """The first sequence reads tokens; the logits after the last are computed."""
        for begin in range(0, len(tokens), MAX_TOKENS):
            part = tokens[begin : begin + MAX_TOKENS]
            last = begin + len(part) == len(tokens)
            self._run([(int(t), 0, last and i == len(part) - 1) for i, t in enumerate(part)])

    def step(self, tokens: NDArray[np.int32]) -> None:
        """Each of the first len(tokens) sequences reads one token, with logits."""
        self._run([(int(t), i, True) for i, t in enumerate(tokens)])

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each token from a fresh state, fed one by one: (n, n_vocab)."""
        self.reset()
        rows = []
        for token in tokens:
            self._run([(token, 0, True)])
            found = llama_cpp.llama_get_logits_ith(self._context, 0)
            rows.append(np.ctypeslib.as_array(found, (self.n_vocab,)).copy())
        return np.stack(rows)

    def feed_all(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """The first sequence reads tokens; returns the logits after each, (n, n_vocab)."""
        self._run([(int(token), 0, True) for token in tokens])
        found = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (len(tokens), self.n_vocab)).copy()

    def _run(self, rows: list[tuple[int, int, bool]]) -> None:
        """Decodes rows of token, sequence, whether its logits are wanted."""
        batch = self._batch
        for i, (token, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = self._position[sequence]
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
            self._position[sequence] += 1
        batch.n_tokens = len(rows)
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode failed with {status}")
        llama_cpp.llama_synchronize(self._context)


def write_logits(path: str, tokens: str, threads: str) -> None:
    """Writes n_vocab, 4 bytes, and the logits after each token, float32 (n, n_vocab), to stdout."""
    engine = Engine(path, int(threads))
    sys.stdout.buffer.write(engine.n_vocab.to_bytes(4, "little"))
    read = np.load(tokens)
    for begin in range(0, len(read), ROWS_AT_ONCE):
        sys.stdout.buffer.write(engine.feed_all(read[begin : begin + ROWS_AT_ONCE]).tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    if sys.argv[1] == "logits":
        write_logits(*sys.argv[2:])
    else:
        quantize(*sys.argv[1:])
