"""What bench:quality tells of files, which it makes, and the texts it can be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.quality_files import CALIBRATED, FAST, LLAMA, MIXED, Maker, QualityFile

from benchmarks import calibration_text, chat_task, quality

rwkv_py = pytest.importorskip("rwkv_py")

TOKENS = np.arange(400, dtype=np.int32) % 251


def make(folder: Path, checkpoint: Path, **options: Any) -> Maker:
    folder.mkdir()
    return Maker(checkpoint, folder, (b"Return the name. " * 20,), 200, 1, **options)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return make(tmp_path_factory.mktemp("quality") / "files", quality.CHECKPOINT)


def test_a_file_is_compared_with_the_original(maker: Maker, tmp_path: Path) -> None:
    expected = tmp_path / "logits"
    original = QualityFile("", "fp32", maker.original())
    quality.keep_logits(original, TOKENS, expected, 1)
    same = quality.measure(original, TOKENS, 399, expected, 1)
    assert (same.kl, same.kl_p99, same.same_token, same.n_tokens) == (0, 0, 1, 399)
    (file,) = maker.files((FAST,), ("q4_0",))
    found = quality.kept(file, TOKENS, 399, expected, 1, maker.folder)
    judge = rwkv_py.evaluate.compare(maker.original(), file.path, bytes(TOKENS.astype(np.uint8)))
    assert found.kl == pytest.approx(judge.kl_mean, rel=0.1)
    assert found.bits_per_byte == pytest.approx(judge.b.bits_per_byte, rel=1e-2)
    assert found.file_bytes == file.path.stat().st_size
    again = quality.kept(file, TOKENS, 399, tmp_path / "nothing", 1, maker.folder)
    assert again == found


def test_tokens_of_a_text_and_the_bytes_that_are_scored() -> None:
    tokens, n_bytes = quality.read_tokens(b"Return the name.", 256, 7)
    assert tokens.tolist() == list(b"Return ") and n_bytes == 6
    tokens, n_bytes = quality.read_tokens("Return 这 name.".encode(), 65536, 99)
    assert n_bytes == len("Return 这 name.".encode()) - len(b"Return")
    assert len(tokens) < 8


def test_ranges_of_positions() -> None:
    kl = np.concatenate([np.full(128, 1.0), np.full(896, 2.0), np.full(10, 3.0)])
    assert quality.by_position(kl) == [1.0, 2.0, 3.0, None, None]


def found(family: str, type: str, size: int, engine: str = "rwkv-runtime") -> quality.Quality:
    kl: list[float | None] = [0.1, 0.2, 0.3, None, None]
    return quality.Quality(family, type, engine, size, 99, 1.25, 0.25, 0.5, 0.75, kl)


def test_tables_and_plot(tmp_path: Path) -> None:
    files = [
        found(LLAMA, "q4_0", 4_000_000, "llama.cpp"),
        found(FAST, "q4_0", 3_000_000),
        found(FAST, "q8_0", 5_000_000),
    ]
    rows = quality.table(files).rows
    assert rows[1] == [
        "llama.cpp, q4_0, llama.cpp", "4.00", "1.2500", "0.25000", "0.5000", "75.0 %", "-",
    ]  # fmt: skip
    assert [row[1] for row in rows] == ["3.00", "4.00", "5.00"]
    assert quality.position_table(files).rows[0][1:] == ["0.10000", "0.20000", "0.30000", "-", "-"]
    pytest.importorskip("matplotlib")
    quality.plot(files, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_files_of_every_family_of_ours(tmp_path: Path) -> None:
    maker = make(tmp_path / "files", quality.CHECKPOINT, sizes=(3_600_000,))
    files = list(maker.files((CALIBRATED, MIXED), ("q4_0",)))
    assert [file.path.suffix for file in files] == [".bin", ".gguf"]
    assert files[0].path.stat().st_size < 3_500_000 < files[1].path.stat().st_size <= 3_600_000


def test_questions() -> None:
    asked, others = chat_task.read_questions()
    assert len(asked) == 300
    assert all(question.endswith(("?", ".")) and answers for question, answers in asked)
    assert others.startswith(b"User: ") and others.endswith(b"\n\n")
    assert not [question for question, _ in asked if question.encode() in others]
    rows = chat_task.task_table([chat_task.Share(FAST, "q4_0", 2, 3)]).rows
    assert rows == [["rwkv-convert, q4_0", "2 of 3"]]


def test_manual_pages_become_text() -> None:
    roff = '.\\" a comment\n.TH LS 1\n.SH NAME\nls \\- \\fBlist\\fR\n.BR -a , " all"\n'
    assert calibration_text.without_roff(roff) == 'LS 1\nNAME\nls - list\n-a , " all\n'


def test_documents_are_chosen_evenly() -> None:
    texts = [f"{i:03}" * 3000 for i in range(100)] + ["short"]
    some = calibration_text.evenly(texts, 20_000)
    assert len(some) == 20_000
    assert {some[i : i + 3] for i in (0, 6667, 13334)} == {b"000", b"033", b"066"}
    assert calibration_text.evenly(["é" * 300], 301).decode() == "é" * 150
    assert calibration_text.evenly([], 100) == b""
