"""`rwkv.model` of the PyPI package `rwkv`."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._arguments import StrPath, TokenSequence, as_tokens
from ...errors import InvalidArgumentError, ModelFileError
from ...model import Model
from ...session import Session
from .._arrays import ArrayOrTensor, as_tensor, is_tensor
from ._floats import Floats
from ._state_list import StateList

__all__ = ["RWKV"]

Kind = Literal["numpy", "torch"]

# One part of a strategy: a device, a type of numbers, for how many layers.
_STAGE = re.compile(r"(cuda(:\d+)?|cpu|mps|dml) (fp16|fp32|bf16)(i[348])?( \*\d+\+?)?")

# The package's numbers. What it calls 5.1 and 5.2 is one version in model files.
_VERSIONS: dict[str, float] = {"4": 4, "5.1": 5, "5.2": 5.2, "6": 6, "7": 7}


class RWKV:
    """A model that remembers nothing: states go in and come out.

    Args:
        model: the model file, with or without its `.bin` or `.gguf`; a name that ends in `.pth`
            stands for the model file beside it.
        strategy: as the package has it. It must make sense, and changes nothing: the model file
            says in which types the weights are, and the processor computes.
        verbose: changes nothing; nothing is printed.
        convert_and_save_and_exit: refused, where it is not None; see `rwkv-convert`.
        tensors: what `forward` returns for a new state: "numpy" or "torch". None: "torch" if the
            program has imported torch, else "numpy". After that it returns what it was given.

    Attributes:
        args: MODEL_NAME, strategy_string, n_layer, n_embd, n_att, n_ffn, n_head, head_size,
            vocab_size and time_state.
        version: 4, 5, 5.2, 6 or 7.
        n_layer: layers.
        n_embd: width of the residual stream.
        n_head: heads; 0 for version 4.
        head_size: width of a head; 0 for version 4.

    Raises:
        InvalidArgumentError: the strategy makes no sense, or the model is to be converted.
        ModelFileError: there is no such model file, or it cannot be opened.

    >>> from rwkv_py.compat.rwkv.model import RWKV
    >>> model = RWKV(model="model", strategy="cpu fp32")
    >>> logits, state = model.forward([72, 105], None)
    >>> tuple(logits.shape), len(state), tuple(state[1].shape)
    ((256,), 18, (4, 64, 64))
    """

    def __init__(
        self,
        model: StrPath,
        strategy: str = "cpu fp32",
        verbose: bool = True,
        convert_and_save_and_exit: str | None = None,
        *,
        tensors: Kind | None = None,
    ):
        if not all(_STAGE.fullmatch(stage.strip()) for stage in strategy.split("->")):
            raise InvalidArgumentError(
                "strategy: expected 'cpu fp32' or others of the package rwkv, as 'cuda fp16i8 *10 "
                f"-> cpu fp32', got {strategy!r}"
            )
        if convert_and_save_and_exit is not None:
            raise InvalidArgumentError(
                f"convert_and_save_and_exit: expected None, got {convert_and_save_and_exit!r}",
                remedy="Try the command rwkv-convert",
            )
        if tensors not in ("numpy", "torch", None):
            raise InvalidArgumentError(f"tensors: expected 'numpy' or 'torch', got {tensors!r}")
        path = _model_file(os.fspath(model).strip())
        self._model = Model(path)
        self._tensors: Kind = tensors or ("torch" if "torch" in sys.modules else "numpy")
        self._session = Session(self._model)
        self._lock = threading.Lock()  # one state at a time
        info = self._model.info
        self._layout = StateList(info)
        self.version = _VERSIONS[info.version]
        self.n_layer, self.n_embd = info.n_layer, info.n_embd
        self.n_head, self.head_size = info.n_head, info.head_size
        self.args = SimpleNamespace(
            MODEL_NAME=path,
            strategy_string=strategy,
            n_layer=info.n_layer,
            n_embd=info.n_embd,
            n_att=info.n_embd,
            n_ffn=info.n_ffn,
            n_head=info.n_head,
            head_size=info.head_size,
            vocab_size=info.n_vocab,
            time_state=info.has_time_state,
        )

    def __repr__(self) -> str:
        return f"<RWKV of {self._model!r}>"

    @property
    def model(self) -> Model:
        """What computes."""
        return self._model

    def generate_zero_state(self) -> list[ArrayOrTensor]:
        """Return the state that `forward` begins with where it is given None, as a new list.

        It is zeros but for version 4's pp (-1e30), and the heads of a model whose file holds an
        initial state.
        """
        with self._lock:
            self._session.reset()
            flat = self._session.state
        return self._returned(self._layout.split(flat), self._tensors)

    def forward(
        self,
        tokens: int | TokenSequence,
        state: Sequence[ArrayOrTensor] | None = None,
        full_output: bool = False,
    ) -> tuple[ArrayOrTensor, list[ArrayOrTensor]]:
        """Read tokens after a state.

        As in the package, a list that is given as `state` is the one that comes back, with new
        arrays in it, for versions 4 to 6; for version 7 it stays as it was. The arrays themselves
        are never changed.

        Args:
            tokens: a token, or several, at least one.
            state: what `forward` returned, or a copy; arrays or tensors, of any type that holds
                numbers. None begins anew.
            full_output: return the logits after each token; of a single one in one dimension.

        Returns:
            logits, float32 (n_vocab,) or (n_tokens, n_vocab), and the state: arrays of numpy or
            tensors of torch, as those given, or else as `tensors` says.

        Raises:
            InvalidArgumentError: there is no token.
            TokenOutOfRangeError: a token is not one of the model's.
            StateMismatchError: the state is not one of this model.
        """
        several = [tokens] if np.ndim(tokens) == 0 else tokens
        given = as_tokens(several, self.args.vocab_size)  # type: ignore[arg-type]
        kind = self._tensors
        flat = None
        if state is not None:
            flat = self._layout.join(state)
            kind = "torch" if any(map(is_tensor, state)) else "numpy"
        logits: NDArray[np.float32] | None
        with self._lock:
            if flat is None:
                self._session.reset()
            else:
                self._session.state = flat
            if full_output and given.size > 1:
                (logits,) = self._model.step([(self._session, given)], logits="all")
            else:
                logits = self._session.feed(given)
            assert logits is not None
            after = self._returned(self._layout.split(self._session.state), kind)
        if isinstance(state, list) and self.version < 7:
            state[:] = after
            after = state
        return self._returned([logits], kind)[0], after

    @staticmethod
    def _returned(arrays: list[NDArray[np.float32]], kind: Kind) -> list[ArrayOrTensor]:
        return [as_tensor(each) if kind == "torch" else each.view(Floats) for each in arrays]


def _model_file(name: str) -> str:
    """Return the file that is meant: .bin or .gguf is added, where the package adds .pth."""
    if not name.endswith(".pth") and os.path.isfile(name):
        return name
    if name.endswith((".bin", ".gguf")):
        return name  # to be told that it does not exist
    stem = name.removesuffix(".pth")
    for path in (f"{stem}.bin", f"{stem}.gguf"):
        if os.path.isfile(path):
            return path
    raise ModelFileError(
        f"{stem}.bin: does not exist, expected a model file of this name or {stem}.gguf",
        path=name,
        remedy=f"Try `rwkv-convert {stem}.pth {stem}.bin`, once",
    )
