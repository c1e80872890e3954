"""One sequence being read and written."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from collections.abc import Sequence as Several
from contextlib import contextmanager
from typing import Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import StrPath, Tokens, TokenSequence, as_floats, as_path, as_tokens
from ._options import takes_options_of
from .beginning import Beginning, OpeningOptions, begin
from .errors import InvalidArgumentError, ModelFileError, StateFileError, StateMismatchError
from .generation import GenerationOptions, Plan, takes_generation_options
from .model import Model
from .prefix_cache import MIN_TOKENS
from .prompt import PIECE_TOKENS, Prompt
from .reading import Reading
from .sequence import Sequence, place_of_state
from .speculation import Guesser, Pass, SpeculationCounts
from .text_stream import TextStream
from .tokenizer import Tokenizer

__all__ = ["Session"]


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

    @takes_options_of(begin)
    def __init__(self, model: Model | StrPath, **opening: Unpack[OpeningOptions]):
        self._beginning = begin(model, **opening)
        self._sequence = self._beginning.new_sequence()
        self._claim()

    def __repr__(self) -> str:
        return f"<Session of {self.model!r}>"

    @property
    def model(self) -> Model:
        """The model."""
        return self._beginning.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            NoTokenizerError: none was given, and none is known for this number of tokens.
        """
        return self._beginning.tokenizer

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
        sequence = self._moving()
        read = self._beginning.prompt(prompt)
        if not read.tokens.size:
            raise InvalidArgumentError("prompt: expected at least one token, got none")
        self._read(read)
        return sequence.logits.copy()

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits after the last token that was read: float32 (n_vocab,), a copy.

        Raises:
            InvalidArgumentError: nothing was read since the session was fresh, or since the numbers
                of a `state` were set.

        >>> expected = session.feed("import ")
        >>> bool((session.logits == expected).all())
        True
        """
        self._require_last_token()
        return self._sequence.logits.copy()

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The final hidden state after the last token: float32 (n_embd,), normed, a copy.

        It is what the head makes `logits` of.

        Raises:
            InvalidArgumentError: as `logits`.
        """
        self._require_last_token()
        hidden = np.empty(self.model.info.n_embd, np.float32)
        self._sequence.core.read_hidden(hidden)
        return hidden

    @takes_generation_options
    def generate(
        self, prompt: str | bytes | TokenSequence, **options: Unpack[GenerationOptions]
    ) -> str:
        """Read `prompt`, then write: return the text of the tokens drawn.

        The arguments, and what they raise, are those of `stream`.
        """
        with self.stream(prompt, **options) as stream:
            return "".join(stream)

    @takes_generation_options
    def stream(
        self, prompt: str | bytes | TokenSequence, **options: Unpack[GenerationOptions]
    ) -> TextStream:
        r"""Read `prompt`, then write: return an iterator over pieces of text.

        Afterwards, or whenever the iterator is left, the session has read the prompt and the tokens
        drawn, but for the one that ended the text. Spaces, tabs and digits do not count for
        `frequency_penalty`, as in the official package.

        Args:
            prompt: text or tokens. If it is empty, writing goes on after what was read before; a
                session that has read nothing begins a document: it reads token 0.
            max_tokens: how many tokens to draw at most; with 0 the prompt is read, and no more.
            stop: strings that end the text and are left out of it, wherever tokens begin or end.
            stop_tokens: tokens that end the text; by default 0, the end of a document, and the one
                that the model file names.
            json_schema: a JSON schema, as a dict or as text, or True for any JSON: the text is JSON
                in one line that fits it. This and the next two need `pip install rwkv-py[grammar]`;
                one of them at most. A text cut by `max_tokens` is the beginning of one that fits.
            regex: a regular expression, of the Rust crate regex, that matches the whole text.
            grammar: a grammar in Lark, as llguidance takes it, or in the GBNF of llama.cpp.
            speculate: what guesses how the text goes on, so that one pass over the weights gives
                several tokens: "lookup" (what followed the same words before, in what was read or
                written), "draft" (the model `draft`), or "lookup+draft". The text is the same to
                the bit; what the guesses give is in `TextStream.speculation`.
            draft: a smaller model with the same tokens.
            **sampling: the keyword arguments of `Sampler`: temperature, top_p, seed, ...

        Returns:
            A `TextStream`, which also tells `finish_reason` and `tokens`.

        Raises:
            InvalidArgumentError, TokenOutOfRangeError, NoTokenizerError: as `feed` and `Sampler`;
                or nothing can fit what the text must fit, as may turn out while it is written.

        >>> session.reset()
        >>> stream = session.stream("The ", max_tokens=50, stop=["\n\n", " "], temperature=0)
        >>> "".join(stream), stream.finish_reason
        ('standard', 'stop')
        >>> for piece in session.stream("", max_tokens=50):
        ...     break  # nobody has the stream any more: the session is free again
        >>> logits = session.feed("\n")
        """
        plan = Plan.of(self.tokenizer, self.model.n_vocab, self.model.end_tokens, **options)
        prompt_to_read = self._beginning.prompt(prompt)
        return TextStream(_Writer(self, prompt_to_read, plan), plan.builder)

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
        state = np.empty(self.model.state_size, np.float32)
        self._sequence.core.read_state(state)
        return state

    @state.setter
    def state(self, state: ArrayLike) -> None:
        array = as_floats("state", state)
        if array.shape != (self.model.state_size,):
            raise StateMismatchError(
                f"state: expected shape ({self.model.state_size},) for {self.model.path}, got "
                f"{array.shape}"
            )
        sequence = self._moving()
        sequence.core.write_state(array)
        sequence.was_set()

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
            self._sequence.core.save_state(as_path(path), dtype == "fp16")

    def load_state(self, path: StrPath) -> None:
        """Remember what was saved to a file by a session of the same model file.

        Generating goes on from there, also with an empty prompt; but files that were saved by
        versions before 0.2, or by a session whose `state` was set, need a prompt of at least one
        token.

        Raises:
            StateMismatchError: the state is of another model.
            StateFileError: the file cannot be read, or is not a state file, or a damaged one.
                After any exception the session is as it was before.
        """
        sequence = self._moving()
        with _as_state_file_error():
            sequence.core.load_state(as_path(path))
        hidden = np.empty(self.model.info.n_embd, np.float32)
        has_last_token = _read_hidden(sequence, hidden)
        sequence.was_set(has_logits=has_last_token)
        if self._beginning.cache is not None:  # what is read after the same state is shared
            numbers = self.state if not has_last_token else np.concatenate([self.state, hidden])
            text = self._beginning.place.text
            tokenizer = None if text is None else text.tokenizer
            sequence.place = place_of_state(numbers, tokenizer, person=b"loaded state")

    def reset(self) -> None:
        """Forget everything that was read: return to the state that the session began with."""
        self._beginning.renew(self._moving())

    def fork(self) -> Session:
        """Return a second session that goes on from here, in time proportional to the state."""
        return self._of(self._beginning, self._sequence.fork())

    def copy_from(self, other: Session) -> None:
        """Remember what `other`, a session of the same `Model`, remembers, and nothing else.

        Raises:
            StateMismatchError: `other` is of another model.

        >>> kept = session.fork()
        >>> _ = session.feed("something to forget")
        >>> session.copy_from(kept)
        """
        if not isinstance(other, Session):
            raise InvalidArgumentError(
                f"other: expected a Session, got {type(other).__name__}: {other!r}"
            )
        self._moving().copy_from(other._sequence)

    def _require_last_token(self) -> None:
        if not self._sequence.has_logits:
            raise InvalidArgumentError(
                "session: expected one that has read a token, got one that has read none since it "
                "was fresh or since the numbers of a state were set",
                remedy="Try feed() first",
            )

    # What the rest of this package asks of a session, besides the above: `Model.step` and `Engine`
    # for the sequence, to move it, and `Engine` to make sessions that begin as its requests do.

    def _moving(self) -> Sequence:
        """Return the sequence to something that moves it, if nothing else does."""
        if self._reading.locked():
            raise _in_use()
        if self._stream is not None and self._stream() is not None:
            raise InvalidArgumentError(
                "session: a stream is writing with it, expected one at a time",
                remedy="Try finishing the stream or close() on it first, or a session for each "
                "text: fork() makes one",
            )
        return self._sequence

    @classmethod
    def _of(cls, beginning: Beginning, sequence: Sequence) -> Session:
        """Return a session of a sequence, which is its own from now on."""
        session = object.__new__(cls)
        session._beginning = beginning
        session._sequence = sequence
        session._claim()
        return session

    def _claim(self) -> None:
        """Make what tells that the sequence is being moved, so that nothing else moves it."""
        self._stream: weakref.ref[TextStream] | None = None  # the stream that is writing, if any
        self._guessers: Several[Guesser] = ()  # of the last text: they know how the next begins
        self._reading = threading.Lock()  # held from the first piece of a prompt to the last

    def _read(self, prompt: Prompt) -> None:
        """Read at least one token, all or none."""
        sequence, cache = self._sequence, self._beginning.cache
        n_tokens = prompt.tokens.size
        before = None
        if n_tokens > PIECE_TOKENS or (cache is not None and n_tokens >= MIN_TOKENS):
            before = sequence.fork()
        if not self._reading.acquire(blocking=False):
            raise _in_use()
        try:
            reading = Reading(sequence, prompt, cache)
            while (piece := reading.piece) is not None:
                sequence.read(piece, wants_logits=reading.is_last)
                reading.advance()
        except BaseException:
            if before is not None:
                sequence.become(before)
            raise
        finally:
            self._reading.release()

    def _read_ahead(self, tokens: Tokens) -> None:
        """Read a token, and guesses of what follows it: all or none."""
        if not self._reading.acquire(blocking=False):
            raise _in_use()
        try:
            if tokens.size == 1:
                self._sequence.read(tokens)
            else:
                self._sequence.read_ahead(tokens)
        finally:
            self._reading.release()


