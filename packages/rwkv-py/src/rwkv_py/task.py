"""A text that an engine writes, as the engine sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._arguments import Tokens, one_token
from .beginning import Beginning
from .generation import Plan
from .model import WantedLogits
from .probabilities import TokenProbability, probability_of
from .prompt import Prompt
from .reading import Reading
from .request import Request
from .session import Session
from .speculation import Speculation
from .text_stream import FinishReason

__all__ = ["Task", "Wishes"]


class Wishes(NamedTuple):
    """What a request wants besides its text.

    Attributes:
        keep_session: whether it gets the session in the end.
        n_top: how many probable tokens to tell with each that is drawn; None tells nothing.
        n_prompt_top: the same for the tokens of the prompt.
    """

    keep_session: bool = False
    n_top: int | None = None
    n_prompt_top: int | None = None


class Task:
    """A request being worked on. Only the engine's thread touches it once it has joined.

    The engine calls `start` when its turn has come, and from then on reads `piece` and calls
    `advance`, until the request is done.

    Args:
        request: what its caller sees.
        beginning: what a new sequence begins with; its cache is used.
        session: what to go on from, the task's own; None begins anew.
        prompts: what to read first, one after the other, each in pieces of its own.
        plan: how to write.
        wishes: what the request wants besides.
        share: whose request it is.

    Attributes:
        request: the same.
        share: the same.
        sequence: what reads, once it is started.
        speculation: what guesses how the text goes on, once it is being written; None: nothing.
    """

    def __init__(
        self,
        request: Request,
        beginning: Beginning,
        session: Session | None,
        prompts: list[Prompt],
        plan: Plan,
        wishes: Wishes,
        share: str,
    ):
        self.request = request
        self.share = share
        self._beginning = beginning
        self._session = session  # None: a new one, of which a task in line has no need yet
        self._prompts = prompts
        self._plan = plan
        self._builder = plan.builder
        self._wishes = wishes
        self.speculation: Speculation | None = None

    def start(self) -> None:
        """Get a state and a sampler, which take too much memory to have while waiting in line."""
        if self._session is None:
            self._session = Session._of(self._beginning, self._beginning.new_sequence())
        self.sequence = self._session._moving()
        self._sampler = self._plan.make_sampler()
        self._reading: Reading | None = None
        self._drawn: Tokens | None = None  # the token to read next
        self._n_found = 0
        self._read_on()
        self.request._start(self._n_found)
        if self._reading is None:
            self._draw()

    @property
    def reads_prompt(self) -> bool:
        """Whether `piece` is of the prompt, not a token that was drawn."""
        return self._reading is not None

    @property
    def piece(self) -> Tokens:
        """The tokens to read in the next step."""
        piece = self._drawn if self._reading is None else self._reading.piece
        assert piece is not None
        return piece

    @property
    def n_guesses(self) -> int:
        """How many guesses may be read behind `piece`, at most."""
        return self._builder.n_left

    @property
    def wants(self) -> WantedLogits:
        """The logits that `advance` needs of the next step."""
        if self._reading is None:
            return "last"
        if self._wishes.n_prompt_top is not None:
            return "all"
        return "last" if self._reading.is_last and not self._prompts else None

    def advance(self, logits: NDArray[np.float32] | None) -> None:
        """Go on after `piece` was read, with the logits that `wants` asked for."""
        if self._reading is not None:
            if self._wishes.n_prompt_top is not None:
                assert logits is not None
                self._tell_prompt(logits, self._wishes.n_prompt_top)
            self._reading.advance()
            if self._reading.piece is not None:
                return
            self._read_on()
            if self._reading is not None:
                return
        self._draw()
        # Guesses that were read behind the piece, for as long as they hold.
        while not self.request.done and self.sequence.takes(int(self.piece[0])):
            self._draw()

    def _read_on(self) -> None:
        """Begin with the next prompt of which there is anything to read."""
        self._reading = None
        # What the cache spares has no logits to tell of.
        cache = self._beginning.cache if self._wishes.n_prompt_top is None else None
        while self._prompts:
            # The logits before the first token of a prompt, if anything came before.
            self._before = self.sequence.logits if self.sequence.has_logits else None
            reading = Reading(self.sequence, self._prompts.pop(0), cache)
            self._n_found += reading.n_found
            if reading.piece is not None:
                self._reading = reading
                return
        self.speculation = self._plan.speculate(self._sampler)
        if self.speculation is not None:
            self.speculation.begin(self.sequence.history.since(0).tolist())

    def _tell_prompt(self, logits: NDArray[np.float32], n_top: int) -> None:
        """Tell how probable the tokens of the piece were, by the logits before each."""
        probabilities: list[TokenProbability | None] = []
        for token, after in zip(self.piece.tolist(), logits, strict=True):
            before, self._before = self._before, after
            known = None if before is None else probability_of(before, token, n_top)
            probabilities.append(known)
        if self._before is not None:
            self._before = self._before.copy()  # not the logits of a whole piece
        self.request._read(probabilities)

    def _draw(self) -> None:
        """Draw the next token, and let the request have the text."""
        text, taken, probability = "", None, None
        n_top = self._wishes.n_top
        logits = self.sequence.logits
        drawn = not self._builder.full
        if drawn:
            token = self._sampler.sample(logits)
            text = self._builder.push(token)
            if n_top is not None:
                probability = probability_of(logits, token, n_top)
            if self._builder.finish_reason is None:
                self._sampler.accept(token)
                self._drawn = one_token(token)
                taken = token
                if self.speculation is not None:
                    self.speculation.took(token)
        # The last token is read only if the session is kept.
        if (
            self._builder.full
            and self._builder.finish_reason is None
            and not (drawn and self._wishes.keep_session)
        ):
            text += self._builder.end("length")
        if drawn:
            self.request._deliver(text, taken, probability)
        if self._builder.finish_reason is not None:
            self._finish(self._builder.finish_reason, None if taken is not None else probability)

    def _finish(self, reason: FinishReason, ending: TokenProbability | None) -> None:
        if self._beginning.cache is not None:
            self._beginning.cache._keep_end(self.sequence)
        self.request._finish(
            reason,
            session=self._session if self._wishes.keep_session else None,
            ending=ending,
            stopped_by=self._builder.stopped_by,
        )

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Let what fails here fail this request alone."""
        try:
            yield
        except Exception as error:
            self.request._finish("error", error)
