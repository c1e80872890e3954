"""One sequence being read and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core, prefix_cache
from ._arguments import StrPath, TokenSequence, as_path, as_tokens
from ._options import takes_options_of
from .errors import (
    InvalidArgumentError,
    ModelFileError,
    NoTokenizerError,
    StateFileError,
    StateMismatchError,
    TokenOutOfRangeError,
)
from .model import Model
from .prefix_cache import PrefixCache
from .sampling import Sampler, SamplingOptions, sampler_of_text
from .text_stream import TextBuilder, TextStream
from .time_state import TimeState, flat_state
from .tokenizer import Tokenizer

__all__ = ["Session"]

# Ends a document and, where there is none before it, begins one.
END_OF_DOCUMENT = 0

# Long prompts are fed in pieces of this many tokens, between which Ctrl-C is heard. They are the
# pieces in which the library computes a prompt, so they change no result.
PROMPT_PIECE = _core.session_piece_size()


class Session:
    r"""One sequence: a model, and a state that remembers what was read.

    A session is used by one thread at a time; sessions of one model may be used at once.

    Args:
        model: a `Model`, or the path of a model file, which is then opened for this session alone.
        threads: as for `Model`; only with a path.
        ln_x_eps: as for `Model`; only with a path.
        tokenizer: a `Tokenizer`, "world", "bytes", or the path of a vocabulary file (see
            `Tokenizer.open`). None: the World tokenizer for 65536 tokens, bytes for 256. Models
            with another number of tokens work with token lists; text needs this argument.
        cache: a `PrefixCache` of the model, so that a beginning that several sessions share is read
            once.
        time_state: an initial state made by state tuning, to begin with: a `.pth` or
            `.safetensors` with a tensor `blocks.N.att.time_state` for each layer (which needs
            `pip install rwkv-py[states]`); such tensors by name; or numbers (n_layer, n_head,
            head_size, head_size), row = value's index. None: what the model file holds, else zeros.

    Raises:
        ModelFileError: the file cannot be opened; and what else `Model` raises.
        VocabularyError: the vocabulary file cannot be read.
        StateFileError: the initial state cannot be read.
        StateMismatchError: the initial state is not one for this model.

    >>> session = Session("model.bin")
    >>> text = session.generate("import ", max_tokens=20, temperature=0)
    >>> logits = session.feed("\n\n")
    >>> logits.shape, logits.dtype
    ((256,), dtype('float32'))
    """

    def __init__(
        self,
        model: Model | StrPath,
        *,
        threads: int | None = None,
        ln_x_eps: float | None = None,
        tokenizer: Tokenizer | StrPath | None = None,
        cache: PrefixCache | None = None,
        time_state: TimeState | None = None,
    ):
        if not isinstance(model, Model):
            model = Model(model, threads=threads, ln_x_eps=ln_x_eps)
        elif threads is not None or ln_x_eps is not None:
            raise InvalidArgumentError(
                "threads and ln_x_eps: expected with a path only, got a Model, which has its own. "
                "Try giving them to Model()."
            )
        if not (tokenizer is None or isinstance(tokenizer, Tokenizer)):
            tokenizer = Tokenizer.named(tokenizer)
        self._model = model
        self._tokenizer = tokenizer
        self._core = _core.Session(model._core)
        if cache is not None and cache.model is not model:
            raise InvalidArgumentError(
                f"cache: expected one of the same Model ({model.path}), got one of "
                f"{cache.model.path}. Try Session(cache.model, cache=cache)"
            )
        self._cache = cache
        # What to begin with, flat; None is the model's own, which the library knows.
        self._fresh_state = None if time_state is None else flat_state(model, time_state)
        if self._fresh_state is not None:
            self._core.write_state(self._fresh_state)
        self._fresh_position = prefix_cache.fresh(self._fresh_state)
        self._position: prefix_cache.Position | None = self._fresh_position
        self._logits: NDArray[np.float32] | None = None  # after the last token, if they are known
        self._has_read = False

    def __repr__(self) -> str:
        return f"<Session of {self._model!r}>"

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            NoTokenizerError: none was given, and none is known for this number of tokens.
        """
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.of_model(self._model.n_vocab)
        if self._tokenizer is None:
            raise NoTokenizerError(
                f"{self._model.path}: the model has {self._model.n_vocab} tokens, expected 65536 "
                "(World) or 256 (bytes) to know its tokenizer. Try Session(..., tokenizer=) with "
                "its vocabulary file, or token lists in place of text."
            )
        return self._tokenizer

    def feed(self, prompt: str | bytes | TokenSequence) -> NDArray[np.float32]:
        """Read text or tokens, and return the logits after the last token.

        Args:
            prompt: text, or integers (n_tokens,); at least one token.

        Returns:
            float32 (n_vocab,), a new array.

        Raises:
            InvalidArgumentError: there is no token.
            TokenOutOfRangeError: a token is not one of the model's.
            NoTokenizerError: text, for a model whose tokenizer is not known.
            KeyboardInterrupt: as ever. After any exception the session is as it was before.
        """
        return self._feed(self._tokens(prompt)).copy()

    @takes_options_of(Sampler)
    def generate(
        self,
        prompt: str | bytes | TokenSequence,
        *,
        max_tokens: int = 256,
        stop: str | bytes | Iterable[str | bytes] = (),
        stop_tokens: Iterable[int] = (END_OF_DOCUMENT,),
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Read `prompt`, then write: return the text of the tokens drawn.

        The arguments, and what they raise, are those of `stream`.
        """
        return "".join(
            self.stream(
                prompt, max_tokens=max_tokens, stop=stop, stop_tokens=stop_tokens, **sampling
            )
        )

    @takes_options_of(Sampler)
    def stream(
        self,
        prompt: str | bytes | TokenSequence,
        *,
        max_tokens: int = 256,
        stop: str | bytes | Iterable[str | bytes] = (),
        stop_tokens: Iterable[int] = (END_OF_DOCUMENT,),
        **sampling: Unpack[SamplingOptions],
    ) -> TextStream:
        r"""Read `prompt`, then write: return an iterator over pieces of text.

        Afterwards, or whenever the iterator is left, the session has read the prompt and the tokens
        drawn, but for the one that ended the text. Spaces, tabs and digits do not count for
        `frequency_penalty`, as in the official package.

        Args:
            prompt: text or tokens. If it is empty, writing goes on after what was read before; a
                session that has read nothing begins a document: it reads token 0.
            max_tokens: how many tokens to draw at most.
            stop: strings that end the text and are left out of it, wherever tokens begin or end.
            stop_tokens: tokens that end the text; by default 0, the end of a document.
            **sampling: the keyword arguments of `Sampler`: temperature, top_p, seed, ...

        Returns:
            A `TextStream`, which also tells `finish_reason` and `tokens`.

        Raises:
            InvalidArgumentError, TokenOutOfRangeError, NoTokenizerError: as `feed` and `Sampler`.

        >>> stream = session.stream("The ", max_tokens=50, stop=["\n\n", "::"], seed=7)
        >>> text = "".join(stream)
        >>> stream.finish_reason in ("stop", "length", "end")
        True
        """
        tokenizer = self.tokenizer
        unread = self._tokens(prompt)
        sampler = sampler_of_text(tokenizer, self._model.n_vocab, **sampling)
        builder = TextBuilder(tokenizer, max_tokens=max_tokens, stop=stop, stop_tokens=stop_tokens)

        def draw() -> int:
            nonlocal unread
            unread = self._before_writing(unread)
            if unread.size:
                self._feed(unread)
                unread = unread[:0]
            assert self._logits is not None
            return sampler.sample(self._logits)

        def take(token: int) -> None:
            sampler.accept(token)
            self._feed(as_tokens([token]))

        return TextStream(draw, take, builder)

    @property
    def state(self) -> NDArray[np.float32]:
        """What the session remembers: float32 (state_size,), a copy, in the layout of `rwkv.h`.

        It can be kept and set again, in this session or another of the same model.

        Raises:
            StateMismatchError: what is set has another size.

        >>> before = session.state
        >>> _ = session.feed("something to forget")
        >>> session.state = before
        """
        state = np.empty(self._model.state_size, np.float32)
        self._core.read_state(state)
        return state

    @state.setter
    def state(self, state: ArrayLike) -> None:
        array = np.ascontiguousarray(state, np.float32)
        if array.shape != (self._model.state_size,):
            raise StateMismatchError(
                f"state: expected shape ({self._model.state_size},) for {self._model.path}, got "
                f"{array.shape}"
            )
        self._core.write_state(array)
        self._remember(None)

    def save_state(self, path: StrPath, *, dtype: Literal["fp32", "fp16"] = "fp32") -> None:
        """Write what the session remembers to a file.

        The file knows its model, and has a checksum; its layout is in docs/formats.md. It appears
        under its name when it is complete, replacing an older one.

        Args:
            path: the file to write.
            dtype: "fp16" halves the file; what follows then differs a little.

        Raises:
            StateFileError: the file cannot be written, or a number of the state is not finite or
                too large for fp16.

        >>> _ = session.feed("Something to remember.")
        >>> session.save_state("remembered.state")
        >>> other = Session(session.model)
        >>> other.load_state("remembered.state")
        >>> bool((other.state == session.state).all())
        True
        """
        if dtype not in ("fp32", "fp16"):
            raise InvalidArgumentError(f"dtype: expected 'fp32' or 'fp16', got {dtype!r}")
        with _as_state_file_error():
            self._core.save_state(as_path(path), dtype == "fp16")

    def load_state(self, path: StrPath) -> None:
        """Remember what was saved to a file by a session of the same model file.

        As after setting `state`, generating needs a prompt of at least one token.

        Raises:
            StateMismatchError: the state is of another model.
            StateFileError: the file cannot be read, or is not a state file, or a damaged one.
                After any exception the session is as it was before.
        """
        with _as_state_file_error():
            self._core.load_state(as_path(path))
        self._remember(None)

    def reset(self) -> None:
        """Forget everything that was read: return to the state that the session began with."""
        if self._fresh_state is None:
            self._core.reset()
        else:
            self._core.write_state(self._fresh_state)
        self._logits = None
        self._position = self._fresh_position
        self._has_read = False

    def fork(self) -> Session:
        """Return a second session that goes on from here, in time proportional to the state."""
        copy = object.__new__(type(self))
        copy._model = self._model
        copy._tokenizer = self._tokenizer
        copy._core = self._core.fork()
        copy._logits = self._logits
        copy._cache = self._cache
        copy._fresh_state = self._fresh_state
        copy._fresh_position = self._fresh_position
        copy._position = self._position
        copy._has_read = self._has_read
        return copy

    def copy_from(self, other: Session) -> None:
        """Remember what `other`, a session of the same `Model`, remembers, and nothing else.

        Raises:
            StateMismatchError: `other` is of another model.

        >>> kept = session.fork()
        >>> _ = session.feed("something to forget")
        >>> session.copy_from(kept)
        """
        self._core.copy_state(other._core)
        self._logits = other._logits
        self._position = other._position if other._cache is self._cache else None
        self._has_read = other._has_read

    def _tokens(self, prompt: str | bytes | TokenSequence) -> NDArray[np.int32]:
        if not isinstance(prompt, str | bytes):
            return as_tokens(prompt)
        tokens = as_tokens(self.tokenizer.encode(prompt))
        model = self._model
        if tokens.size and (largest := tokens.max()) >= model.n_vocab:
            raise TokenOutOfRangeError(
                f"tokenizer: expected tokens 0 to {model.n_vocab - 1} for {model.path}, got "
                f"{largest}: it has {self.tokenizer.n_vocab}. Try the one that the model was "
                "trained with"
            )
        return tokens

    def _before_writing(self, prompt: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return what must be read before the first token is drawn: `prompt`, token 0, nothing."""
        if prompt.size or self._logits is not None:
            return prompt
        if not self._has_read:
            return as_tokens([END_OF_DOCUMENT])
        raise InvalidArgumentError(
            "prompt: expected at least one token after a state was set or a step was made "
            "without logits, got an empty prompt"
        )

    def _feed(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """Read the tokens, all or none; return the logits, which nobody changes from then on."""
        cut = range(PROMPT_PIECE, tokens.size, PROMPT_PIECE)
        pieces = np.split(tokens, cut)
        positions = self._positions_after(pieces)
        cache = self._cache if positions and tokens.size >= prefix_cache.MIN_TOKENS else None
        before = self._core.fork() if cache is not None or len(pieces) > 1 else None
        logits: NDArray[np.float32] | None = None
        n_found = 0
        try:
            if cache is not None:
                n_found, logits = cache._find(self._core, positions)
            for i in range(n_found, len(pieces)):
                is_last = i + 1 == len(pieces)
                logits = np.empty(self._model.n_vocab, np.float32) if is_last else None
                self._core.feed(pieces[i], logits)
                if cache is not None:
                    cache._keep(positions[i], self._core, logits)
        except BaseException:
            if before is not None:
                self._core = before
            raise
        assert logits is not None
        if cache is not None:
            n_spared = sum(piece.size for piece in pieces[:n_found])
            cache._count(n_spared, tokens.size - n_spared)
        self._remember(logits, positions[-1] if positions else None)
        return logits

    def _positions_after(self, pieces: list[NDArray[np.int32]]) -> list[prefix_cache.Position]:
        """Return the position after each piece; none without a cache, or if it was lost."""
        if self._cache is None or self._position is None:
            return []
        positions = []
        position = self._position
        for piece in pieces:
            position = prefix_cache.after(position, piece)
            positions.append(position)
        return positions

    def _remember(
        self,
        logits: NDArray[np.float32] | None,
        position: prefix_cache.Position | None = None,
    ) -> None:
        """Note that the state has changed, and what is known of it: the logits after its last
        token, and its position in the prefix cache.
        """
        self._logits = logits
        self._position = position
        self._has_read = True


@contextmanager
def _as_state_file_error() -> Iterator[None]:
    """Let what the library says about files in general be said of a state file."""
    try:
        yield
    except ModelFileError as error:
        raise StateFileError(str(error)) from None
