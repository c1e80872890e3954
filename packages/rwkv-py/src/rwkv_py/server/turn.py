"""A conversation to go on with, whatever protocol it came by, and the answer being written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, cast

from ..answer_reader import AnswerPart, AnswerReader
from ..chat_format import Message
from ..conversation import Written, end_tokens, write_conversation, write_history
from ..generation import GenerationOptions
from ..grammar import GrammarOptions
from ..probabilities import TokenProbability
from ..session import Session
from ..state_folder import StateFolder
from ..tools import Tool
from .context import Context
from .errors import api_error
from .fields import seed_of, stops_of
from .keys import Asker
from .models import Served
from .stored_responses import Ending
from .writing import Ask, Writing, begin_writing

__all__ = [
    "Answer",
    "AnswerPiece",
    "Effort",
    "Turn",
    "begin_answer",
    "count_prompt_tokens",
]

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh"]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A conversation to go on with.

    Attributes:
        messages: what was said.
        tools: what may be called.
        tool_choice: "auto", "none", "required" or the name of a tool.
        parallel_tool_calls: whether several calls may be made at once.
        effort: how much to reason; None: as the format has it.
        fits: what the answer must fit.
        options: how to write, without the seed; `stop` are the client's own.
        state: where to begin; None begins anew.
        n: how many answers.
        seed: of the first; the next has the next.
        logprobs: how many probable tokens to tell with each; None tells nothing.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    effort: Effort | None = None
    fits: GrammarOptions = field(default_factory=lambda: GrammarOptions())
    options: GenerationOptions = field(default_factory=lambda: GenerationOptions())
    state: str | None = None
    n: int = 1
    seed: int | None = None
    logprobs: int | None = None

    def written(self, served: Served, after: str | None) -> tuple[Written, GenerationOptions]:
        """Return the conversation as the model reads it, and the options that its format has.

        Args:
            served: the model.
            after: `Written.told` of what was read before, if anything was.
        """
        chat_format = served.chat_format.with_effort(self.effort)
        written = write_conversation(
            chat_format,
            self.messages,
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            after=after,
            **self.fits,
        )
        options: GenerationOptions = {
            "stop_tokens": end_tokens(served.model, served.tokenizer, chat_format),
            **cast(GenerationOptions, chat_format.sampling),
        }
        return written, options

    def history(
        self, served: Served, after: str | None, written: Written, reader: AnswerReader, text: str
    ) -> tuple[str, str]:
        """Return the conversation with its answer, as `write_history` does.

        Args:
            served: the model.
            after: as for `written`.
            written: what that returned.
            reader: what read the answer.
            text: what was said in it.
        """
        messages = self.messages
        if written.place != "begin":  # the answer goes on with the last message
            last, messages = messages[-1], messages[:-1]
            text = last.content + text if written.place == "answer" else text
        answer = Message(role="assistant", content=text, tool_calls=tuple(reader.calls))
        return write_history(
            served.chat_format.with_effort(self.effort),
            [*messages, answer],
            tools=self.tools,
            tool_choice=self.tool_choice,
            after=after,
        )


class AnswerPiece(NamedTuple):
    """Something that has become certain of an answer.

    Attributes:
        number: of which answer.
        parts: what; none where only the end, or tokens, are told.
        logprobs: how probable the tokens since the last piece were.
        ended: why the answer ended with it, if it did.
    """

    number: int
    parts: list[AnswerPart]
    logprobs: list[TokenProbability]
    ended: FinishReason | None


class Answer:
    """Answers being written; `close` it, whatever happens.

    Args:
        writing: the texts that they are taken from.
        turn: what was asked.
        written: how that was written.
        after: `Written.told` of what was read before, if anything was.
        stops: the client's own.

    Attributes:
        writing: the same.
    """

    def __init__(
        self, writing: Writing, turn: Turn, written: Written, after: str | None, stops: list[str]
    ):
        self.writing = writing
        self._turn = turn
        self._written = written
        self._after = after
        self._readers = [written.reader() for _ in writing.requests]
        self._said = [""] * len(self._readers)
        self._stops = {stop.encode("utf-8", "replace"): stop for stop in stops}

    @property
    def served(self) -> Served:
        """The model that writes."""
        return self.writing.lease.served

    def close(self) -> None:
        """End what is not ended; a second time is no error."""
        self.writing.close()

    async def pieces(self) -> AsyncIterator[AnswerPiece]:
        """Return all pieces of all answers, as they come.

        Raises:
            ApiError: writing has failed.
        """
        async for piece in self.writing.pieces():
            reader = self._readers[piece.number]
            parts = reader.push(piece.text) if piece.text else []
            if piece.ended:
                parts += reader.finish()
            self._said[piece.number] += "".join(p.text for p in parts if p.kind == "answer")
            if not piece.ended:
                if parts or piece.logprobs:
                    yield AnswerPiece(piece.number, parts, piece.logprobs, None)
                continue
            ended = self.writing.finish_reason(piece.number)
            if reader.calls and ended == "stop":
                ended = "tool_calls"
            yield AnswerPiece(piece.number, parts, piece.logprobs, cast(FinishReason, ended))

    def ending(self) -> Ending:
        """Return what the model has read of each answer, when all have ended."""
        served, read, told = self.served, [], ""
        for reader, text in zip(self._readers, self._said, strict=True):
            history, told = self._turn.history(served, self._after, self._written, reader, text)
            read.append((history,))
        whose = StateFolder.model_name(served.model)
        return Ending(served.name, whose, self._turn.state, told, tuple(read))

    def stopped_by(self, index: int = 0) -> str | None:
        """Return the client's stop string that ended an answer, if one of them did."""
        stopped_by = self.writing.requests[index].stopped_by
        return None if stopped_by is None else self._stops.get(stopped_by)


