"""A model file, opened."""

from __future__ import annotations

import functools
import math
import os
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import (
    StrPath,
    Tokens,
    TokenSequence,
    as_count,
    as_iterable,
    as_number,
    as_path,
    as_tokens,
)
from .errors import InvalidArgumentError, ModelFileError
from .pass_times import PassTimes
from .prompt import END_OF_DOCUMENT
from .sequence import Moving, Place, Sequence
from .tokenizer import Tokenizer

__all__ = ["Model", "ModelInfo", "WantedLogits"]

WantedLogits: TypeAlias = Literal["last", "all", "hidden"] | None
StepLogits: TypeAlias = WantedLogits | Literal["ahead"]
# Of rwkv_logits.
_NUMBERS: dict[StepLogits, int] = {None: 0, "last": 1, "all": 2, "ahead": 2, "hidden": 4}


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model is.

    Attributes:
        version: "4", "5.1", "5.2", "6" or "7".
        n_vocab: tokens are 0 .. n_vocab - 1.
        n_embd: width of the residual stream.
        n_layer: layers.
        n_head: heads; 0 for version 4, which has none.
        head_size: width of a head; 0 for version 4.
        n_ffn: width of the channel mix.
        state_size: float32 numbers in a state.
        data_type: the type in the file's header: "fp32", "fp16", "q4_0", ...
        n_parameters: numbers in all tensors of the file.
        file_bytes: size of the file.
        weight_bytes: memory that the packed weights take.
        n_threads: threads that compute a step.
        kernels: the instruction-set level in use: "reference", "avx2", ...
        ln_x_eps: eps of the group norm after WKV; 0 for version 4.
        fingerprint: tells models apart: a hash of the tensors' names, types, shapes and samples.
        has_time_state: whether the file holds an initial state, with which sessions begin.
        has_tokenizer: whether the file holds a vocabulary, as GGUF files do.
        end_of_text: the token that ends a text, by the file; None if it does not say.
        end_of_turn: the token after which the other side of a chat speaks, likewise.
        container: "ggmf" or "gguf".
        name: what the model is called, by the file; "" if it does not say.
        chat_template: how chats are written, in jinja; "" likewise.
    """

    version: str
    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    head_size: int
    n_ffn: int
    state_size: int
    data_type: str
    n_parameters: int
    file_bytes: int
    weight_bytes: int
    n_threads: int
    kernels: str
    ln_x_eps: float
    fingerprint: int
    has_time_state: bool
    has_tokenizer: bool
    end_of_text: int | None
    end_of_turn: int | None
    container: str
    name: str
    chat_template: str


class Model:
    """A model file, opened: immutable, and shared by any number of sessions and threads.

    It owns the threads that compute; steps on one model queue up. Its memory is given back when
    nothing uses it any more, or by `close`, as at the end of a `with` block.

    Args:
        path: a `.bin` made by rwkv-convert or rwkv.cpp, or a `.gguf` of RWKV-6 or RWKV-7 made by
            rwkv-convert or llama.cpp; of one that is split into several files, any of them.
        threads: how many threads compute a step; None: the environment variable RWKV_THREADS, else
            the physical cores that this process may use.
        ln_x_eps: eps of the group norm after WKV; None: 64e-5, as in the official models;
            "rwkv.cpp": what rwkv.cpp computes with, 1e-5 for RWKV-5 and 64e-5 for others.
        progress: called now and then while the weights are packed, with the bytes done and those in
            all; what it raises ends the opening.

    Raises:
        ModelFileError: the file cannot be opened; `path` and `tensor` say what is at fault.
        ModelOptionError: `ln_x_eps` for a version 4 model, which has no such norm.
        InvalidArgumentError: an argument is outside its range.
        KernelsError: the environment variable RWKV_KERNELS names no level usable here.

    >>> model = Model("model.bin")
    >>> model.info.version, model.n_vocab
    ('7', 256)
    >>> with Model("model.bin") as passing:
    ...     text = Session(passing).generate("import ", max_tokens=5)
    >>> passing.closed
    True
    """

    def __init__(
        self,
        path: StrPath,
        *,
        threads: int | None = None,
        ln_x_eps: float | Literal["rwkv.cpp"] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ):
        if threads is not None:
            threads = as_count("threads", threads, at_least=1, at_most=1024)
        eps, like_rwkv_cpp = None, False
        if isinstance(ln_x_eps, str) and ln_x_eps == "rwkv.cpp":
            like_rwkv_cpp = True
        elif ln_x_eps is not None:
            eps = as_number("ln_x_eps", ln_x_eps)
            # As the library has it: a number that is 0 there would mean the default.
            if not (math.isfinite(eps) and np.float32(eps) > 0):
                raise InvalidArgumentError(f"ln_x_eps: expected a number above 0, got {eps}")
        encoded = as_path(path)
        self._path = os.fsdecode(encoded)
        try:
            self._core = _core.Model(encoded, threads or 0, eps or 0.0, like_rwkv_cpp, progress)
        except ModelFileError as error:
            error.path = self._path
            raise
        self._closed = False
        self._pass_times = PassTimes()  # of those in which texts are written
        self._draft_cache: Any = None  # what `draft` keeps of texts that were read, if it is one
        info = self._core.info()
        # The shortest decimal of the float32 that is computed with: 0.00064, not 0.00063999998...
        info["ln_x_eps"] = float(str(np.float32(info["ln_x_eps"])))
        self._info = ModelInfo(**info)

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<Model {self._path!r}: RWKV-{self._info.version}, {self._info.data_type}{closed}>"

    def close(self) -> None:
        """Give back the memory of the weights now, and of all sessions; closing twice is no error.

        What is being computed in other threads is finished first, as far as one step goes. After
        that everything that reads tokens or a state raises `InvalidArgumentError`: sessions, their
        streams, `step`, and requests of an `Engine`, those under way too. `info` remains.
        """
        self._core.close()
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The file it was opened from."""
        return self._path

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The vocabulary in the file, if it has one, or what models with as many tokens use.

        None if neither is known.

        Raises:
            VocabularyError: the vocabulary in the file makes no sense.
        """
        if self._info.has_tokenizer:
            return Tokenizer.in_file_of(self._core, self._path)
        return Tokenizer.of_model(self.n_vocab)

    @property
    def info(self) -> ModelInfo:
        """What the model is: version, sizes, types."""
        return self._info

    @property
    def n_vocab(self) -> int:
        """The number of logits; tokens are 0 .. n_vocab - 1."""
        return self._info.n_vocab

    @property
    def state_size(self) -> int:
        """The number of float32 values in a state."""
        return self._info.state_size

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a text: 0, and the one that the file names, if it names one."""
        named = self._info.end_of_text
        return (END_OF_DOCUMENT,) if named in (None, END_OF_DOCUMENT) else (END_OF_DOCUMENT, named)

    def step(
        self,
        work: Iterable[tuple[Moving, TokenSequence]],
        *,
        logits: WantedLogits | Iterable[WantedLogits] = "last",
    ) -> list[NDArray[np.float32] | None]:
        """Let many sessions read tokens in one step, in which each weight is read once for all.

        A session gets what it would get alone: with fewer than 32 tokens bit for bit.

        Args:
            work: sessions of this model, each once, and the tokens each is to read (1 or more).
            logits: what to return for each session, or one such for all: "last", the logits after
                its last token; "all", those after each token; "hidden", the final hidden states
                after each token, normed; None, nothing, which saves work.

        Returns:
            For each session, in order, a new float32 array (n_vocab,) for "last", (n_tokens,
            n_vocab) for "all", (n_tokens, n_embd) for "hidden", or None.

        Raises:
            InvalidArgumentError: a session is of another model or given twice, or has no tokens.
            TokenOutOfRangeError: a token is not of this model. No session has then read anything.

        >>> a, b = Session(model), Session(model)
        >>> [x.shape for x in model.step([(a, [72, 105]), (b, [72])], logits=["all", "last"])]
        [(2, 256), (256,)]
        """
        pairs = [
            (session._moving(), as_tokens(tokens, self.n_vocab))
            for session, tokens in map(_as_pair, as_iterable("work", work))
        ]
        wanted: list[WantedLogits]
        if logits is None or isinstance(logits, str):
            wanted = [logits] * len(pairs)
        else:
            wanted = list(as_iterable("logits", logits))
        if len(wanted) != len(pairs):
            raise InvalidArgumentError(
                f"logits: expected one choice for each of {len(pairs)} sessions, got {len(wanted)}"
            )
        if len({id(sequence) for sequence, _ in pairs}) < len(pairs):
            raise InvalidArgumentError("work: expected each session once, got one twice")
        if not all(sequence.model is self._core for sequence, _ in pairs):
            raise InvalidArgumentError(
                f"work: expected sessions of {self._path}, got one of another Model"
            )
        for choice in wanted:
            if choice not in (None, "last", "all", "hidden"):
                raise InvalidArgumentError(
                    f"logits: expected 'last', 'all', 'hidden' or None, got {choice!r}"
                )
        return self._step(pairs, list[StepLogits](wanted))

    def _step(
        self,
        work: list[tuple[Sequence, Tokens]],
        wanted: list[StepLogits],
        *,
        lends: bool = False,
    ) -> list[NDArray[np.float32] | None]:
        """Do a step whose arguments are known to be right.

        "ahead" is for a token and guesses of what follows, see `Sequence`: their logits are its.
        With `lends`, so are those of a "last" token: the sequence's next step writes over them.
        """
        out = [
            sequence.room_for_last()
            if lends and choice == "last"
            else self._room(choice, sequence, tokens.size)
            for choice, (sequence, tokens) in zip(wanted, work, strict=True)
        ]
        _core.step(
            self._core,
            [sequence.core for sequence, _ in work],
            [tokens for _, tokens in work],
            [_NUMBERS[choice] for choice in wanted],
            out,
        )
        for (sequence, tokens), array, choice in zip(work, out, wanted, strict=True):
            if choice == "ahead":
                sequence.moved_ahead(tokens)
                continue
            last = None
            if lends and choice == "last":
                last = array
            elif array is not None and choice != "hidden":
                # A copy: what the caller gets is the caller's to change.
                last = array.reshape(-1, self.n_vocab)[-1].copy()
            sequence.moved(tokens, last)
        return out

    def _new_sequence(self, place: Place | None = None) -> Sequence:
        """Return a new sequence, which sessions and requests are made of; not for users."""
        return Sequence(self._core, _core.Session(self._core), self.n_vocab, place)

    def _room(
        self, wanted: StepLogits, sequence: Sequence, n_tokens: int
    ) -> NDArray[np.float32] | None:
        if wanted is None:
            return None
        if wanted == "ahead":
            return sequence.room_ahead(n_tokens)
        if wanted == "last":
            return np.empty(self.n_vocab, np.float32)
        if wanted == "all":
            return np.empty((n_tokens, self.n_vocab), np.float32)
        return np.empty((n_tokens, self.info.n_embd), np.float32)


def _as_pair(pair: tuple[Moving, TokenSequence]) -> tuple[Moving, TokenSequence]:
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and hasattr(pair[0], "_moving")):
        raise InvalidArgumentError(
            f"work: expected pairs (session, tokens), got {reprlib.repr(pair)}"
        )
    return pair
