"""The turns of a chat: what the user says, and the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._arguments import as_iterable, as_text
from .chat_format import ChatFormat, Message
from .errors import InvalidArgumentError
from .session import Session

__all__ = ["Cut", "Turn", "text_of", "turns_of"]


class Cut(NamedTuple):
    """Where an answer was cut.

    Attributes:
        session: as it was then.
        text: what it has read and written since the question.
    """

    session: Session
    text: str


@dataclass
class Turn:
    """A turn.

    Attributes:
        user: what the user said.
        input: what an instruction is about.
        before: the session before the user's text; None if it is not kept.
        asked: and after it.
        answer: the answer.
        thinking: the reasoning before it.
        is_answered: whether there is an answer.
        cut: where the answer was cut, for the last turn.
    """

    user: str
    input: str | None
    before: Session | None = None
    asked: Session | None = None
    answer: str = ""
    thinking: str = ""
    is_answered: bool = True
    cut: Cut | None = None


def text_of(turns: Iterable[Turn], chat_format: ChatFormat) -> str:
    """Return what a model reads of turns."""
    return "".join(
        chat_format.write_user(turn.user, turn.input) + chat_format.write_answer(turn.answer)
        for turn in turns
    )


def turns_of(
    messages: Iterable[Message | Mapping[str, Any]], chat_format: ChatFormat
) -> tuple[str, list[Turn]]:
    """Return the system prompt and the turns in messages.

    Raises:
        InvalidArgumentError: they are not of user and assistant in turn, after a system prompt if
            there is one; or the format cannot write what the user said.
    """
    said = [_message(i, each) for i, each in enumerate(as_iterable("messages", messages))]
    system = said[0].content if said and said[0].role == "system" else ""
    turns: list[Turn] = []
    for i, message in enumerate(said):
        if i == 0 and message.role == "system":
            continue
        expected = "assistant" if turns and not turns[-1].is_answered else "user"
        if message.role != expected:
            raise InvalidArgumentError(
                f"messages[{i}].role: expected {expected}, got {message.role}"
            )
        if expected == "user":
            chat_format.write_user(message.content, message.input)
            turns.append(Turn(message.content, message.input, is_answered=False))
        else:
            turn = turns[-1]
            turn.answer, turn.thinking = message.content.strip(), message.thinking
            turn.is_answered = True
    return system, turns


def _message(number: int, given: Message | Mapping[str, Any]) -> Message:
    where = f"messages[{number}]"
    if isinstance(given, Mapping):
        unknown = given.keys() - {"role", "content", "thinking", "input"}
        if unknown or not {"role", "content"} <= given.keys():
            raise InvalidArgumentError(
                f"{where}: expected role and content, and perhaps thinking and input, got "
                f"{', '.join(sorted(map(str, given))) or 'nothing'}"
            )
        given = Message(**given)
    if not isinstance(given, Message):
        raise InvalidArgumentError(
            f"{where}: expected a Message or a dict, got {type(given).__name__}: {given!r:.60}"
        )
    for name in ("content", "thinking", "input"):
        if (text := getattr(given, name)) is not None or name != "input":
            as_text(f"{where}.{name}", text)
    return given
