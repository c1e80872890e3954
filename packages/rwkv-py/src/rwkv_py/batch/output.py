"""Answers as lines, in the form of OpenAI's Batch API, and the files that hold them in the end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._files import kind_of
from ..errors import InvalidArgumentError
from .journal import Journal, JournalOfOtherWorkError, naming

__all__ = ["Outputs", "answer_line", "name_of_work", "unanswered_line"]


def name_of_work(facts: Mapping[str, Any]) -> str:
    """Return what tells some work from other work, by what follows from which answers it gets."""
    told = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(told, digest_size=8).hexdigest()


def answer_line(work: str, number: int, custom_id: str | None, status: int, body: bytes) -> bytes:
    """Return an answer as a line, without its newline: the same bytes for the same arguments.

    Args:
        work: its name, of `name_of_work`.
        number: of the line that is answered.
        custom_id: what its sender calls it; None: nobody knows.
        status: as of HTTP.
        body: JSON.
    """
    name = json.dumps(custom_id)  # in ASCII, so that half a surrogate pair comes back as it is
    head = (
        f'{{"id":"{_begin(work)}{number + 1}","custom_id":{name},"response":{{"status_code":'
        f'{status},"request_id":"req_{work}_{number + 1}","body":'
    )
    return head.encode() + body + b'},"error":null}'


def unanswered_line(
    work: str, number: int, custom_id: str | None, code: str, message: str
) -> bytes:
    """Return as a line why one was not answered.

    Args:
        work: its name, of `name_of_work`.
        number: of the line.
        custom_id: what its sender calls it; None: nobody knows.
        code: what programs know the reason by.
        message: the reason.
    """
    told = {"code": code, "message": message}
    row = {
        "id": f"{_begin(work)}{number + 1}",
        "custom_id": custom_id,
        "response": None,
        "error": told,
    }
    return json.dumps(row, separators=(",", ":")).encode()


def _begin(work: str) -> str:
    return f"batch_req_{work}_"


@dataclass(frozen=True)
class Outputs:
    """The files that hold answers in the end, in the order of the lines.

    Attributes:
        answers: what was answered. It appears last: where it is, all is done.
        failures: what failed; there is none if nothing did.
    """

    answers: Path
    failures: Path

    @property
    def journal(self) -> Path:
        """Where the answers are until all are known."""
        return self.answers.with_name(self.answers.name + ".journal")

    def check_names(self, requests: Path) -> None:
        """Refuse names that are no files', or the same.

        Args:
            requests: the file of the lines.

        Raises:
            InvalidArgumentError: of the first that is wrong.
            OSError: it cannot be told.
        """
        seen = [requests]
        for path in (self.answers, self.failures):
            if path.exists() and not path.is_file():
                kind = kind_of(path.stat().st_mode)
                raise InvalidArgumentError(f"{path}: expected a file or nothing, got {kind}")
            if not path.parent.is_dir():
                raise InvalidArgumentError(f"{path}: expected a folder to write it in, got none")
            for other in seen:
                if path == other or (path.exists() and other.exists() and path.samefile(other)):
                    raise InvalidArgumentError(
                        f"{path}: expected a file for each of requests, answers and failures, got "
                        "the same again"
                    )
            seen.append(path)

    def open_journal(
        self, facts: Mapping[str, Any], n_lines: int, *, force: bool
    ) -> Journal | None:
        """Open the journal, to begin the work or to go on; None if all is done.

        Args:
            facts: as for `name_of_work`.
            n_lines: how many lines there are.
            force: replace what other work has left.

        Raises:
            InvalidArgumentError: other work has left something, or another process is at it.
            OSError: it cannot be read or written.
        """
        if not self.journal.exists():
            if self._are_of(name_of_work(facts), n_lines):
                return None
            for path in (self.failures, self.answers):
                if path.exists() and not force:
                    raise InvalidArgumentError(
                        f"{path}: expected no file, or the answers to the same requests in the "
                        "same way, got another",
                        remedy="Try another name, or --force, which replaces it",
                    )
        try:
            return Journal(self.journal, facts, n_lines)
        except JournalOfOtherWorkError:
            if not force:
                raise
            self.journal.unlink()
            return Journal(self.journal, facts, n_lines)

    def count(self) -> tuple[int, int]:
        """Return how many answers and failures the files hold."""
        found = []
        for path in (self.answers, self.failures):
            n_lines = 0
            if path.exists():
                with path.open("rb") as file:
                    n_lines = sum(1 for _ in file)
            found.append(n_lines)
        return found[0], found[1]

    def write(self, journal: Journal, n_lines: int) -> None:
        """Write what is known; each file appears whole or not at all.

        Args:
            journal: what is known; other lines are left out.
            n_lines: how many there are.

        Raises:
            OSError: they cannot be written.
        """
        if journal.n_failed:
            _write(journal, n_lines, self.failures, failed=True)
        else:
            self.failures.unlink(missing_ok=True)
        _write(journal, n_lines, self.answers, failed=False)

    def _are_of(self, work: str, n_lines: int) -> bool:
        """Whether the files hold all answers of some work."""
        if not self.answers.exists():
            return False
        begin = f'{{"id":"{_begin(work)}'.encode()
        for path in (self.answers, self.failures):
            if path.exists() and path.stat().st_size:
                with path.open("rb") as file:
                    return file.read(len(begin)) == begin
        return n_lines == 0


def _write(journal: Journal, n_lines: int, path: Path, *, failed: bool) -> None:
    part = path.with_name(path.name + ".part")
    with naming(path), part.open("wb", buffering=1 << 20) as file:
        for number in range(n_lines):
            if journal.knows(number) and journal.has_failed(number) == failed:
                file.write(journal.told(number) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
