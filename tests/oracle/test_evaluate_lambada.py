"""`lambada` against the logits of the PyPI package `rwkv`, by the definition of RWKV-LM's demos."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oracle.reference_rwkv import reference
from rwkv_py.evaluate import lambada


def test_lambada_is_the_packages(examples: Path, converted: Callable[[str], Path]) -> None:
    text = (examples / "heldout_a.txt").read_text()
    # Of these some last words are guessed and some are not.
    passages = [text[at : text.index(" ", at + 200)].rstrip() for at in range(3000, 9000, 1000)]
    n_right, log_p = 0, 0.0
    for passage in passages:
        context, word = passage.rsplit(" ", 1)
        read, target = [0, *context.encode()], list(f" {word}".encode())
        logits, _ = reference(examples / "rwkv7-pydoc-L6-D256.pth", [*read, *target])["one"]
        correct = True
        for row, token in zip(logits[len(read) - 1 : -1].astype(np.float64), target, strict=True):
            log_p += row[token] - np.logaddexp.reduce(row)
            correct &= row.argmax() == token
        n_right += correct
    found = lambada(converted("fp32"), passages)
    assert found.accuracy == n_right / len(passages)
    assert found.perplexity == pytest.approx(math.exp(-log_p / len(passages)), rel=1e-4)
