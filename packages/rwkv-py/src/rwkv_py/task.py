"""A text that an engine writes, as the engine sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ._arguments import Tokens, as_tokens
from .beginning import Beginning
from .generation import Plan
from .model import WantedLogits
from .probabilities import log_softmax
from .prompt import Prompt
from .reading import Reading
from .request import Request, TokenProbability
from .session import Session
from .text_stream import FinishReason

__all__ = ["Task"]


class Task:
    """A request being worked on. Only the engine's thread touches it once it has joined.

    The engine calls `start` when its turn has come, and from then on reads `piece` and calls
    `advance`, until the request is done.

    Args:
        request: what its caller sees.
        beginning: what a new sequence begins with; its cache is used.
        session: what to go on from, the task's own; None begins anew.
        prompt: what to read first.
        plan: how to write.
        keep_session: whether the request gets the session in the end.
        n_top: how many probable tokens to tell; None tells no probabilities.

    Attributes:
        request: the same.
        sequence: what reads, once it is started.
    """

    def __init__(
        self,
        request: Request,
        beginning: Beginning,
        session: Session | None,
        prompt: Prompt,
        plan: Plan,
        keep_session: bool,
        n_top: int | None,
    ):
        self.request = request
        self._beginning = beginning
        self._session = session  # None: a new one, of which a task in line has no need yet
        self._prompt = prompt
        self._builder, self._make_sampler = plan
        self._keep_session = keep_session
        self._n_top = n_top

    def start(self) -> None:
        """Get a state and a sampler, which take too much memory to have while waiting in line."""
        if self._session is None:
            self._session = Session._of(self._beginning, self._beginning.new_sequence())
        self.sequence = self._session._moving()
        self._sampler = self._make_sampler()
        self._reading: Reading | None = Reading(self.sequence, self._prompt, self._beginning.cache)
        self._drawn: Tokens | None = None  # the token to read next
        self.request._start(self._reading.n_found)
        if self._reading.piece is None:
            self._reading = None
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
    def wants(self) -> WantedLogits:
        """The logits that `advance` needs of the next step."""
        return "last" if self._reading is None or self._reading.is_last else None

    def advance(self) -> None:
        """Go on after `piece` was read."""
        if self._reading is not None:
            self._reading.advance()
            if self._reading.piece is not None:
                return
            self._reading = None
        self._draw()

    def _draw(self) -> None:
        """Draw the next token, and let the request have the text."""
        text, taken, probability = "", None, None
        logits = self.sequence.logits
        drawn = not self._builder.full
        if drawn:
            token = self._sampler.sample(logits)
            text = self._builder.push(token)
            if self._builder.finish_reason is None:
                self._sampler.accept(token)
                self._drawn = as_tokens([token])
                taken = token
                if self._n_top is not None:
                    probability = _probability(logits, token, self._n_top)
        # The last token is read only if the session is kept.
        if (
            self._builder.full
            and self._builder.finish_reason is None
            and not (drawn and self._keep_session)
        ):
            text += self._builder.end("length")
        if drawn:
            self.request._deliver(text, taken, probability)
        if self._builder.finish_reason is not None:
            self._finish(self._builder.finish_reason)

    def _finish(self, reason: FinishReason) -> None:
        if self._beginning.cache is not None:
            self._beginning.cache._keep_end(self.sequence)
        self.request._finish(reason, session=self._session if self._keep_session else None)

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Let what fails here fail this request alone."""
        try:
            yield
        except Exception as error:
            self.request._finish("error", error)


def _probability(logits: NDArray[np.float32], token: int, n_top: int) -> TokenProbability:
    log_p = log_softmax(logits)
    top = np.argsort(-log_p, kind="stable")[:n_top]
    return TokenProbability(
        token, float(log_p[token]), tuple((int(each), float(log_p[each])) for each in top)
    )
