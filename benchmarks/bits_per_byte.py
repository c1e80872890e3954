"""What each type of weights costs in accuracy: bits per byte of a trained model on unseen text.

    python -m benchmarks.bits_per_byte

The shipped checkpoint reads `examples/heldout_a.txt` once, from a fresh state carried through the
file. Tokens are bytes; byte t + 1 is scored with the logits after byte t, so the first byte is not
scored. The text is fed token by token, and in large pieces, which is other code in the engine; then
the fp32 model reads it too, and what both expect is compared. The reference level is slow: it reads
only the beginning of the text, token by token, and the other levels are compared with it there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rwkv_convert

from . import command, machine, report
from .models import GGMF_TYPES, TYPES
from .paths import BUILD, EXAMPLES
from .speed import choose_levels

CHECKPOINT = EXAMPLES / "rwkv7-pydoc-L6-D256.pth"
TEXT = EXAMPLES / "heldout_a.txt"
PIECE = 1024
"""Tokens of a large piece."""


@dataclass
class Score:
    """One type at one level, fed `piece` tokens at a time.

    Attributes:
        n_bytes: bytes that were scored.
        bits_per_byte: over all of them.
        beginning: over those alone that the reference level reads too.
        kl: mean Kullback-Leibler divergence from the fp32 file, nats; None if not compared.
        same_token: the share of places where both put the same byte first; None likewise.
    """

    dtype: str
    level: str
    piece: int
    n_bytes: int
    bits_per_byte: float
    beginning: float
    file_bytes: int
    kl: float | None = None
    same_token: float | None = None


def bits(logits: NDArray[np.float32], targets: NDArray[np.int32]) -> NDArray[np.float64]:
    """-log2 softmax(logits)[target] of each row: logits (n, n_vocab), targets (n,)."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    nats = np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(x)), targets]
    return np.asarray(nats / np.log(2))


