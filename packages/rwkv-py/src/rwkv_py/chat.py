"""A conversation with a model: turns are read once, and can be taken back."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, Unpack

from ._arguments import StrPath, as_count, as_stops
from .chat_format import ChatFormat
from .errors import InvalidArgumentError, StateFileError, StateMismatchError
from .model import Model
from .sampling import SamplingOptions
from .session import Session
from .text_stream import FinishReason, TextStream
from .time_state import TimeState

__all__ = ["Chat", "Message", "Reply", "ReplyPart"]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that was said.

    Attributes:
        role: who said it.
        content: what.
        thinking: what the assistant reasoned before; the model does not remember it.
        input: what an instruction is about, if the format has that.
    """

    role: Role
    content: str
    thinking: str = ""
    input: str | None = None


class ReplyPart(NamedTuple):
    """A piece of a reply."""

    kind: Literal["thinking", "answer"]
    text: str


class Reply(Iterator[str]):
    """An answer being written: an iterator over its pieces, without the reasoning.

    `parts` gives the reasoning too, `read` the whole answer at once. A reply that is left before
    its end keeps what was written so far: with `close`, or when the chat is used again.
    """

    def __init__(self, stream: TextStream, opening: str, settle: Callable[[], None]):
        """`settle` is called once the reply has ended."""
        self._stream = stream
        self._splitter = _Splitter(opening)
        self._settle = settle
        self._pending: list[ReplyPart] = []
        self._pieces: dict[str, list[str]] = {"answer": [], "thinking": []}
        self._ended = False
        self._whole = False  # ended by the stream, not left

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
                self._pending += self._splitter.finish()
                self._take_pending_and_settle()
            else:
                self._pending += self._splitter.push(text)

    def read(self) -> str:
        """Write to the end, and return the answer."""
        for _ in self.parts():
            pass
        return self.text

    def close(self) -> None:
        """Leave it here: what was written so far is the answer."""
        if not self._ended:
            self._ended = True
            self._stream.close()
            for part in self._pending:
                self._pieces[part.kind].append(part.text)
            self._pending.clear()
            self._settle()

    def _take_pending_and_settle(self) -> None:
        """End: the chat remembers the answer before the last pieces are handed out."""
        parts, self._pending = self._pending, []
        for part in parts:
            self._pieces[part.kind].append(part.text)
        self._ended = self._whole = True
        self._settle()
        for part in parts:  # they are counted again as they are handed out
            self._pieces[part.kind].pop()
        self._pending = parts


