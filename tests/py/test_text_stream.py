from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_py import InvalidArgumentError, TextStream, Tokenizer, _core
from rwkv_py._arguments import as_stops
from rwkv_py.text_stream import TextBuilder

BYTEWISE = Tokenizer.bytewise()


class Script:
    """Draws the given tokens, and notes which are taken."""

    def __init__(self, tokens: Iterable[int]):
        self._tokens = iter(tokens)
        self.taken: list[int] = []
        self.events: list[str] = []
        self.speculation = None

    def stream(
        self,
        *,
        tokenizer: Tokenizer = BYTEWISE,
        max_tokens: int = 1000,
        stop: str | bytes | Iterable[str | bytes] = (),
        stop_tokens: Iterable[int] = (0,),
    ) -> TextStream:
        builder = TextBuilder(tokenizer, max_tokens=max_tokens, stop=stop, stop_tokens=stop_tokens)
        return TextStream(self, builder)

    def begin(self, stream: TextStream) -> None:
        self.events.append("begin")

    def draw(self) -> int:
        return next(self._tokens)

    def take(self, token: int) -> None:
        self.taken.append(token)

    def end(self, *, finished: bool) -> None:
        self.events.append("finished" if finished else "left")


def test_ends_at_token_0() -> None:
    script = Script([*b"abc", 0, *b"def"])
    stream = script.stream()
    assert list(stream) == ["a", "b", "c"]
    assert stream.finish_reason == "end"
    assert script.taken == stream.tokens == [*b"abc"]
    assert list(stream) == []


def test_ends_at_given_tokens() -> None:
    stream = Script(b"ab.c").stream(stop_tokens=[ord("."), ord("c")])
    assert "".join(stream) == "ab"
    assert stream.finish_reason == "end"


@pytest.mark.parametrize("stop_tokens", [0, None, ["a"], [0.5]])
def test_stop_tokens_that_are_no_tokens_are_refused(stop_tokens: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^stop_tokens: expected .* numbers?, got "):
        Script([]).stream(stop_tokens=stop_tokens)


def test_ends_at_max_tokens() -> None:
    script = Script(b"abcdef")
    stream = script.stream(max_tokens=3)
    assert stream.finish_reason is None
    assert "".join(stream) == "abc"
    assert stream.finish_reason == "length"
    assert script.taken == [*b"abc"]
    nothing = Script([]).stream(max_tokens=0)
    assert list(nothing) == []
    assert nothing.finish_reason == "length"
    with pytest.raises(InvalidArgumentError, match="max_tokens: expected 0 or more, got -1"):
        Script([]).stream(max_tokens=-1)


def test_whole_characters_only() -> None:
    stream = Script("aé你🙂".encode()).stream(max_tokens=10)
    assert list(stream) == ["a", "é", "你", "🙂"]


def test_unfinished_character_is_left_out() -> None:
    stream = Script("é你".encode()).stream(max_tokens=4)
    assert list(stream) == ["é"]


def test_invalid_bytes_are_replaced() -> None:
    stream = Script(b"a\xffb\xe4\xbdc").stream(max_tokens=6)
    assert "".join(stream) == "a\ufffdb\ufffdc"


def test_stop_across_tokens_is_never_shown() -> None:
    script = Script(b"one\n\nUser: two")
    stream = script.stream(stop="\n\nUser")
    assert list(stream) == ["o", "n", "e"]
    assert stream.finish_reason == "stop"
    assert bytes(script.taken) == b"one\n\nUse"


def test_held_back_text_is_given_when_it_is_no_stop() -> None:
    stream = Script(b"a\n\nUs\n\nUser").stream(stop=["\n\nUser"])
    assert list(stream) == ["a", "\n\nUs"]


def test_held_back_text_is_given_at_the_end() -> None:
    assert "".join(Script([*b"a\n\nU", 0]).stream(stop=["\n\nUser"])) == "a\n\nU"
    assert "".join(Script(b"a\n\nUser").stream(stop=["\n\nUser"], max_tokens=5)) == "a\n\nUs"


def test_stop_inside_a_token() -> None:
    world = Tokenizer.world()
    tokens = world.encode("one two") + world.encode("!\n\n")
    stream = Script(tokens).stream(tokenizer=world, stop="\n")
    assert "".join(stream) == "one two!"


def test_stop_of_bytes_that_are_half_a_character() -> None:
    stream = Script("né".encode()).stream(stop=b"\xc3")
    assert "".join(stream) == "n"
    assert stream.finish_reason == "stop"


def test_the_earliest_stop_wins() -> None:
    matcher = _core.TextStream([b"cd", b"bcde"])
    assert matcher.push(b"abcdef") == "a"
    assert matcher.stopped


def test_stop_overlapping_itself() -> None:
    matcher = _core.TextStream([b"aab"])
    assert [matcher.push(b) for b in (b"a", b"a", b"a", b"b")] == ["", "", "a", ""]
    assert matcher.stopped


def test_empty_stop_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="stop: expected no empty string"):
        as_stops(["a", ""])