async def begin_answer(
    turn: Turn,
    model: str | None,
    context: Context,
    asker: Asker,
    names: Mapping[str, str],
) -> Answer:
    """Ask a model to go on with a conversation.

    Args:
        turn: the conversation.
        model: what the client calls the model.
        context: of the server.
        asker: whose request it is.
        names: what the protocol calls our arguments.

    Raises:
        ApiError: something about it is refused.
    """
    lease = await context.models.lease(model)
    try:
        after, session = await _before(turn, context, asker, lease.served)
        written, options = turn.written(lease.served, after)
    except BaseException as error:
        lease.release()
        if isinstance(error, Exception):
            raise api_error(error, names) from error
        raise
    stops = stops_of(cast("list[str]", turn.options.get("stop")))
    options.update(cast(GenerationOptions, context.settings.sampling))
    options.update(turn.options)
    options.update(written.options)
    options["stop"] = [*written.options["stop"], *stops]
    asks = [
        Ask(
            prompt="".join(written.parts),
            opening=written.opening,
            session=session,
            options={**options, "seed": seed_of(turn.seed, i)},
            logprobs=turn.logprobs,
        )
        for i in range(turn.n)
    ]
    writing = await begin_writing(
        lease, asks, context.settings, context.metrics, asker.share, names
    )
    return Answer(writing, turn, written, after, stops)


async def _before(
    turn: Turn, context: Context, asker: Asker, served: Served
) -> tuple[str | None, Session | None]:
    """Return what was told of tools before a conversation, and the session that read it."""
    if turn.state is None:
        return None, None
    state = await context.states.find(turn.state, asker.owner)
    return state.notes["told"] or "", await context.states.session(state, served)


async def count_prompt_tokens(
    turn: Turn, model: str | None, context: Context, asker: Asker, names: Mapping[str, str]
) -> int:
    """Return how many tokens a conversation has, after the state that it begins at."""
    lease = await context.models.lease(model)
    try:
        after = None
        if turn.state is not None:
            state = await context.states.find(turn.state, asker.owner)
            context.states.check(state, lease.served)
            after = state.notes["told"] or ""
        written, _ = turn.written(lease.served, after)
        encode = lease.served.tokenizer.encode
        return len(encode("".join(written.parts))) + len(encode(written.opening))
    except Exception as error:
        raise api_error(error, names) from error
    finally:
        lease.release()