def differences(
    logits: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each row, (n, n_vocab): the divergence KL(reference, logits) in nats; the same largest."""

    def log_softmax(values: NDArray[np.float32]) -> NDArray[np.float64]:
        x = values.astype(np.float64)
        x -= x.max(axis=1, keepdims=True)
        return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))

    ours, right = log_softmax(logits), log_softmax(reference)
    return (np.exp(right) * (right - ours)).sum(axis=1), logits.argmax(1) == reference.argmax(1)


def score(
    path: str, fp32: str, dtype: str, level: str, piece: int, n_bytes: int | None, n_beginning: int
) -> Score:
    """Reads the text; runs in a process of its own, because the level is chosen by environment."""
    os.environ["RWKV_KERNELS"] = level
    from .engines.runtime import Engine

    if level == "reference":
        n_bytes = n_beginning
    tokens = np.frombuffer(TEXT.read_bytes()[:n_bytes], np.uint8).astype(np.int32)
    engine = Engine(path, 1)
    beside = Engine(fp32, 1) if piece == PIECE else None
    found, kl, same = [], [], []
    for inputs, targets in _pieces(tokens, piece):
        logits = engine.feed_all(inputs)
        found.append(bits(logits, targets))
        if beside is not None:
            divergence, equal = differences(logits, beside.feed_all(inputs))
            kl.append(divergence)
            same.append(equal)
    engine.close()
    all_bits = np.concatenate(found)
    return Score(
        dtype,
        level,
        piece,
        len(all_bits),
        float(all_bits.mean()),
        float(all_bits[: n_beginning - 1].mean()),
        os.stat(path).st_size,
        float(np.concatenate(kl).mean()) if kl else None,
        float(np.concatenate(same).mean()) if same else None,
    )


def _pieces(
    tokens: NDArray[np.int32], piece: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    for begin in range(0, len(tokens) - 1, piece):
        end = min(begin + piece, len(tokens) - 1)
        yield tokens[begin:end], tokens[begin + 1 : end + 1]


@dataclass(frozen=True)
class Cost:
    """What one type costs at one level.

    Attributes:
        token_by_token, in_pieces: bits per byte, by the way of feeding.
        from_reference: the larger of both ways' differences from the reference level over the
            beginning, as a share; None if that was not measured.
        kl, same_token: those of Score.
    """

    type: str
    level: str
    file_bytes: int
    token_by_token: float
    in_pieces: float
    from_reference: float | None
    kl: float | None
    same_token: float | None


def costs(scores: list[Score]) -> list[Cost]:
    """Both ways of feeding together, for each type and level but the reference's."""
    value = {(s.dtype, s.level, s.piece): s for s in scores}
    found = []
    for dtype, level in dict.fromkeys((s.dtype, s.level) for s in scores):
        if level == "reference":
            continue
        single, pieces = value[dtype, level, 1], value[dtype, level, PIECE]
        reference = value.get((dtype, "reference", 1))
        away = None
        if reference is not None:
            away = max(abs(s.beginning / reference.beginning - 1) for s in (single, pieces))
        found.append(
            Cost(
                dtype,
                level,
                single.file_bytes,
                single.bits_per_byte,
                pieces.bits_per_byte,
                away,
                pieces.kl,
                pieces.same_token,
            )
        )
    return found


def tables(found: list[Cost], n_bytes: int, n_beginning: int) -> list[report.Table]:
    """A row for each type and level."""
    return [
        report.Table(
            f"Bits per byte of {n_bytes} bytes; the difference from the reference level is that "
            f"over the first {n_beginning} bytes, the larger of both ways of feeding",
            ["type, level", "token by token", f"{PIECE} tokens at a time", "from reference"],
            [
                [
                    f"{c.type}, {c.level}",
                    f"{c.token_by_token:.4f}",
                    f"{c.in_pieces:.4f}",
                    "-" if c.from_reference is None else f"{100 * c.from_reference:.3f} %",
                ]
                for c in found
            ],
        )
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bits_per_byte", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--types", default=",".join(TYPES), help=f"default: {','.join(TYPES)}")
    add("--levels", default="all", help="kernel levels (default: all)")
    add("--bytes", type=int, default=None, help="how much of the text (default: all)")
    add("--beginning", type=int, default=4000, help="how much the reference reads (default: 4000)")
    add("--jobs", type=int, default=machine.physical_cores(), help="processes (default: cores)")
    add("--output", type=Path, default=BUILD / "bits_per_byte", help="where to: .json is added")
    args = command.parse(parser, None)
    if args.bytes is not None:
        args.beginning = min(args.beginning, args.bytes)
    machine.build_native()
    levels = choose_levels(args.levels, False)
    about = machine.describe()
    types = args.types.split(",")
    runs = [
        (dtype, level, piece)
        for dtype in types
        for level in levels
        for piece in ((1,) if level == "reference" else (1, PIECE))
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(args.jobs, get_context("spawn"), max_tasks_per_child=1) as pool,
        tqdm(total=len(runs), disable=None, desc="reading", unit="run") as bar,
    ):
        paths = {}
        for dtype in dict.fromkeys(["fp32", *types]):
            paths[dtype] = Path(folder) / f"{dtype}.{'bin' if dtype in GGMF_TYPES else 'gguf'}"
            rwkv_convert.convert(CHECKPOINT, paths[dtype], dtype=dtype)
        futures = [
            pool.submit(
                score,
                str(paths[dtype]),
                str(paths["fp32"]),
                dtype,
                level,
                piece,
                args.bytes,
                args.beginning,
            )
            for dtype, level, piece in runs
        ]
        for future in futures:
            future.add_done_callback(lambda _: bar.update())
        scores = [future.result() for future in futures]
    found = costs(scores)
    n_bytes, n_beginning = max(s.n_bytes for s in scores), args.beginning - 1
    report.publish(
        args,
        tables(found, n_bytes, n_beginning),
        {"machine": about, "scores": [asdict(s) for s in scores]},
        args.output.with_suffix(".json"),
    )
    if args.docs:
        kept = {"machine": about, "n_bytes": n_bytes, "n_beginning": n_beginning}
        report.keep("levels", {**kept, "costs": [asdict(c) for c in found]})


if __name__ == "__main__":
    main()
