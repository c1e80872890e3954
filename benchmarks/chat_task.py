"""What quantising does to answers: the chat checkpoint is asked questions whose answers are known.

Calibrated files read conversations with other questions, and the first half of the held-out text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from . import report
from .paths import EXAMPLES
from .quality_files import BEST, CALIBRATED, FAST, Maker

CHECKPOINT = EXAMPLES / "rwkv7-pychat-L6-D256.pth"
QUESTIONS = EXAMPLES / "pychat_questions.jsonl"
N_ASKED = 300
"""The first so many are asked, the others are for calibrating."""


@dataclass(frozen=True)
class Share:
    """How many answers of a file are exactly right."""

    family: str
    type: str
    n_right: int
    n_asked: int


def read_questions() -> tuple[list[tuple[str, list[str]]], bytes]:
    """Questions with their right answers; the conversations to calibrate by."""
    lines = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    asked = [(line["question"], line["answers"]) for line in lines[:N_ASKED]]
    others = [_turn(line["question"]) + f" {line['answers'][0]}\n\n" for line in lines[N_ASKED:]]
    return asked, "".join(others).encode()


def _turn(question: str) -> str:
    return f"User: {question}\n\nAssistant:"


def chat_task(folder: Path, token_limit: int | None, threads: int) -> list[Share]:
    """Asks fp32, and q4_0 of every way to choose its bits."""
    asked, conversations = read_questions()
    text = (EXAMPLES / "heldout_a.txt").read_bytes()
    own = folder / "chat"
    own.mkdir(exist_ok=True)
    maker = Maker(CHECKPOINT, own, (conversations, text[: len(text) // 2]), token_limit, threads)
    files = [
        ("", "fp32", maker.original()),
        (FAST, "q8_0", maker.converted("q8_0", "fast")),
        (FAST, "q4_0", maker.converted("q4_0", "fast")),
        (BEST, "q4_0", maker.converted("q4_0", "best")),
        (CALIBRATED, "q4_0", maker.calibrated("q4_0")),
    ]
    return [
        Share(family, type, _n_right(path, asked, threads), len(asked))
        for family, type, path in files
    ]


def _n_right(path: Path, asked: list[tuple[str, list[str]]], threads: int) -> int:
    from rwkv_py import Engine, Model

    prompts = [b"\0" + _turn(question).encode() for question, _ in asked]
    with Engine(Model(path, threads=threads)) as engine:
        texts = engine.generate_batch(prompts, temperature=0, max_tokens=500, stop=["\n\n"])
    return sum(text.strip() in answers for text, (_, answers) in zip(texts, asked, strict=True))


def task_table(shares: list[Share]) -> report.Table:
    """A row for each file."""
    return report.Table(
        "",
        ["how, type", "answers exactly right"],
        [
            [", ".join(filter(None, (s.family, s.type))), f"{s.n_right} of {s.n_asked}"]
            for s in shares
        ],
    )
