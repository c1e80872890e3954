"""A conversation with a model: turns are read once, and can be taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Unpack, cast

from ._arguments import StrPath, as_count, as_integer, as_stops, as_text
from ._options import takes_options_of
from .chat_file import SavedChat, read_chat, write_chat
from .chat_format import ChatFormat, Message
from .chat_reply import Begun, Reply, ReplyPart, new_reply
from .chat_template import format_for
from .chat_turns import Cut, Turn, text_of, turns_of
from .errors import InvalidArgumentError, StateFileError
from .generation import GenerationOptions
from .grammar import fit_of
from .guessers import guessers_of
from .model import Model
from .sampling import Sampler, SamplingOptions
from .session import Session
from .text_stream import TextBuilder
from .time_state import TimeState

__all__ = ["Chat", "Message", "Reply", "ReplyPart"]

_takes_reply_options = takes_options_of(
    TextBuilder, fit_of, guessers_of, Sampler, default="the chat's"
)


class Chat:
    r"""A conversation over a session, in the format that the model was trained on.

    The state of the session is all that the model remembers, so a turn costs what it is long,
    however long the conversation. Reasoning is not remembered. Any turn can be taken back or
    changed; of the last `undo_turns` without reading anything twice: the chat keeps the states
    before each and after its user's text, `2 * undo_turns + 1` states in all. Text is kept of all.

    Used by one thread at a time; the session is the chat's until it is done.

    Args:
        session: a `Session`, or what `Session` makes one of. What it has read comes before.
        format: a `ChatFormat`, or the name of one: "world", "g1", "g1-think", "g1-fast-think",
            "instruct", "raven" or "raven-chat"; see `rwkv_py.chat_format.CHAT_FORMATS`. None: what
            the model file says, as GGUF files do; "world" if it says nothing. Its chat template is
            run once, with limits (for one that llama.cpp does not write for World models,
            `pip install rwkv-py[templates]`).
        system: a system prompt. Empty lines in it, and in what the user says, are left out: they
            end a turn.
        messages: what was said so far: perhaps a system prompt, then user and assistant in turn, as
            `Message` or as dicts with role and content. If a question is the last, `continue_`
            answers it. Not with `system`.
        max_tokens: how long a reply is at most, reasoning included.
        stop: strings that end a reply and are left out of it, besides those of the format.
        undo_turns: of how many turns states are kept, 1 or more.
        time_state: as for `Session`; only where `session` is not one.
        **sampling: options of `Sampler` for all replies, over those of the format.

    Raises:
        InvalidArgumentError: there is no such format, the file's chat template is none that we can
            use, messages do not take turns, or an option is outside its range.
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

    @takes_options_of(Sampler, default="the format's")
    def __init__(
        self,
        session: Session | Model | StrPath,
        *,
        format: ChatFormat | str | None = None,
        system: str | None = None,
        messages: Iterable[Message | Mapping[str, Any]] | None = None,
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
                "time_state: expected with a model only, got a Session, which has its own",
                remedy="Try giving it to Session()",
            )
        self._session = session
        self._format = format_for(format, session.model)
        self._options: GenerationOptions = {"max_tokens": max_tokens, "stop": as_stops(stop)}
        self._options.update(cast(GenerationOptions, sampling))
        self._undo_turns = undo_turns
        self._system = "" if system is None else as_text("system", system)
        self._turns: list[Turn] = []
        if messages is not None:
            if system is not None:
                raise InvalidArgumentError(
                    "system: expected none with messages, got one",
                    remedy="Try it as the first of the messages",
                )
            self._system, self._turns = turns_of(messages, self._format)
        self._reply: Reply | None = None  # until it is settled
        self._reply_is_read = False  # what was drawn of it is the last that the session read
        self.check()
        if beginning := self._format.write_system(self._system):
            self._session.feed(beginning)
        self._start = self._session.fork()
        self._read_turns()

    def __repr__(self) -> str:
        turns = f"{len(self._turns)} turn{'' if len(self._turns) == 1 else 's'}"
        return f"<Chat in the format {self._format.name}, {turns}: {self._session!r}>"

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
            if turn.is_answered:
                said.append(Message(role="assistant", content=turn.answer, thinking=turn.thinking))
        return said

    @_takes_reply_options
    def ask(
        self, text: str, *, input: str | None = None, **options: Unpack[GenerationOptions]
    ) -> str:
        """Say something, and return the answer. The arguments are those of `stream`."""
        return self.stream(text, input=input, **options).read()

    @_takes_reply_options
    def stream(
        self, text: str, *, input: str | None = None, **options: Unpack[GenerationOptions]
    ) -> Reply:
        """Say something: let the model read it, and return its answer, to be written.

        Args:
            text: what the user says.
            input: what an instruction is about, if the format has that.
            **options: max_tokens, stop, stop_tokens, and the keyword arguments of `Sampler`: for
                this reply, in place of those of the chat; and json_schema, regex or grammar, which
                the answer must fit, without the reasoning before it.

        Raises:
            InvalidArgumentError: there is nothing to say, or an option is outside its range.
            KeyboardInterrupt: as ever. After any exception the chat is as it was before.
        """
        self._settle()
        written = self._format.write_user(text, input)
        reply = self._write(options)
        before = self._session.fork()
        last = self._turns[-1] if self._turns else None
        if last is not None and not last.is_answered:
            written = self._format.write_answer("") + written
        self._session.feed(written)
        try:
            asked = self._session.fork()
        except BaseException:
            self._session.copy_from(before)
            raise
        if last is not None:
            last.is_answered, last.cut = True, None
        self._turns.append(Turn(text, input, before, asked))
        for turn in self._turns[-self._undo_turns - 1 : -self._undo_turns]:
            turn.before = turn.asked = None
        self._await(reply)
        return reply

    @_takes_reply_options
    def retry(self, **options: Unpack[GenerationOptions]) -> Reply:
        """Forget the last answer, and return another, to be written.

        With a `seed` that was given before, the other is the same. The options are those of
        `stream`.

        Raises:
            InvalidArgumentError: nothing was said yet, or an option is outside its range. After
                any exception the chat is as it was before.
        """
        self._settle()
        turn = self._last(1)
        reply = self._write(options)
        self._session.copy_from(self._state_asked(turn))
        turn.answer, turn.thinking, turn.is_answered, turn.cut = "", "", True, None
        self._await(reply)
        return reply

    @_takes_reply_options
    def continue_(self, text: str | None = None, **options: Unpack[GenerationOptions]) -> Reply:
        """Go on with the last answer, one that was cut or any other, and return it.

        The reply gives what is new; its `text` is the whole answer. A question that has no answer
        yet is answered.

        Args:
            text: what the answer begins with, in place of what it was.
            **options: those of `stream`. Penalties begin anew. With json_schema, regex or grammar
                what is there must be the beginning of what fits.

        Raises:
            InvalidArgumentError: nothing was said yet, or an option is outside its range. After
                any exception the chat is as it was before.

        >>> chat = Chat("model.bin", seed=1)
        >>> first = chat.ask("What is a list?", max_tokens=4)
        >>> whole = chat.continue_(max_tokens=8).read()
        >>> whole.startswith(first)
        True
        """
        self._settle()
        turn = self._last(1)
        begun = turn.answer if text is None else as_text("text", text).strip()
        if text is None and turn.cut is not None:
            reply = self._write(options, Begun(turn.cut.text, is_cut=True))
            self._session.copy_from(turn.cut.session)
        elif not begun:
            return self.retry(**options)
        else:
            read = self._format.lead + begun
            reply = self._write(options, Begun(read, is_cut=False))
            there = self._state_asked(turn).fork()
            there.feed(read)
            self._session.copy_from(there)
        self._await(reply)
        return reply

    @_takes_reply_options
    def edit(
        self,
        text: str,
        *,
        turn: int = -1,
        input: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Reply:
        """Say something else in place of what was said; what came after it is forgotten.

        Args:
            text: what the user says.
            turn: in which turn: 0 is the first, -1 the last.
            input: as for `stream`.
            **options: those of `stream`.

        Raises:
            InvalidArgumentError: there is no such turn; and as `stream`. After any exception the
                chat is as it was before.
        """
        self._settle()
        place = as_integer("turn", turn)
        n_turns = len(self._turns)
        self._last(1)
        if not -n_turns <= place < n_turns:
            raise InvalidArgumentError(f"turn: expected {-n_turns} to {n_turns - 1}, got {place}")
        place %= n_turns
        self._format.write_user(text, input)  # raises before anything is read
        before = self._state_before(place)
        now, turns = self._session.fork(), self._turns
        self._session.copy_from(before)
        self._turns = turns[:place]
        try:
            return self.stream(text, input=input, **options)
        except BaseException:
            self._session.copy_from(now)
            self._turns = turns
            raise

    @_takes_reply_options
    def check(self, **options: Unpack[GenerationOptions]) -> None:
        """Check options of `stream` without saying anything.

        Raises:
            InvalidArgumentError: an option is outside its range.
        """
        self._write(options)

    def undo(self, turns: int = 1) -> None:
        """Take back the last turns: what the user said, and the answer.

        Raises:
            InvalidArgumentError: there are not so many.
        """
        turns = as_count("turns", turns, at_least=1)
        self._settle()
        self._last(turns)
        self._session.copy_from(self._state_before(len(self._turns) - turns))
        del self._turns[-turns:]

    def reset(self) -> None:
        """Begin anew, after the system prompt."""
        if self._reply is not None:
            self._reply.abandon()
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
        states = {"start": self._start, "now": self._session}
        if self._turns and self._turns[-1].before is not None:
            states["before"] = self._turns[-1].before
        saved = SavedChat(format=self._format.name, messages=self.messages, states=states)
        write_chat(path, saved, dtype=dtype)

    def load(self, path: StrPath) -> None:
        """Go on with a chat that was saved, in place of this one.

        The last turn can be taken back or answered again. A chat in a format of one's own is loaded
        by one that has a format of that name. The file may come from anywhere: what it can do is to
        be refused.

        Raises:
            StateFileError: the file cannot be read, or is not a chat, or a damaged one.
            StateMismatchError: it was held with another model. After any exception the chat is as
                it was before.
        """
        self._settle()
        saved = read_chat(path, self._session)
        try:
            same = saved.format == self._format.name
            chat_format = self._format if same else ChatFormat.named(saved.format)
            system, turns = turns_of(saved.messages, chat_format)
        except InvalidArgumentError as error:
            raise StateFileError(
                f"{path}: expected a chat that was saved, got: {error.message}",
                remedy="Try Chat(..., format=) with the format that the chat was held in",
            ) from None
        now = self._session.fork()
        try:
            self._session.copy_from(saved.states["now"])
        except BaseException:
            self._session.copy_from(now)
            raise
        if turns:
            turns[-1].before = saved.states.get("before")
        self._format, self._system, self._turns = chat_format, system, turns
        self._start = saved.states["start"]

    def _write(self, options: GenerationOptions, begun: Begun | None = None) -> Reply:
        """Make a reply that begins, when it is first asked, where the session then is."""
        return new_reply(
            self._session, self._format, self._options, options, self._settle, begun=begun
        )

    def _await(self, reply: Reply) -> None:
        self._reply = reply
        self._reply_is_read = True

    def _settle(self) -> None:
        """Let the session have read the last answer as it stands in the history.

        What was drawn is kept where it is that already. Where it is not (reasoning, spaces, half a
        stop string, an interrupted step), the answer is read once more, from before it.
        """
        reply = self._reply
        if reply is None:
            return
        if not reply.ended:
            reply.close()  # comes back here
            return
        turn = self._turns[-1]
        turn.answer, turn.thinking, turn.is_answered = reply.text, reply.thinking, True
        written = self._format.write_answer(turn.answer).encode()
        drawn = self._session.tokenizer.decode_bytes(reply.tokens)
        read = reply.read_before.encode() + drawn
        whole = self._reply_is_read and reply.finish_reason is not None
        turn.cut = None
        if whole and reply.is_cut:
            with contextlib.suppress(UnicodeDecodeError):  # it ends within a character
                turn.cut = Cut(self._session.fork(), read.decode())
        if whole and written.startswith(read):
            self._reply_is_read = False  # if reading on is interrupted, begin at the question
            rest = written[len(read) :]
        else:
            self._session.copy_from(self._state_asked(turn))
            rest = written
        if rest:
            self._session.feed(rest)
        self._reply = None

    def _last(self, turns: int) -> Turn:
        if not self._turns:
            raise InvalidArgumentError("turns: expected one to go back to, got none so far")
        if len(self._turns) < turns:
            raise InvalidArgumentError(
                f"turns: expected {turns} to take back, got {len(self._turns)} so far"
            )
        return self._turns[-turns]

    def _state_before(self, place: int) -> Session:
        """Return the session before a turn; one that is not kept reads it all again."""
        if (kept := self._turns[place].before) is not None:
            return kept
        before = self._start.fork()
        if text := text_of(self._turns[:place], self._format):
            before.feed(text)
        return before

    def _state_asked(self, turn: Turn) -> Session:
        """Return the session after the question of the last turn."""
        if turn.asked is None:  # of a chat that was loaded
            asked = self._state_before(len(self._turns) - 1).fork()
            asked.feed(self._format.write_user(turn.user, turn.input))
            turn.asked = asked
        return turn.asked

    def _read_turns(self) -> None:
        """Read the turns that the chat begins with."""
        if not self._turns:
            return
        if text := text_of(self._turns[:-1], self._format):
            self._session.feed(text)
        last = self._turns[-1]
        last.before = self._session.fork()
        self._session.feed(self._format.write_user(last.user, last.input))
        last.asked = self._session.fork()
        if last.is_answered:
            self._session.feed(self._format.write_answer(last.answer))
