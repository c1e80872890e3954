"""The journal of a batch: what was noted is known again, whatever ended the process before."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_py import InvalidArgumentError
from rwkv_py.batch import Journal
from rwkv_py.batch.journal import JournalOfOtherWorkError

FACTS = {"input": "abc", "seed": 1}
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.binary(max_size=40).map(lambda told: told.replace(b"\n", b" ")),
        st.booleans(),
    ),
    unique_by=lambda record: record[0],
)


def known(journal: Journal) -> dict[int, tuple[bytes, bool]]:
    numbers = [number for number in range(10) if journal.knows(number)]
    return {number: (journal.told(number), journal.has_failed(number)) for number in numbers}


@given(records=RECORDS, where=st.floats(0, 1), flips=st.booleans(), rest=st.binary(max_size=20))
def test_what_comes_before_a_damage_is_known(
    records: list[tuple[int, bytes, bool]], where: float, flips: bool, rest: bytes
) -> None:
    """Cut anywhere, with anything behind it, or with a byte changed, as power cuts leave files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        ends = []
        with Journal(path, FACTS, 10) as journal:
            begin = path.stat().st_size
            for number, told, failed in records:
                journal.add(number, told, failed=failed)
                ends.append(path.stat().st_size)
        data = bytearray(path.read_bytes())
        at = begin + round(where * (len(data) - begin))
        if flips and at < len(data):
            data[at] ^= 0x11
        else:
            data[at:] = rest
        path.write_bytes(data)
        whole = {n: (told, failed) for (n, told, failed), end in zip(records, ends, strict=True)
                 if end <= at}  # fmt: skip
        with Journal(path, FACTS, 10) as journal:
            assert known(journal) == whole
            assert (journal.n_done, journal.n_failed) == (
                len(whole),
                sum(failed for _, failed in whole.values()),
            )
            for number, told, failed in records:
                if not journal.knows(number):
                    journal.add(number, told, failed=failed)
        with Journal(path, FACTS, 10) as journal:
            assert known(journal) == {n: (told, failed) for n, told, failed in records}


@pytest.mark.parametrize(("name", "value"), [("input", "another"), ("seed", 2), ("more", True)])
def test_that_of_other_work_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with Journal(tmp_path / "journal", FACTS, 10) as journal:
        journal.add(3, b"told", failed=False)
    before = (tmp_path / "journal").read_bytes()
    with pytest.raises(JournalOfOtherWorkError) as caught:
        Journal(tmp_path / "journal", {**FACTS, name: value}, 10)
    then = FACTS.get(name)
    assert caught.value.message == (
        f"{tmp_path / 'journal'}: begun with another {name}, expected {then!r}, got {value!r}"
    )
    assert "--force" in caught.value.remedy
    assert (tmp_path / "journal").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[]\n", b"a diary\n", b'{"form": 1}\n'])
def test_another_file_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=r"expected a journal of this version, got"):
        Journal(tmp_path / "journal", FACTS, 10)
    assert (tmp_path / "journal").read_bytes() == content


def test_one_process_has_it_at_a_time(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal", FACTS, 10),
        pytest.raises(InvalidArgumentError, match=r"expected that nobody else works on it, got"),
    ):
        Journal(tmp_path / "journal", FACTS, 10)
    Journal(tmp_path / "journal", FACTS, 10).close()


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with Journal(tmp_path / "journal", FACTS, 10) as journal:
        journal.add(1, b"first", failed=False)
        before = (tmp_path / "journal").read_bytes()
        n_calls = 0

        def full(file: int, data: Any) -> int:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 1:
                return write(file, bytes(data)[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="journal: cannot be written: No space left"):
            journal.add(2, b"second", failed=False)
        monkeypatch.undo()
        assert (tmp_path / "journal").read_bytes() == before
        assert not journal.knows(2)
        journal.add(2, b"second", failed=True)
    with Journal(tmp_path / "journal", FACTS, 10) as journal:
        assert known(journal) == {1: (b"first", False), 2: (b"second", True)}
