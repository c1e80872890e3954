"""What each way to choose the bits costs in accuracy, ours and llama.cpp's: a table and a plot.

    python -m benchmarks.quality
    python -m benchmarks.quality --checkpoint MODEL.pth --text TEST.txt --calibration A.txt B.txt

Every file reads the test text once, from a fresh state carried through it, in the engine that it is
made for; what it expects after each token is compared with what the fp32 file does. Calibration
never reads the test text: of the shipped one it has the first half, the test the second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rwkv_convert

from . import command, machine, quiet, report
from .bits_per_byte import bits, differences
from .chat_task import Share, chat_task, task_table
from .paths import BUILD, EXAMPLES, REPO
from .peers import llama_cpp
from .quality_files import (
    FAMILIES,
    LLAMA,
    LLAMA_IMATRIX,
    LLAMA_TYPES,
    OUR_TYPES,
    Maker,
    QualityFile,
)
from .units import number
from .worker import Worker

CHECKPOINT = EXAMPLES / "rwkv7-pydoc-L6-D256.pth"
SIZES = (3_420_000, 3_870_000, 4_460_000)
"""Of its mixed files: our q4_0 is no smaller, nor are llama.cpp's Q4_K_M and Q5_K_M."""
TEXT = EXAMPLES / "heldout_a.txt"
PICTURE = REPO / "docs" / "assets" / "quality.png"
"""The plot that the documentation shows."""
PIECE = 256
"""Tokens at a time."""
POSITIONS = (128, 1024, 8192, 32768)
"""Ends of the ranges of positions in the text for which the divergence is told."""


@dataclass(frozen=True)
class Quality:
    """What one file is worth.

    Attributes:
        family, type, engine: those of QualityFile.
        file_bytes: its size.
        n_tokens: tokens after which expectations were compared.
        bits_per_byte: of the text.
        kl: mean Kullback-Leibler divergence from the fp32 file, nats.
        kl_p99: its 99th percentile.
        same_token: share of places where both find the same token most probable.
        by_position: the mean divergence up to each of POSITIONS, from the one before, then of the
            rest; None where the text is shorter.
        decode: tokens per second, written one after the other; None if that was not measured.
    """

    family: str
    type: str
    engine: str
    file_bytes: int
    n_tokens: int
    bits_per_byte: float
    kl: float
    kl_p99: float
    same_token: float
    by_position: list[float | None]
    decode: float | None = None


def logits_of(
    file: QualityFile, tokens: NDArray[np.int32], threads: int
) -> Iterator[NDArray[np.float32]]:
    """The logits after each token, PIECE at a time: (n, n_vocab)."""
    if file.engine == "llama.cpp":
        yield from _llama_logits(file.path, tokens, threads)
        return
    from rwkv_py import Session

    session = Session(file.path, threads=threads)
    for begin in range(0, len(tokens), PIECE):
        work = [(session, tokens[begin : begin + PIECE])]
        (logits,) = session.model.step(work, logits="all")
        assert logits is not None
        yield logits


