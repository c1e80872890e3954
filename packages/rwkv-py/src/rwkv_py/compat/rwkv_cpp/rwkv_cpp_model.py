"""`rwkv_cpp_model` of rwkv.cpp."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..._arguments import StrPath, as_count, as_integer
from ...errors import InvalidArgumentError
from .._arrays import ArrayOrTensor, as_tensor, floats_in, is_tensor
from .rwkv_cpp_shared_library import RWKVSharedLibrary, failing

__all__ = ["RWKVModel"]


class RWKVModel:
    """A model that remembers nothing: states go in and come out.

    Args:
        shared_library: what `load_rwkv_shared_library` returns.
        model_path: a model file, of any kind that `Model` opens. RWKV-5 is computed with the
            `ln_x_eps` that rwkv.cpp has.
        thread_count: how many threads compute; None: as many as `Model` chooses.
        gpu_layer_count: how many layers a GPU would compute, 0 or more; all are computed here.
        gpu_layers_count: the same, under an older name.

    Raises:
        ValueError: an argument is outside its range, or the file cannot be opened.

    >>> from rwkv_py.compat.rwkv_cpp import rwkv_cpp_model, rwkv_cpp_shared_library
    >>> library = rwkv_cpp_shared_library.load_rwkv_shared_library()
    >>> model = rwkv_cpp_model.RWKVModel(library, "model.bin")
    >>> logits, state = model.eval_sequence_in_chunks([72, 105], None, use_numpy=True)
    >>> logits, state = model.eval(33, state, state, logits)
    >>> logits.shape, state.shape
    ((256,), (101376,))
    >>> model.free()
    """

    def __init__(
        self,
        shared_library: RWKVSharedLibrary,
        model_path: StrPath,
        thread_count: int | None = None,
        gpu_layer_count: int = 0,
        *,
        gpu_layers_count: int | None = None,
    ):
        self._valid = False
        if not os.path.isfile(model_path):
            raise InvalidArgumentError(
                f"model_path: {os.fspath(model_path)} is not a file, expected a model file"
            )
        if thread_count is not None and as_integer("thread_count", thread_count) <= 0:
            raise InvalidArgumentError(
                f"thread_count: Thread count must be > 0, expected 1 to 1024, got {thread_count}"
            )
        n_gpu_layers = gpu_layer_count if gpu_layers_count is None else gpu_layers_count
        if as_integer("gpu_layer_count", n_gpu_layers) < 0:
            raise InvalidArgumentError(
                f"gpu_layer_count: GPU layer count must be >= 0, expected that, got {n_gpu_layers}"
            )
        self._library = shared_library
        self._ctx = shared_library.rwkv_init_from_file(model_path, thread_count, n_gpu_layers)
        count_of_state = shared_library.rwkv_get_state_buffer_element_count
        count_of_logits = shared_library.rwkv_get_logits_buffer_element_count
        self._state_buffer_element_count = count_of_state(self._ctx)
        self._logits_buffer_element_count = count_of_logits(self._ctx)
        self._valid = True

    @property
    def n_vocab(self) -> int:
        """How many tokens there are."""
        return self._library.rwkv_get_n_vocab(self._ctx)

    @property
    def n_embed(self) -> int:
        """Width of the residual stream."""
        return self._library.rwkv_get_n_embed(self._ctx)

    @property
    def n_layer(self) -> int:
        """Layers."""
        return self._library.rwkv_get_n_layer(self._ctx)

    @property
    def arch_version_major(self) -> int:
        """The version of RWKV: 4 to 7."""
        return self._library.rwkv_get_arch_version_major(self._ctx)

    @property
    def arch_version_minor(self) -> int:
        """What follows its point: 1 or 2 for version 5, else 0."""
        return self._library.rwkv_get_arch_version_minor(self._ctx)

    def eval(
        self,
        token: int,
        state_in: ArrayOrTensor | None,
        state_out: ArrayOrTensor | None = None,
        logits_out: ArrayOrTensor | None = None,
        use_numpy: bool = False,
    ) -> tuple[ArrayOrTensor, ArrayOrTensor]:
        """Read a token. The arguments, and what they raise, are those of `eval_sequence`."""
        tokens = [as_integer("token", token)]
        return self._eval("rwkv_eval", tokens, state_in, state_out, logits_out, use_numpy)

    def eval_sequence(
        self,
        tokens: Sequence[int],
        state_in: ArrayOrTensor | None,
        state_out: ArrayOrTensor | None = None,
        logits_out: ArrayOrTensor | None = None,
        use_numpy: bool = False,
    ) -> tuple[ArrayOrTensor, ArrayOrTensor]:
        """Read any number of tokens, at least one, after a state.

        Buffers are flat, contiguous and float32: arrays of numpy or tensors of torch on the CPU.

        Args:
            tokens: what to read.
            state_in: the state to read them after, (state_size,); None begins anew.
            state_out: where to put the state, which may be `state_in`; None: into a new buffer.
            logits_out: where to put the logits, (n_vocab,); None: into a new buffer.
            use_numpy: whether new buffers are numpy arrays where no buffer is given: they are of
                the kind of the first that is, and else tensors.

        Returns:
            logits and state, the buffers that they are in.

        Raises:
            ValueError: the model was freed, a token is not one of the model's, or a buffer is of
                another type, length or place.
            ImportError: tensors are asked for, and torch is not installed.
        """
        return self._eval("rwkv_eval_sequence", tokens, state_in, state_out, logits_out, use_numpy)

    def eval_sequence_in_chunks(
        self,
        tokens: Sequence[int],
        state_in: ArrayOrTensor | None,
        state_out: ArrayOrTensor | None = None,
        logits_out: ArrayOrTensor | None = None,
        chunk_size: int = 16,
        use_numpy: bool = False,
    ) -> tuple[ArrayOrTensor, ArrayOrTensor]:
        """Do what `eval_sequence` does: no sequence is too long for it.

        `chunk_size`, which must be above 0, changes nothing.
        """
        as_count("chunk_size", chunk_size, at_least=1)
        return self._eval(
            "rwkv_eval_sequence_in_chunks", tokens, state_in, state_out, logits_out, use_numpy
        )

    def free(self) -> None:
        """Give the memory back.

        Raises:
            ValueError: it was freed before.
        """
        if not self._valid:
            raise InvalidArgumentError("RWKVModel: Already freed, expected one that is open")
        self._valid = False
        self._library.rwkv_free(self._ctx)

    def _eval(
        self,
        function: str,
        tokens: Sequence[int],
        state_in: ArrayOrTensor | None,
        state_out: ArrayOrTensor | None,
        logits_out: ArrayOrTensor | None,
        use_numpy: bool,
    ) -> tuple[ArrayOrTensor, ArrayOrTensor]:
        if not self._valid:
            raise InvalidArgumentError("RWKVModel: Model was freed, expected one that is open")
        n_state, n_logits = self._state_buffer_element_count, self._logits_buffer_element_count
        given = [each for each in (state_in, state_out, logits_out) if each is not None]
        wants_tensors = is_tensor(given[0]) if given else not use_numpy
        if state_out is None:
            state_out = _new(n_state, wants_tensors)
        if logits_out is None:
            logits_out = _new(n_logits, wants_tensors)
        before = None if state_in is None else floats_in("state_in", state_in, n_state)
        state = _writable("state_out", state_out, n_state)
        logits = _writable("logits_out", logits_out, n_logits)
        with failing(function):
            self._ctx.opened.read(tokens, before, state, logits)
        return logits_out, state_out


def _new(size: int, wants_tensor: bool) -> ArrayOrTensor:
    array = np.zeros(size, np.float32)
    return as_tensor(array) if wants_tensor else array


def _writable(name: str, buffer: ArrayOrTensor, size: int) -> NDArray[np.float32]:
    array = floats_in(name, buffer, size)
    if not array.flags.writeable:
        raise InvalidArgumentError(f"{name}: is read-only, expected one that can be written")
    return array