class Chat:
    r"""A conversation over a session, in the format that the model was trained on.

    The state of the session is all that the model remembers, so a turn costs what it is long,
    however long the conversation. Reasoning is not remembered. The last `undo_turns` turns can be
    taken back, changed or answered again without reading anything twice: the chat keeps the states
    before each and after its user's text, `2 * undo_turns + 1` states in all. Text is kept of all.

    Used by one thread at a time; the session is the chat's until it is done.

    Args:
        session: a `Session`, or what `Session` makes one of. What it has read comes before.
        format: a `ChatFormat`, or the name of one: "world", "g1", "g1-think", "g1-fast-think",
            "instruct", "raven" or "raven-chat"; see `rwkv_py.chat_format.CHAT_FORMATS`.
        system: a system prompt. Empty lines in it, and in what the user says, are left out: they
            end a turn.
        max_tokens: how long a reply is at most, reasoning included.
        stop: strings that end a reply and are left out of it, besides those of the format.
        undo_turns: how many turns can be taken back, 1 or more.
        time_state: as for `Session`; only where `session` is not one.
        **sampling: options of `Sampler` for all replies, over those of the format.

    Raises:
        InvalidArgumentError: there is no such format, or an option is outside its range.
        NoTokenizerError: the session has no tokenizer.

    >>> chat = Chat("model.bin", system="You explain Python.", max_tokens=30, seed=1)
    >>> answer = chat.ask("What does json.loads do?")
    >>> for piece in chat.stream("And json.dumps?"):
    ...     print(end=piece and "")
    >>> [message.role for message in chat.messages]
    ['system', 'user', 'assistant', 'user', 'assistant']
    >>> chat.retry().read() == chat.messages[-1].content
    True
    >>> chat.undo()
    >>> len(chat.messages)
    3
    """

    def __init__(
        self,
        session: Session | Model | StrPath,
        *,
        format: ChatFormat | str = "world",
        system: str | None = None,
        max_tokens: int = 1024,
        stop: str | bytes | Iterable[str | bytes] = (),
        undo_turns: int = 8,
        time_state: TimeState | None = None,
        **sampling: Unpack[SamplingOptions],
    ):
        undo_turns = as_count("undo_turns", undo_turns, at_least=1)
        if not isinstance(session, Session):
            session = Session(session, time_state=time_state)
        elif time_state is not None:
            raise InvalidArgumentError(
                "time_state: expected with a model only, got a Session, which has its own. Try "
                "giving it to Session()."
            )
        self._session = session
        self._format = ChatFormat.named(format) if isinstance(format, str) else format
        self._max_tokens = max_tokens
        self._stop = as_stops(stop)
        self._undo_turns = undo_turns
        self._sampling = sampling
        self._system = system or ""
        self._turns: list[_Turn] = []
        self._reply: Reply | None = None  # until it is settled
        self.check()
        if self._system:
            self._session.feed(self._format.write_system(self._system))
        self._start = self._session.fork()

    @property
    def session(self) -> Session:
        """The session; what it reads besides, the chat does not know of."""
        return self._session

    @property
    def format(self) -> ChatFormat:
        """The format."""
        return self._format

    @property
    def messages(self) -> list[Message]:
        """What was said, the system prompt first."""
        said = [Message(role="system", content=self._system)] if self._system else []
        for turn in self._turns:
            said.append(Message(role="user", content=turn.user, input=turn.input))
            said.append(Message(role="assistant", content=turn.answer, thinking=turn.thinking))
        return said

    def ask(
        self,
        text: str,
        *,
        input: str | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Iterable[str | bytes] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Say something, and return the answer. The arguments are those of `stream`."""
        reply = self.stream(text, input=input, max_tokens=max_tokens, stop=stop, **sampling)
        return reply.read()

    def stream(
        self,
        text: str,
        *,
        input: str | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Iterable[str | bytes] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Reply:
        """Say something: let the model read it, and return its answer, to be written.

        Args:
            text: what the user says.
            input: what an instruction is about, if the format has that.
            max_tokens: as for the chat; None: the chat's.
            stop: the same.
            **sampling: options of `Sampler` for this reply, over those of the chat.

        Raises:
            InvalidArgumentError: there is nothing to say, or an option is outside its range.
            KeyboardInterrupt: as ever. After any exception the chat is as it was before.
        """
        self._settle()
        written = self._format.write_user(text, input)
        reply = self._write(max_tokens, stop, sampling)
        before = self._session.fork()
        self._session.feed(written)
        try:
            asked = self._session.fork()
        except BaseException:
            self._session.copy_from(before)
            raise
        self._turns.append(_Turn(text, input, before, asked))
        for turn in self._turns[-self._undo_turns - 1 : -self._undo_turns]:
            turn.before = turn.asked = None
        self._reply = reply
        return reply

    def retry(
        self,
        *,
        max_tokens: int | None = None,
        stop: str | bytes | Iterable[str | bytes] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Reply:
        """Forget the last answer, and return another, to be written.

        With a `seed` that was given before, the other is the same.

        Raises:
            InvalidArgumentError: nothing was said yet, or an option is outside its range.
        """
        self._settle()
        turn = self._last(1)
        reply = self._write(max_tokens, stop, sampling)
        if turn.asked is None:  # of a chat that was loaded
            self._session.copy_from(self._state_before(turn))
            self._session.feed(self._format.write_user(turn.user, turn.input))
            turn.asked = self._session.fork()
        else:
            self._session.copy_from(turn.asked)
        turn.answer = turn.thinking = ""
        self._reply = reply
        return reply

    def edit(
        self,
        text: str,
        *,
        input: str | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Iterable[str | bytes] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Reply:
        """Say something else in place of what was said last. The arguments are those of `stream`.

        Raises:
            InvalidArgumentError: nothing was said yet; and as `stream`. After any exception the
                chat is as it was before.
        """
        self._settle()
        turn = self._last(1)
        now = self._session.fork()
        self._session.copy_from(self._state_before(turn))
        self._turns.pop()
        try:
            return self.stream(text, input=input, max_tokens=max_tokens, stop=stop, **sampling)
        except BaseException:
            self._session.copy_from(now)
            self._turns.append(turn)
            raise

    def check(
        self,
        *,
        max_tokens: int | None = None,
        stop: str | bytes | Iterable[str | bytes] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> None:
        """Check options of `stream` without saying anything.

        Raises:
            InvalidArgumentError: an option is outside its range.
        """
        self._write(max_tokens, stop, sampling)

    def undo(self, turns: int = 1) -> None:
        """Take back the last turns: what the user said, and the answer.

        Raises:
            InvalidArgumentError: there are not so many, or they are more than `undo_turns` back.
        """
        turns = as_count("turns", turns, at_least=1)
        self._settle()
        self._session.copy_from(self._state_before(self._last(turns)))
        del self._turns[-turns:]

    def reset(self) -> None:
        """Begin anew, after the system prompt."""
        if self._reply is not None:
            self._reply._stream.close()
            self._reply = None
        self._session.copy_from(self._start)
        self._turns.clear()

    def save(self, path: StrPath, *, dtype: Literal["fp32", "fp16"] = "fp32") -> None:
        """Write the chat to a file: what was said, and the states to go on from.

        It is a zip archive of `chat.json` and three state files: at the start, before the last
        turn, and now. It appears under its name when it is complete.

        Args:
            path: the file to write.
            dtype: as for `Session.save_state`.

        Raises:
            StateFileError: the file cannot be written.
        """
        self._settle()
        path = Path(path)
        states = {"start": self._start, "now": self._session}
        if self._turns and self._turns[-1].before is not None:
            states["before"] = self._turns[-1].before
        messages = [vars(message) for message in self.messages]
        said = {"rwkv_chat": 1, "format": self._format.name, "messages": messages}
        try:
            with tempfile.TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
                complete = Path(folder, "chat.zip")
                with zipfile.ZipFile(complete, "w") as archive:
                    archive.writestr("chat.json", json.dumps(said, indent=1, ensure_ascii=False))
                    for name, session in states.items():
                        file = Path(folder, f"{name}.state")
                        session.save_state(file, dtype=dtype)
                        archive.write(file, file.name)
                os.replace(complete, path)
        except OSError as error:
            raise StateFileError(
                f"{path}: cannot be written: {error.strerror or error}. Try another folder."
            ) from None

    def load(self, path: StrPath) -> None:
        """Go on with a chat that was saved, in place of this one.

        The last turn can be taken back or answered again.

        Raises:
            StateFileError: the file cannot be read, or is not a chat, or a damaged one.
            StateMismatchError: it was held with another model. After any exception the chat is as
                it was before.
        """
        self._settle()
        try:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
                said = json.loads(archive.read("chat.json"))
                chat_format, system, turns = self._understand(said)
                states = {}
                for name in ("start", "now", "before"):
                    if name == "before" and "before.state" not in archive.namelist():
                        continue
                    file = archive.extract(f"{name}.state", folder)
                    states[name] = self._session.fork()
                    try:
                        states[name].load_state(file)
                    except (StateFileError, StateMismatchError) as error:
                        complaint = str(error).removeprefix(f"{file}: ")
                        raise type(error)(f"{path}: {name}.state: {complaint}") from None
        except OSError as error:
            raise StateFileError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
            if isinstance(error, StateMismatchError):
                raise
            raise StateFileError(
                f"{path}: expected a chat that was saved, got: {error}. Save it again."
            ) from None
        if turns and "before" in states:
            turns[-1].before = states["before"]
        self._format, self._system, self._turns = chat_format, system, turns
        self._start = states["start"]
        self._session.copy_from(states["now"])

    def _understand(self, said: Any) -> tuple[ChatFormat, str, list[_Turn]]:
        """Take a `chat.json` apart, or raise ValueError, KeyError or TypeError."""
        if said["rwkv_chat"] != 1:
            raise ValueError(f"version {said['rwkv_chat']}, expected 1")
        same = said["format"] == self._format.name
        chat_format = self._format if same else ChatFormat.named(str(said["format"]))
        messages = [Message(**message) for message in said["messages"]]
        if not all(isinstance(message.content, str) for message in messages):
            raise TypeError("a message that is no text")
        system = messages.pop(0).content if messages and messages[0].role == "system" else ""
        roles = [message.role for message in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError("messages that are not of user and assistant in turn")
        turns = [
            _Turn(user.content, user.input, None, None, answer.content, answer.thinking)
            for user, answer in zip(messages[::2], messages[1::2], strict=True)
        ]
        return chat_format, system, turns

    def _write(
        self,
        max_tokens: int | None,
        stop: str | bytes | Iterable[str | bytes] | None,
        sampling: SamplingOptions,
    ) -> Reply:
        """Make a reply that begins, when it is first asked, where the session then is."""
        options: SamplingOptions = {**self._format.sampling, **self._sampling, **sampling}
        stream = self._session.stream(
            self._format.opening,
            max_tokens=self._max_tokens if max_tokens is None else max_tokens,
            stop=(*self._format.stop, *(self._stop if stop is None else as_stops(stop))),
            **options,
        )
        return Reply(stream, self._format.opening, self._settle)

    def _settle(self) -> None:
        """Let the session have read the last answer as it stands in the history.

        What was drawn is kept where it is that already. Where it is not (reasoning, spaces, half a
        stop string, an interrupted step), the answer is read once more, from before it.
        """
        reply = self._reply
        if reply is None:
            return
        if not reply._ended:
            reply.close()  # comes back here
            return
        turn = self._turns[-1]
        turn.answer, turn.thinking = reply.text, reply.thinking
        written = self._format.write_answer(turn.answer).encode()
        drawn = self._session.tokenizer.decode_bytes(reply.tokens)
        if reply._whole and not self._format.opening and written.startswith(drawn):
            reply._whole = False  # if reading on is interrupted, begin at the question
            rest = written[len(drawn) :]
        else:
            assert turn.asked is not None
            self._session.copy_from(turn.asked)
            rest = written
        if rest:
            self._session.feed(rest)
        self._reply = None

    def _last(self, turns: int) -> _Turn:
        if not self._turns:
            raise InvalidArgumentError("turns: expected one to go back to, got none so far")
        if len(self._turns) < turns:
            raise InvalidArgumentError(
                f"turns: expected {turns} to take back, got {len(self._turns)} so far"
            )
        return self._turns[-turns]

    def _state_before(self, turn: _Turn) -> Session:
        if turn.before is None:
            raise InvalidArgumentError(
                f"turns: expected one of the last {self._undo_turns}, or the last of a chat that "
                "was loaded: older states are not kept. Try Chat(..., undo_turns=) with more"
            )
        return turn.before


@dataclass
class _Turn:
    user: str
    input: str | None
    before: Session | None  # the session before the user's text
    asked: Session | None  # and after it
    answer: str = ""
    thinking: str = ""


class _Splitter:
    """Tells reasoning from answer, `<think>...</think>` at the beginning, as text comes."""

    _BEGIN, _END = "<think>", "</think>"

    def __init__(self, opening: str):
        self._opening = opening
        self._held = opening
        self._place: Literal["begin", "thinking", "answer"] = "begin"
        self._trimmers = {"thinking": _Trimmer(), "answer": _Trimmer()}

    def push(self, text: str) -> list[ReplyPart]:
        parts: list[ReplyPart] = []
        text, self._held = self._held + text, ""
        if self._place == "begin":
            begin = text.lstrip()
            if len(begin) < len(self._BEGIN) and self._BEGIN.startswith(begin):
                self._held = text
                return []
            if begin.startswith(self._BEGIN):
                self._place = "thinking"
                text = begin.removeprefix(self._BEGIN)
            else:
                self._place = "answer"
        if self._place == "thinking":
            thought, found, text = text.partition(self._END)
            if found:
                self._place = "answer"
            else:
                lengths = range(len(self._END) - 1, 0, -1)
                n_held = next((n for n in lengths if thought.endswith(self._END[:n])), 0)
                self._held = thought[len(thought) - n_held :]
                thought = thought[: len(thought) - n_held]
            self._add(parts, "thinking", thought)
        if self._place == "answer":
            self._add(parts, "answer", text)
        return parts

    def finish(self) -> list[ReplyPart]:
        """Return what was held back: nothing more will come."""
        parts: list[ReplyPart] = []
        if self._held != self._opening:  # of which alone no answer is made
            self._add(parts, "answer" if self._place == "begin" else "thinking", self._held)
        return parts

    def _add(self, parts: list[ReplyPart], kind: Literal["thinking", "answer"], text: str) -> None:
        if trimmed := self._trimmers[kind].push(text):
            parts.append(ReplyPart(kind, trimmed))


class _Trimmer:
    """Strips white space from the ends of a text that comes in pieces."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        self._begun = self._begun or bool(kept)
        return kept
