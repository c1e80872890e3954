"""The lines of a batch: found whatever they hold, and in a good order."""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rwkv_py import InvalidArgumentError
from rwkv_py.batch import BadLine, Line, Lines, lines, parse_line

URL = "/v1/completions"


def line(name: str, url: str = URL, **body: Any) -> bytes:
    request = {"custom_id": name, "method": "POST", "url": url, "body": body}
    return json.dumps(request).encode() + b"\n"


def read(path: Path, number: int, data: Lines) -> bytes:
    begin, size = int(data._offsets[number]), int(data._sizes[number])
    return path.read_bytes()[begin : begin + size]


@given(
    data=st.lists(st.sampled_from([b"\n", b" ", b"\r\n", b"x", b"{}", b"y" * 9])).map(b"".join),
    piece=st.integers(1, 20),
)
@example(data=b" " * 30 + b"z" * 30 + b"\n{}", piece=7)
def test_any_bytes_are_the_lines_that_they_are(data: bytes, piece: int) -> None:
    expected = [found.strip() for found in data.split(b"\n") if found.strip()]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_PIECE", piece)
        path = Path(folder, "in")
        path.write_bytes(data)
        with Lines(path, max_bytes=1000) as found:
            assert [read(path, i, found) for i in range(len(found))] == expected
            assert sorted(found.order) == list(range(len(found)))


def message(raw: bytes) -> tuple[str, str | None]:
    with pytest.raises(BadLine) as caught:
        parse_line(raw)
    return caught.value.message, caught.value.custom_id


def test_what_is_no_request_says_so() -> None:
    assert parse_line(line("a", prompt="x")) == Line("a", URL, {"prompt": "x"})
    assert parse_line(b"\xef\xbb\xbf" + line("a", prompt="x")).custom_id == "a"
    for raw in (b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b""):
        what, name = message(raw)
        assert what.startswith("line: expected "), what
        assert name is None
    assert message(b"[1]") == ("line: expected an object, got [1]", None)
    assert message(b"{}") == ("custom_id: expected a text, got none", None)
    assert message(b'{"custom_id": 5}') == ("custom_id: expected a text, got 5", None)
    rest: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": URL, "body": {}}
    for field, wrong, expected in (
        ("method", "GET", "method: expected POST, got 'GET'"),
        ("url", 5, "url: expected a path, got 5"),
        ("body", "x", "body: expected an object, got 'x'"),
    ):
        assert message(json.dumps({**rest, field: wrong}).encode()) == (expected, "a")
        missing = {key: value for key, value in rest.items() if key != field}
        what, name = message(json.dumps(missing).encode())
        assert what.endswith(", got none")
        assert name == "a"


def test_what_is_too_long_or_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "in"
    long = line("long", prompt="x" * 300)
    path.write_bytes(line("a") + b"nonsense\n" + long + line("b") + line("a") + b"nonsense\n")
    with Lines(path, max_bytes=200) as found:
        assert len(found) == 6
        assert found.parse(0).custom_id == "a"
        for number, expected in (
            (1, "line: expected JSON"),
            (2, f"line: expected at most 200 bytes, got {len(long) - 1}"),
            (4, "custom_id: expected one for each line, got 'a' again"),
            (5, "line: expected JSON"),
        ):
            with pytest.raises(BadLine) as caught:
                found.parse(number)
            assert caught.value.message.startswith(expected)
        assert found.parse(3).custom_id == "b"


def test_the_order_is_by_length_and_beginning(tmp_path: Path) -> None:
    path = tmp_path / "in"
    first, second = "a" * 3000, "b" * 3000
    asked = [(first + "1", 8), (second + "1", 8), ("short", 900), (first + "2", 8), ("s", 1),
             (second + "2", 9)]  # fmt: skip
    path.write_bytes(
        b"".join(line(str(i), prompt=p, max_tokens=n) for i, (p, n) in enumerate(asked))
    )
    with Lines(path, max_bytes=1 << 20) as found:
        order = found.order.tolist()
    assert order[0] == 2
    assert order[-1] == 4
    assert abs(order.index(0) - order.index(3)) == 1
    assert abs(order.index(1) - order.index(5)) == 1


def test_the_first_model_and_the_digest(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(line("a") + line("b", model=5) + line("c", model="m"))
    (tmp_path / "same").write_bytes((tmp_path / "in").read_bytes())
    (tmp_path / "other").write_bytes((tmp_path / "in").read_bytes() + b"\n")
    found = {}
    for name in ("in", "same", "other"):
        with Lines(tmp_path / name, max_bytes=1000) as opened:
            assert opened.model == "m"
            found[name] = opened.digest
    assert found["in"] == found["same"] != found["other"]
    os.mkfifo(tmp_path / "pipe")  # which nobody will ever write to
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe", "a named pipe")):
        with pytest.raises(InvalidArgumentError, match=f"expected a file, got {kind}"):
            Lines(path, max_bytes=1000)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(line("a") + line("b"))
    with Lines(path, max_bytes=1000) as found:
        found.check_unchanged()
        path.write_bytes(line("a"))
        with pytest.raises(InvalidArgumentError, match="expected it to stay as it is"):
            found.check_unchanged()
        with pytest.raises(InvalidArgumentError, match="expected it to stay as it is"):
            found.parse(0)


def test_memory_does_not_grow_with_what_lines_hold(tmp_path: Path) -> None:
    """A hundred bytes a line, whatever it holds; some more while they are found."""
    path = tmp_path / "in"
    n = 500
    with path.open("wb") as file:
        for i in range(n):
            file.write(line(str(i), prompt="x" * 5000))
    tracemalloc.start()
    try:
        with Lines(path, max_bytes=1 << 20) as found:
            kept, peak = tracemalloc.get_traced_memory()
            assert len(found) == n
    finally:
        tracemalloc.stop()
    assert kept < 100 * n + 50_000
    assert peak < 300 * n + 4 * lines._PIECE
