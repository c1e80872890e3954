"""What guesses are worth: a pass over the weights that checks several tokens, against one for each.

    python -m benchmarks.speculate --quick

The weights are random, so the texts are given: the sampler draws, and then says the token that the
text has there. All else is as in `Session.stream`: passes, taking back, the choice of how many
guesses. The model need not have read what a guesser looks through: a recurrent model's speed does
not depend on how much it has read.

1. The time of a pass of k rows, all of them kept, and half of them.
2. Guesses of one who knows the text and errs at a rate: with five in each pass, and as many as are
   chosen.
3. What followed the same words before: a file of this repository that is edited, a section of the
   README that is written with a guide at hand, records in JSON.
4. A draft of the 0.1B shape, whose guesses are made to hold at a rate; what it computes counts.

The plain text is written beside each in turn; figures are medians of the ratios.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from . import command, machine, quiet, report
from .models import SHAPES, TYPES
from .paths import BUILD
from .speed import numbers
from .units import count, number, percent


@dataclass
class Curve:
    """A pass of so many rows: seconds, medians.

    Attributes:
        plain: of tokens that are all kept, as `rwkv_session_feed_all` reads them.
        kept, half: of a token and guesses, of which all hold, or half.
    """

    shape: str
    threads: int
    rows: int
    plain: float
    kept: float
    half: float


@dataclass
class Written:
    """A text with guesses against the same without.

    Attributes:
        plain, guessed: tokens per second.
        ratio: the median of those of neighbouring turns.
        held: the share of the guesses that held.
        per_pass: tokens a pass gave.
    """

    shape: str
    dtype: str
    level: str
    threads: int
    what: str
    plain: float
    guessed: float
    ratio: float
    held: float
    per_pass: float


def tables(curves: list[Curve], written: list[Written]) -> list[report.Table]:
    """The cost of rows; texts with guesses."""
    cost = report.Table(
        "A pass of k rows against one of a single row; and with taking back against without",
        ["model", "k", "ms", "of one row's", "taking back, all kept", "half kept"],
        [
            [
                f"{c.shape}, {count(c.threads, 'thread')}",
                str(c.rows),
                number(c.plain * 1e3),
                f"{c.plain / one:.2f} ×",
                percent(c.kept / c.plain - 1),
                percent(c.half / c.plain - 1),
            ]
            for c in curves
            for one in [
                next(
                    o.plain
                    for o in curves
                    if (o.shape, o.threads, o.rows) == (c.shape, c.threads, 1)
                )
            ]
        ],
    )
    texts = report.Table(
        "Texts with guesses against the same without, tokens per second",
        ["model", "guesses", "plain", "guessed", "ratio", "held", "tokens a pass"],
        [
            [
                f"{w.shape}, {w.dtype}, {count(w.threads, 'thread')}",
                w.what,
                number(w.plain),
                number(w.guessed),
                f"{w.ratio:.2f} ×",
                percent(w.held),
                f"{w.per_pass:.2f}",
            ]
            for w in written
        ],
    )
    return [cost, texts]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speculate", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument

    def shapes(text: str) -> list[str]:
        names = text.split(",")
        if not set(names) <= set(SHAPES):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(SHAPES)}, got {text}")
        return names

    add("--shapes", type=shapes, default=None, help="default: 0.4B,1.5B")
    add("--type", choices=TYPES, default="q4_0", help="default: q4_0")
    add("--threads", type=numbers, default=None, help="default: 1 and all physical cores")
    add("--tokens", type=int, default=None, help="of a text (default: 160)")
    add("--repeats", type=int, default=None, help="turns (default: 3)")
    add("--no-draft", dest="draft", action="store_false", help="leave the draft out")
    add("--quick", action="store_true", help="the 0.1B shape, short texts")
    add("--output", type=Path, default=BUILD / "speculate", help="where to: .json is added")
    args = command.parse(parser, arguments)
    cores = machine.physical_cores()
    args.shapes = args.shapes or (["0.1B"] if args.quick else ["0.4B", "1.5B"])
    args.threads = args.threads or sorted({1, cores})
    args.tokens = args.tokens or (60 if args.quick else 160)
    args.repeats = args.repeats or (1 if args.quick else 3)
    return args


def _run(args: argparse.Namespace, others: quiet.Others) -> command.Found:
    from .speculated_texts import measure  # which needs rwkv_py

    curves, written = measure(args, others)
    found = {"curves": [asdict(c) for c in curves], "written": [asdict(w) for w in written]}
    return tables(curves, written), found


def main() -> None:
    """The command."""
    command.run("speculate", parse(), _run)


if __name__ == "__main__":
    main()