class _Writer:
    """Draws tokens with a session, for a `TextStream`."""

    def __init__(self, session: Session, prompt: Prompt, plan: Plan):
        self._session = session
        self._prompt = prompt
        self._builder = plan.builder
        self._sampler = plan.make_sampler()
        self._speculation = plan.speculate(self._sampler, session._guessers)
        self._has_session = False
        self.speculation: SpeculationCounts | None = plan.speculation

    def begin(self, stream: TextStream) -> None:
        prompt = self._session._moving().before_writing(self._prompt)
        self._session._stream = weakref.ref(stream)
        self._has_session = True
        if prompt.tokens.size:
            self._session._read(prompt)
        if self._speculation is not None:
            self._speculation.begin(self._session._sequence.history.since(0).tolist())
            self._session._guessers = self._speculation.guessers

    def draw(self) -> int:
        return self._sampler.sample(self._session._sequence.logits)

    def take(self, token: int) -> None:
        self._sampler.accept(token)
        if self._speculation is None:
            self._session._read(Prompt(as_tokens([token])))
            return
        self._speculation.took(token)
        if not self._session._sequence.takes(token):
            guessing = Pass(
                self._session.model._pass_times, [(self._speculation, self._builder.n_left)]
            )
            self._session._read_ahead(as_tokens([token, *guessing.guesses[0]]))
            guessing.made()

    def end(self, *, finished: bool) -> None:
        session = self._session
        if not self._has_session:
            return
        session._stream = None
        if finished and session._beginning.cache is not None:
            session._beginning.cache._keep_end(session._sequence)


def _read_hidden(sequence: Sequence, hidden: NDArray[np.float32]) -> bool:
    """Read the final hidden state after the last token; false if that is not known."""
    try:
        sequence.core.read_hidden(hidden)
    except InvalidArgumentError:
        return False
    return True


def _in_use() -> InvalidArgumentError:
    return InvalidArgumentError(
        "session: is in use by another thread, expected one thread at a time",
        remedy="Try a session for each thread: fork() makes one",
    )


@contextmanager
def _as_state_file_error() -> Iterator[None]:
    """Let what the library says about files in general be said of a state file."""
    try:
        yield
    except ModelFileError as error:
        raise StateFileError(error.message, remedy=error.remedy) from None
