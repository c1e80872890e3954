"""An answer being written, its reasoning told from what is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from ._arguments import as_stops
from .answer_reader import AnswerPart, AnswerReader
from .chat_format import ChatFormat
from .conversation import answer_options, end_tokens
from .generation import GenerationOptions
from .grammar import GrammarOptions, grammar_of
from .session import Session
from .speculation import SpeculationCounts
from .text_stream import FinishReason, TextStream

__all__ = ["Begun", "Reply", "ReplyPart", "new_reply"]


class ReplyPart(NamedTuple):
    """A piece of a reply."""

    kind: Literal["thinking", "answer"]
    text: str


class Reply(Iterator[str]):
    """An answer being written: an iterator over its pieces, without the reasoning.

    `parts` gives the reasoning too, `read` the whole answer at once. A reply that is left before
    its end keeps what was written so far: with `close`, or when the chat is used again.

    One that goes on with an answer gives what is new of it; `text` and `read()` are the whole.

    Attributes:
        read_before: what the session reads of the answer before any token is drawn.
    """

    def __init__(
        self,
        stream: TextStream,
        reader: AnswerReader,
        settle: Callable[[], None],
        *,
        read_before: str,
        begun: Iterable[AnswerPart],
    ):
        """`settle` is called once the reply has ended; `begun` is there of the answer already."""
        self._stream = stream
        self._reader = reader
        self._settle = settle
        self._pending: list[ReplyPart] = []
        self._pieces: dict[str, list[str]] = {"answer": [], "thinking": []}
        for part in _as_reply_parts(begun):
            self._pieces[part.kind].append(part.text)
        self._ended = False
        self.read_before = read_before

    def __repr__(self) -> str:
        how = "being written"
        if self._ended:
            how = f"finish_reason {self.finish_reason!r}" if self.finish_reason else "left early"
        return f"<Reply: {len(self.tokens)} tokens, {how}>"

    @property
    def ended(self) -> bool:
        """Whether nothing more is written: it came to its end, or was left."""
        return self._ended

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces["answer"])

    @property
    def thinking(self) -> str:
        """The reasoning so far."""
        return "".join(self._pieces["thinking"])

    @property
    def tokens(self) -> list[int]:
        """The tokens drawn so far, those of the reasoning too."""
        return self._stream.tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """As of `TextStream`; None while there may be more, and for a reply that was left."""
        return self._stream.finish_reason

    @property
    def speculation(self) -> SpeculationCounts | None:
        """What guesses have given so far, for an answer with `speculate`; else None."""
        return self._stream.speculation

    @property
    def is_cut(self) -> bool:
        """Whether it was cut by `max_tokens`; `Chat.continue_` goes on with it."""
        return self.finish_reason == "length"

    def __next__(self) -> str:
        for part in self.parts():
            if part.kind == "answer":
                return part.text
        raise StopIteration

    def parts(self) -> Iterator[ReplyPart]:
        """Write on: yield pieces of reasoning and answer, none of them empty."""
        while True:
            while self._pending:
                part = self._pending.pop(0)
                self._pieces[part.kind].append(part.text)
                yield part
            if self._ended:
                return
            text = next(self._stream, None)
            if text is None:
                self._pending += _as_reply_parts(self._reader.finish())
                self._take_pending_and_settle()
            else:
                self._pending += _as_reply_parts(self._reader.push(text))

    def read(self) -> str:
        """Write to the end, and return the answer."""
        for _ in self.parts():
            pass
        return self.text

    def close(self) -> None:
        """Leave it here: what was written so far is the answer."""
        if not self._ended:
            self.abandon()
            self._settle()

    def abandon(self) -> None:
        """End it without telling the chat, which is about to forget it."""
        self._ended = True
        self._stream.close()
        for part in self._pending:
            self._pieces[part.kind].append(part.text)
        self._pending.clear()

    def _take_pending_and_settle(self) -> None:
        """End: the chat remembers the answer before the last pieces are handed out."""
        parts, self._pending = self._pending, []
        for part in parts:
            self._pieces[part.kind].append(part.text)
        self._ended = True
        self._settle()
        for part in parts:  # they are counted again as they are handed out
            self._pieces[part.kind].pop()
        self._pending = parts


class Begun(NamedTuple):
    """What an answer begins with that is gone on with.

    Attributes:
        text: all that the session has read since the question.
        is_cut: whether a model wrote it, reasoning and all, until it was cut.
    """

    text: str
    is_cut: bool


def new_reply(
    session: Session,
    chat_format: ChatFormat,
    options_of_chat: GenerationOptions,
    options: GenerationOptions,
    settle: Callable[[], None],
    *,
    begun: Begun | None = None,
) -> Reply:
    """Return a reply that begins, when it is first asked, where the session then is.

    Raises:
        InvalidArgumentError: an option is outside its range.
    """
    own = dict[str, Any](options)
    fitting = {name: own.pop(name, None) for name in GrammarOptions.__annotations__}
    for name in ("max_tokens", "stop"):
        if own.get(name) is None:
            own.pop(name, None)
    wanted: dict[str, Any] = {
        "stop_tokens": end_tokens(session.model, session.tokenizer, chat_format),
        **chat_format.sampling,
        **options_of_chat,
        **own,
    }
    parts: list[AnswerPart] = []
    opening = "" if begun else chat_format.opening
    if begun is None:
        reader = AnswerReader(opening)
        end = answer_options(chat_format, grammar_of(**fitting), opening=opening)
    else:
        thinks = begun.is_cut and "<think" in begun.text and "</think>" not in begun.text
        if begun.is_cut:
            reader = AnswerReader(begun.text)
            parts = reader.push("")
        else:
            reader = AnswerReader(place="answer")
            parts = reader.push(begun.text.lstrip())
        end = answer_options(
            chat_format,
            grammar_of(**fitting),
            opening=begun.text * thinks,
            place="thinking" if thinks else "answer",
            begun=begun.text.rpartition("</think>")[2].lstrip(),
        )
    stop = as_stops(wanted["stop"])
    wanted.update(end)
    wanted["stop"] = [*end["stop"], *stop]
    stream = session.stream(opening, **wanted)
    read_before = opening if begun is None else begun.text
    return Reply(stream, reader, settle, read_before=read_before, begun=parts)


def _as_reply_parts(parts: Iterable[AnswerPart]) -> Iterator[ReplyPart]:
    for part in parts:
        assert part.kind == "thinking" or part.kind == "answer"  # a chat has no tools
        yield ReplyPart(part.kind, part.text)