@pytest.mark.parametrize("stop", [5, [5], [b"a", None], None, "\ud800"])
def test_stop_that_is_no_text_is_refused(stop: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^stop: expected .*, got "):
        as_stops(stop)


small_bytes = st.lists(st.sampled_from([b"a", b"b", b"ab", b"ba", b"aab"])).map(b"".join)


@given(
    st.lists(small_bytes.filter(bool), min_size=1, max_size=3),
    small_bytes,
    st.lists(st.integers(0, 30)),
)
def test_stop_matcher_finds_what_a_search_finds(
    stops: list[bytes], text: bytes, cuts: list[int]
) -> None:
    """However the text is cut, what comes out is what stands before the first stop complete."""
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    matcher = _core.TextStream(stops)
    out = b""
    for begin, end in itertools.pairwise(bounds):
        out += matcher.push(text[begin:end]).encode()
        assert not any(stop in out for stop in stops)
        assert text.startswith(out)
        seen = text[:end]
        found = [place for stop in stops if (place := seen.find(stop)) >= 0]
        assert matcher.stopped == bool(found)
        if found:
            assert out == text[: min(found)]
            return
    assert out + matcher.finish().encode() == text


# Bytes of which some are UTF-8, some are cut short, and some can never be.
torn_bytes = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(str.encode),
        st.sampled_from([b"\xff", b"\xc3", b"\xe4\xbd", b"\xf0\x9f\x99", b"\x80", b"ab", b"b\xc3"]),
    )
).map(b"".join)


@given(torn_bytes, st.lists(st.sampled_from([b"ab", b"\xa9", "你".encode(), b"b\xc3"]), max_size=2))
def test_stream_gives_whole_characters_before_the_stop(data: bytes, stops: list[bytes]) -> None:
    """Whatever is drawn, the pieces are the text before the first stop string, but for a character
    that is unfinished where it ends.
    """
    data = data.replace(b"\0", b"")  # which ends the text
    ends = [place + len(stop) for stop in stops if (place := data.find(stop)) >= 0]
    begins = [place for stop in stops if (place := data[: min(ends, default=0)].find(stop)) >= 0]
    shown = data[: min(begins)] if begins else data
    stream = Script([*data, 0]).stream(stop=stops)
    pieces = list(stream)
    assert all(pieces)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    assert "".join(pieces) == decoder.decode(shown)
    assert stream.finish_reason == ("stop" if begins else "end")


def test_a_token_that_could_not_be_read_is_not_one_of_the_text() -> None:
    script = Script(b"abc")
    stream = script.stream()
    assert next(stream) == "a"

    def failing(token: int) -> None:
        raise KeyboardInterrupt

    script.take = failing  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert stream.tokens == [*b"a"]
    assert (stream.finish_reason, list(stream)) == (None, [])
    assert script.events == ["begin", "left"]


@pytest.mark.parametrize("ending", [b"a.", b"a\0"])
def test_a_writer_hears_how_the_text_ended(ending: bytes) -> None:
    script = Script(ending)
    assert list(script.stream(stop=".")) == ["a"]
    assert script.events == ["begin", "finished"]
    nothing = Script([])
    nothing.stream().close()  # it has not begun
    assert nothing.events == []
