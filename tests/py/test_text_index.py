"""TextIndex: the beginnings of a text are found, whatever else is kept."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection

import pytest

from rwkv_py import Tokenizer
from rwkv_py.sequence import ReadText
from rwkv_py.text_index import TextIndex, beginnings

BYTES = Tokenizer.named("bytes")


def read(text: bytes) -> ReadText:
    return ReadText.nothing(BYTES).followed_by(text)


def found(index: TextIndex, known: set[bytes], before: bytes, text: bytes) -> list[int]:
    """Return how long the known beginnings of `before + text` are; their digests are compared."""
    digests = {(one.n_bytes, one.hash.digest()) for one in map(read, known)}
    return [
        one.n_bytes
        for one in beginnings(read(before), text, index.lengths)
        if (one.n_bytes, one.hash.digest()) in digests
    ]


@pytest.mark.parametrize("seed", range(20))
def test_all_beginnings_are_found(seed: int) -> None:
    """As by comparing with every text; texts differ at any place, and are cut at any place."""
    choice = random.Random(seed)
    long = bytes(choice.randrange(2) for _ in range(1500))
    index, known = TextIndex(), set[bytes]()
    lengths = [1, 63, 64, 65, 127, 128, 129, 255, 256, 1024, *choice.choices(range(1, 1500), k=40)]
    for n_bytes in lengths:
        text = bytearray(long[:n_bytes])
        if choice.random() < 0.3:
            text[choice.randrange(n_bytes)] ^= 1
        known.add(bytes(text))
    for text in known:
        index.add(read(text).anchor, len(text))
    for _ in range(20):
        cut, end = sorted(choice.choices([*range(1500), 63, 64, 65, 128], k=2))
        expected = sorted(len(each) for each in known if cut < len(each) <= end
                          and long.startswith(each))  # fmt: skip
        assert found(index, known, long[:cut], long[cut:end]) == expected
    for text in list(known):
        index.discard(read(text).anchor, len(text))
    assert not index._lengths


def test_in_whatever_pieces_a_text_is_read() -> None:
    choice = random.Random(1)
    text = choice.randbytes(3000)
    for _ in range(50):
        cuts = sorted({0, 3000, *choice.choices([*range(3000), 64, 128, 2048], k=5)})
        one = ReadText.nothing(BYTES)
        for begin, end in itertools.pairwise(cuts):
            one = one.followed_by(text[begin:end])
        assert one.n_bytes == 3000
        assert one.anchor == read(text[:2048]).hash.digest()
        assert one.hash.digest() == read(text).hash.digest()


@pytest.mark.parametrize("n_shared", [0, 2100])
def test_many_texts_cost_little(n_shared: int) -> None:
    """Also where all begin with the same, such as a system prompt: few of them are looked at."""
    choice = random.Random(1)
    shared = choice.randbytes(n_shared)
    index = TextIndex()
    for i in range(10_000):
        text = shared + i.to_bytes(8, "big")
        one = read(text).followed_by(choice.randbytes(60 + choice.randrange(6000)))
        index.add(one.anchor, one.n_bytes)
    n_asked = 0

    def lengths(anchor: bytes) -> Collection[int]:
        nonlocal n_asked
        known = index.lengths(anchor)
        n_asked += len(known)
        return known

    text = shared + choice.randbytes(8000)
    assert len(list(beginnings(read(b""), text, lengths))) == n_asked
    # Of those that share 2100 bytes, those of less than 4096 have the same anchor.
    assert n_asked <= (4096 - 2100 if n_shared else 0)