def _llama_logits(
    path: Path, tokens: NDArray[np.int32], threads: int
) -> Iterator[NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.npy"
        np.save(file, tokens)
        command = [str(llama_cpp(False)), "-m", "benchmarks.engines.llama_cpp", "logits"]
        with subprocess.Popen(
            [*command, str(path), str(file), str(threads)], cwd=REPO, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            n_vocab = int.from_bytes(process.stdout.read(4), "little")
            for begin in range(0, len(tokens), PIECE):
                n = min(PIECE, len(tokens) - begin)
                data = process.stdout.read(4 * n * n_vocab)
                if len(data) < 4 * n * n_vocab:
                    raise SystemExit(f"{path}: llama.cpp ended with {process.wait()}")
                yield np.frombuffer(data, np.float32).reshape(n, n_vocab)


def keep_logits(original: QualityFile, tokens: NDArray[np.int32], path: Path, threads: int) -> None:
    """Writes what the original expects after each token but the last, to compare others with."""
    with path.open("wb") as file:
        for logits in logits_of(original, tokens[:-1], threads):
            file.write(np.ascontiguousarray(logits).data)


def measure(
    file: QualityFile, tokens: NDArray[np.int32], n_bytes: int, expected: Path, threads: int
) -> Quality:
    """Lets a file read the text.

    Args:
        file: the file.
        tokens: the text.
        n_bytes: how many bytes all tokens but the first stand for.
        expected: the original's logits, from keep_logits.
        threads: that compute.
    """
    n = len(tokens) - 1
    original = np.memmap(expected, np.float32, "r").reshape(n, -1)
    kl, same, surprise, at = [], [], [], 0
    for logits in logits_of(file, tokens[:-1], threads):
        rows = slice(at, at + len(logits))
        divergence, equal = differences(logits, original[rows])
        kl.append(divergence)
        same.append(equal)
        surprise.append(bits(logits, tokens[at + 1 : at + 1 + len(logits)]))
        at = rows.stop
    all_kl = np.concatenate(kl)
    return Quality(
        file.family,
        file.type,
        file.engine,
        file.path.stat().st_size,
        n,
        float(np.concatenate(surprise).sum()) / n_bytes,
        float(all_kl.mean()),
        float(np.percentile(all_kl, 99)),
        float(np.concatenate(same).mean()),
        by_position(all_kl),
    )


def kept(
    file: QualityFile,
    tokens: NDArray[np.int32],
    n_bytes: int,
    expected: Path,
    threads: int,
    folder: Path,
) -> Quality:
    """What `measure` gives, from the folder if it was measured there before."""
    data = file.path.stat()
    key = hashlib.sha256(tokens.tobytes() + f"{data.st_size} {data.st_mtime_ns}".encode())
    path = folder / f"{file.path.name}-{file.engine}-{key.hexdigest()[:16]}.json"
    if path.exists():
        measured = Quality(**json.loads(path.read_text()))
        return replace(measured, family=file.family, type=file.type)
    found = measure(file, tokens, n_bytes, expected, threads)
    path.write_text(json.dumps(asdict(found)))
    return found


def decode_rate(file: QualityFile, threads: int, seconds: float) -> float:
    """Tokens per second that a file writes in its engine, without choosing them."""
    llama = file.engine == "llama.cpp"
    engine = "llama_cpp" if llama else "runtime"
    python = llama_cpp(False) if llama else Path(sys.executable)
    with Worker(engine, file.path, threads, python=python) as worker:
        return 1 / float(worker.ask("decode", seconds=seconds)["seconds"])


def by_position(kl: NDArray[np.float64]) -> list[float | None]:
    """The mean divergence in each range of positions, None where there is none."""
    found: list[float | None] = []
    for begin, end in zip((0, *POSITIONS), (*POSITIONS, None), strict=True):
        some = kl[begin:end]
        found.append(float(some.mean()) if len(some) else None)
    return found


def own_engine(family: str) -> str:
    """The engine that files of a family are made for."""
    return "llama.cpp" if family in (LLAMA, LLAMA_IMATRIX) else "rwkv-runtime"


def table(found: Sequence[Quality]) -> report.Table:
    """A row for each file, the smallest first; of one size the nearest to the original."""
    ordered = sorted(found, key=lambda q: (round(q.file_bytes, -4), q.kl))
    return report.Table(
        "",
        [
            "how, type, engine",
            "file, MB",
            "bits per byte",
            "KL, nats",
            "KL, 99 %",
            "same token",
            "tokens/s",
        ],
        [
            [
                f"{q.family}, {q.type}, {q.engine}",
                f"{q.file_bytes / 1e6:.2f}",
                f"{q.bits_per_byte:.4f}",
                f"{q.kl:.5f}",
                f"{q.kl_p99:.4f}",
                f"{100 * q.same_token:.1f} %",
                "-" if q.decode is None else number(q.decode),
            ]
            for q in ordered
        ],
    )


def position_table(found: Sequence[Quality]) -> report.Table:
    """The divergence by position in the text, each file in the engine that it is made for."""
    bounds = [f"to {end}" for end in POSITIONS]
    some = sorted((q for q in found if q.engine == own_engine(q.family)), key=lambda q: q.kl)
    return report.Table(
        "",
        ["KL by position, nats", *bounds, "after"],
        [
            [
                f"{q.family}, {q.type}, {q.engine}",
                *("-" if kl is None else f"{kl:.5f}" for kl in q.by_position),
            ]
            for q in some
        ],
    )


def plot(found: Sequence[Quality], path: Path) -> None:
    """Size against divergence, one line a family."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    for family in FAMILIES:
        engine = own_engine(family)
        points = sorted(
            (q for q in found if q.family == family and q.engine == engine),
            key=lambda q: q.file_bytes,
        )
        if not points:
            continue
        style = "--" if engine == "llama.cpp" else "-"
        sizes = [q.file_bytes / 1e6 for q in points]
        axes.plot(sizes, [q.kl for q in points], style, marker="o", markersize=4, label=family)
        for q in points:
            axes.annotate(
                q.type,
                (q.file_bytes / 1e6, q.kl),
                fontsize=6,
                xytext=(3, 3),
                textcoords="offset points",
            )
    axes.set_yscale("log")
    axes.set_xlabel("file, MB")
    axes.set_ylabel("mean KL divergence from fp32, nats")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def read_tokens(text: bytes, n_vocab: int, limit: int) -> tuple[NDArray[np.int32], int]:
    """A text's first tokens, and how many bytes all but the first of them stand for."""
    from rwkv_py import Tokenizer

    tokenizer = Tokenizer.bytewise() if n_vocab == 256 else Tokenizer.world()
    tokens = tokenizer.encode(text)[:limit]
    return np.array(tokens, np.int32), len(tokenizer.decode_bytes(tokens[1:]))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, default=CHECKPOINT, help=f"default: {CHECKPOINT.name}")
    add("--text", type=Path, help=f"to be judged by (default: the second half of {TEXT.name})")
    add("--calibration", type=Path, nargs="+", help="texts to calibrate by (default: its first)")
    add("--tokens", type=int, default=1 << 17, help="of the text, at most (default: 131072)")
    add("--calibration-tokens", type=int, help="at most (default: as rwkv calibrate)")
    add("--families", default=",".join(FAMILIES), help=f"default: {','.join(FAMILIES)}")
    every = tuple(dict.fromkeys([*OUR_TYPES, *LLAMA_TYPES]))
    add("--types", default=",".join(every), help=f"default: {','.join(every)}")
    cores = machine.physical_cores()
    add("--threads", type=int, default=cores, help="that compute (default: one a core)")
    add("--sizes", type=int, nargs="+", help="of mixed files, bytes (default: as usual files')")
    add("--folder", type=Path, help="keep model files and figures here, and go on from there")
    add("--seconds", type=float, default=0.5, help="of decoding, each file (default: 0.5)")
    add("--questions", action="store_true", help="ask the chat checkpoint its questions, too")
    add("--output", type=Path, default=BUILD / "quality", help="where to: .json and .png are added")
    args = command.parse(parser, None)
    if (args.text is None) != (args.calibration is None):
        parser.error("expected --text and --calibration, or neither, got one of them")
    halves = TEXT.read_bytes()
    middle = len(halves) // 2
    text = halves[middle:] if args.text is None else args.text.read_bytes()
    calibration = [halves[:middle]]
    if args.calibration is not None:
        calibration = [path.read_bytes() for path in args.calibration]
    about = machine.describe()
    n_vocab = rwkv_convert.info(args.checkpoint).n_vocab
    tokens, n_bytes = read_tokens(text, n_vocab, args.tokens)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = SIZES if args.checkpoint == CHECKPOINT else ()
        sizes = tuple(args.sizes) if args.sizes else sizes
        maker = Maker(
            args.checkpoint,
            folder,
            tuple(calibration),
            args.calibration_tokens,
            args.threads,
            sizes,
        )
        expected = Path(temporary) / "logits"
        keep_logits(QualityFile("", "fp32", maker.original()), tokens, expected, args.threads)
        found, made = [], []
        files = maker.files(tuple(args.families.split(",")), tuple(args.types.split(",")))
        for file in tqdm(files, disable=None, desc="reading", unit="file"):
            made.append(file)
            found.append(kept(file, tokens, n_bytes, expected, args.threads, folder))
            tqdm.write(" ".join(report_row(found[-1])))
        shares: list[Share] = (
            chat_task(folder, args.calibration_tokens, args.threads) if args.questions else []
        )
        machine.build_native()
        others = quiet.Others()
        rated = []
        for file, quality in tqdm(
            list(zip(made, found, strict=True)), disable=None, desc="writing", unit="file"
        ):
            others.look()
            rated.append(replace(quality, decode=decode_rate(file, args.threads, args.seconds)))
        found = rated
        disturbed = others.median()
    tables = [table(found), position_table(found)]
    if shares:
        tables.append(task_table(shares))
    picture = args.output.with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot(found, picture)
    print(f"plot: {picture}")
    result = {
        "machine": about,
        "checkpoint": args.checkpoint.name,
        "n_tokens": len(tokens) - 1,
        "files": [asdict(q) for q in found],
        "chat": [asdict(share) for share in shares],
    }
    report.publish(args, tables, result, args.output.with_suffix(".json"))
    if args.docs:
        quiet.require(disturbed)
        report.keep("quality", result)
        plot(found, PICTURE)


def report_row(quality: Quality) -> Sequence[str]:
    """One file's row, as soon as it is known."""
    return table([quality]).rows[0]


if __name__ == "__main__":
    main()
