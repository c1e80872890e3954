"""`rwkv_cpp_shared_library` of rwkv.cpp."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ... import _core
from ..._arguments import StrPath, as_count
from ...errors import InvalidArgumentError, RwkvError
from ...model import Model
from ...session import Session

__all__ = [
    "P_FLOAT",
    "P_INT",
    "QUANTIZED_FORMAT_NAMES",
    "RWKVContext",
    "RWKVSharedLibrary",
    "load_rwkv_shared_library",
]

QUANTIZED_FORMAT_NAMES = ("Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q8_0")
"""The names that `rwkv_quantize_model_file` knows; a file of Q4_K or Q5_K has to be a GGUF."""

P_FLOAT = ctypes.POINTER(ctypes.c_float)
P_INT = ctypes.POINTER(ctypes.c_int32)


class OpenedModel:
    """What a context stands for: a model, and a session that takes a state for each call.

    Attributes:
        model: the model.
    """

    def __init__(self, path: StrPath, thread_count: int | None):
        self.model = Model(path, threads=thread_count, ln_x_eps="rwkv.cpp")
        self._session = Session(self.model)
        self._lock = threading.Lock()  # one state at a time

    def read(
        self,
        tokens: Sequence[int],
        state_in: NDArray[np.float32] | None,
        state_out: NDArray[np.float32] | None,
        logits_out: NDArray[np.float32] | None,
    ) -> None:
        """Read at least one token after a state; all arrays may be the same memory or None."""
        with self._lock:
            if state_in is None:
                self._session.reset()
            else:
                self._session.state = state_in
            logits = self._session.feed(tokens)
            if state_out is not None:
                state_out[:] = self._session.state
            if logits_out is not None:
                logits_out[:] = logits


class RWKVContext:
    """A model that was opened by `RWKVSharedLibrary.rwkv_init_from_file`.

    Attributes:
        ptr: what stands for it; None once it was freed.
    """

    def __init__(self, ptr: OpenedModel | None):
        self.ptr = ptr

    @property
    def opened(self) -> OpenedModel:
        """What it stands for.

        Raises:
            InvalidArgumentError: it was freed.
        """
        if self.ptr is None:
            raise InvalidArgumentError("ctx: was freed, expected one that is open")
        return self.ptr


class RWKVSharedLibrary:
    """rwkv.cpp's functions, computed by rwkv-runtime. Failures are a ValueError, as there.

    Addresses are those of flat float32 buffers as long as `rwkv_get_state_buffer_element_count` and
    `rwkv_get_logits_buffer_element_count` say; None and 0 stand for a new state, or for nothing to
    be written. What an address points to cannot be checked.

    Args:
        shared_library_path: not looked at: nothing has to be built.

    >>> from rwkv_py.compat.rwkv_cpp.rwkv_cpp_shared_library import load_rwkv_shared_library
    >>> library = load_rwkv_shared_library()
    >>> ctx = library.rwkv_init_from_file("model.bin", 2, 0)
    >>> library.rwkv_get_n_vocab(ctx), library.rwkv_get_n_layer(ctx)
    (256, 6)
    >>> library.rwkv_free(ctx)
    """

    def __init__(self, shared_library_path: StrPath | None = None):
        self.path = shared_library_path

    def rwkv_init_from_file(
        self, model_file_path: StrPath, thread_count: int | None, offload_layers: int = 0
    ) -> RWKVContext:
        """Open a model; RWKV-5 with the `ln_x_eps` that rwkv.cpp computes with.

        Args:
            model_file_path: a model file, of any kind that `Model` opens.
            thread_count: how many threads compute; None: as many as `Model` chooses.
            offload_layers: how many layers a GPU would compute; all are computed here.
        """
        with failing("rwkv_init_from_file"):
            as_count("offload_layers", offload_layers)
            return RWKVContext(OpenedModel(model_file_path, thread_count))

    def rwkv_eval(
        self,
        ctx: RWKVContext,
        token: int,
        state_in_address: int | None,
        state_out_address: int | None,
        logits_out_address: int | None,
    ) -> None:
        """Read a token."""
        with failing("rwkv_eval"):
            _read(ctx, [token], state_in_address, state_out_address, logits_out_address)

    def rwkv_eval_sequence(
        self,
        ctx: RWKVContext,
        tokens: Sequence[int],
        state_in_address: int | None,
        state_out_address: int | None,
        logits_out_address: int | None,
    ) -> None:
        """Read at least one token, and any number."""
        with failing("rwkv_eval_sequence"):
            _read(ctx, tokens, state_in_address, state_out_address, logits_out_address)

    def rwkv_eval_sequence_in_chunks(
        self,
        ctx: RWKVContext,
        tokens: Sequence[int],
        chunk_size: int,
        state_in_address: int | None,
        state_out_address: int | None,
        logits_out_address: int | None,
    ) -> None:
        """Read tokens; `chunk_size`, which is checked, changes nothing: the library has its own."""
        with failing("rwkv_eval_sequence_in_chunks"):
            as_count("chunk_size", chunk_size, at_least=1)
            _read(ctx, tokens, state_in_address, state_out_address, logits_out_address)

    def rwkv_get_n_vocab(self, ctx: RWKVContext) -> int:
        """Return how many tokens there are."""
        return ctx.opened.model.n_vocab

    def rwkv_get_n_embed(self, ctx: RWKVContext) -> int:
        """Return the width of the residual stream."""
        return ctx.opened.model.info.n_embd

    def rwkv_get_n_layer(self, ctx: RWKVContext) -> int:
        """Return how many layers there are."""
        return ctx.opened.model.info.n_layer

    def rwkv_get_arch_version_major(self, ctx: RWKVContext) -> int:
        """Return the version of RWKV: 4 to 7."""
        return int(ctx.opened.model.info.version.partition(".")[0])

    def rwkv_get_arch_version_minor(self, ctx: RWKVContext) -> int:
        """Return what follows its point, 1 or 2 for version 5, else 0."""
        return int(ctx.opened.model.info.version.partition(".")[2] or 0)

    def rwkv_get_state_buffer_element_count(self, ctx: RWKVContext) -> int:
        """Return how many float32 numbers a state is."""
        return ctx.opened.model.state_size

    def rwkv_get_logits_buffer_element_count(self, ctx: RWKVContext) -> int:
        """Return how many float32 numbers the logits are."""
        return ctx.opened.model.n_vocab

    def rwkv_free(self, ctx: RWKVContext) -> None:
        """Give a model's memory back; the context is of no use afterwards."""
        ctx.opened.model.close()
        ctx.ptr = None

    def rwkv_quantize_model_file(
        self, model_file_path_in: StrPath, model_file_path_out: StrPath, format_name: str
    ) -> None:
        """Write a quantised model file, byte for byte as rwkv.cpp does; an older one is replaced.

        Needs the package rwkv-convert.

        Args:
            model_file_path_in: a ggmf file in FP32 or FP16, or a checkpoint.
            model_file_path_out: the ggmf file to write.
            format_name: Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0.

        Raises:
            ImportError: rwkv-convert is not installed.
        """
        if format_name not in QUANTIZED_FORMAT_NAMES:
            raise InvalidArgumentError(
                f"format_name: expected one of {', '.join(QUANTIZED_FORMAT_NAMES)}, got "
                f"{format_name!r}"
            )
        try:
            import rwkv_convert
        except ImportError as error:
            raise ImportError(
                "rwkv_quantize_model_file: expected the package rwkv-convert, found none. Try "
                "`pip install rwkv-convert`"
            ) from error
        try:
            rwkv_convert.convert(
                model_file_path_in,
                model_file_path_out,
                dtype=format_name,
                layout="rwkv.cpp",
                container="ggmf",
                force=True,
            )
        except rwkv_convert.errors.ConvertError as error:
            raise InvalidArgumentError(f"rwkv_quantize_model_file failed: {error}") from error

    def rwkv_get_system_info_string(self) -> str:
        """Return what computes, for people to read."""
        return f"rwkv-runtime {_core.runtime_version()}, {os.cpu_count()} processors"


def load_rwkv_shared_library() -> RWKVSharedLibrary:
    """Return a `RWKVSharedLibrary`: there is no file to look for."""
    return RWKVSharedLibrary()


def _read(
    ctx: RWKVContext,
    tokens: Sequence[int],
    state_in: int | None,
    state_out: int | None,
    logits_out: int | None,
) -> None:
    opened = ctx.opened
    n_state, n_vocab = opened.model.state_size, opened.model.n_vocab
    opened.read(
        tokens,
        _floats_at(state_in, n_state),
        _floats_at(state_out, n_state),
        _floats_at(logits_out, n_vocab),
    )


def _floats_at(address: int | None, size: int) -> NDArray[np.float32] | None:
    if not address:
        return None
    return np.ctypeslib.as_array(ctypes.cast(address, P_FLOAT), (size,))


@contextmanager
def failing(function: str) -> Iterator[None]:
    """Let what fails be a ValueError that names the function."""
    try:
        yield
    except RwkvError as error:
        raise InvalidArgumentError(
            f"{function} failed: {error.message}", remedy=error.remedy
        ) from error
