"""What each type of weights costs in accuracy: bits per byte of a trained model on unseen text.

    python -m benchmarks.bits_per_byte

The shipped checkpoint reads `examples/heldout_a.txt` once, from a fresh state carried through the
file. Tokens are bytes; byte t + 1 is scored with the logits after byte t, so the first byte is not
scored. The text is fed token by token, and in large pieces, which is other code in the engine. The
reference level is slow: it reads only the beginning of the text, token by token, and the other
levels are compared with it there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rwkv_convert

from . import machine, report
from .models import TYPES
from .paths import BUILD, EXAMPLES
from .speed import add_output_options, choose_levels

CHECKPOINT = EXAMPLES / "rwkv7-pydoc-L6-D256.pth"
TEXT = EXAMPLES / "heldout_a.txt"
PIECE = 1024
"""Tokens of a large piece."""


@dataclass
class Score:
    """Bits per byte of one type at one level, fed `piece` tokens at a time.

    Attributes:
        bits_per_byte: over `n_bytes` bytes.
        beginning: over the first bytes alone, which the reference level reads too.
    """

    dtype: str
    level: str
    piece: int
    n_bytes: int
    bits_per_byte: float
    beginning: float
    seconds: float


def bits(logits: NDArray[np.float32], targets: NDArray[np.int32]) -> NDArray[np.float64]:
    """-log2 softmax(logits)[target] of each row: logits (n, n_vocab), targets (n,)."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    nats = np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(x)), targets]
    return np.asarray(nats / np.log(2))


def score(
    path: str, dtype: str, level: str, piece: int, n_bytes: int | None, n_beginning: int
) -> Score:
    """Reads the text; runs in a process of its own, because the level is chosen by environment."""
    os.environ["RWKV_KERNELS"] = level
    from .engines.runtime import Engine

    if level == "reference":
        n_bytes = n_beginning
    tokens = np.frombuffer(TEXT.read_bytes()[:n_bytes], np.uint8).astype(np.int32)
    engine = Engine(path, 1)
    start = time.perf_counter()
    found = np.concatenate(
        [bits(engine.feed_all(inputs), targets) for inputs, targets in _pieces(tokens, piece)]
    )
    seconds = time.perf_counter() - start
    engine.close()
    beginning = float(found[: n_beginning - 1].mean())
    return Score(dtype, level, piece, len(found), float(found.mean()), beginning, seconds)


def _pieces(
    tokens: NDArray[np.int32], piece: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    for begin in range(0, len(tokens) - 1, piece):
        end = min(begin + piece, len(tokens) - 1)
        yield tokens[begin:end], tokens[begin + 1 : end + 1]


def tables(scores: list[Score], n_beginning: int) -> list[report.Table]:
    """A row for each type and level."""
    value = {(s.dtype, s.level, s.piece): s for s in scores}
    rows = []
    for dtype, level in dict.fromkeys((s.dtype, s.level) for s in scores):
        if level == "reference":
            continue
        ways = [value[dtype, level, 1], value[dtype, level, PIECE]]
        reference = value.get((dtype, "reference", 1))
        away = "-"
        if reference is not None:
            ratios = [way.beginning / reference.beginning for way in ways]
            away = f"{100 * max(abs(ratio - 1) for ratio in ratios):.3f} %"
        rows.append([dtype, level, *(f"{way.bits_per_byte:.4f}" for way in ways), away])
    n_bytes = max(s.n_bytes for s in scores)
    return [
        report.Table(
            f"Bits per byte of {n_bytes} bytes; the difference from the reference level is that "
            f"over the first {n_beginning - 1} bytes, the larger of both ways of feeding",
            ["type", "level", "token by token", f"{PIECE} tokens at a time", "from reference"],
            rows,
            n_labels=2,
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
    add_output_options(parser)
    args = parser.parse_args()
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
        for dtype in types:
            paths[dtype] = Path(folder) / f"{dtype}.bin"
            rwkv_convert.convert(CHECKPOINT, paths[dtype], dtype=dtype)
        futures = [
            pool.submit(score, str(paths[dtype]), dtype, level, piece, args.bytes, args.beginning)
            for dtype, level, piece in runs
        ]
        for future in futures:
            future.add_done_callback(lambda _: bar.update())
        scores = [future.result() for future in futures]
    report.publish(
        args,
        "bits-per-byte",
        machine.sentence(about),
        tables(scores, args.beginning),
        {"machine": about, "scores": [asdict(s) for s in scores]},
        args.output.with_suffix(".json"),
    )


if __name__ == "__main__":
    main()
