"""A model that wants anything: random logits in place of a model's."""

from __future__ import annotations

from typing import Any

import numpy as np

from rwkv_py import Tokenizer
from rwkv_py.generation import Plan


def write(tokenizer: Tokenizer, n_vocab: int, seed: int, **options: Any) -> tuple[str, str]:
    """Let it write; return the text, and why it ended."""
    options = {"max_tokens": 400, "temperature": 1.5, "top_p": 1, "seed": seed, **options}
    builder, make_sampler, *_ = Plan.of(tokenizer, n_vocab, [0], **options)
    sampler = make_sampler()
    random = np.random.default_rng(seed)
    text = ""
    while builder.finish_reason is None and not builder.full:
        token = sampler.sample(random.normal(0, 2, n_vocab).astype(np.float32))
        text += builder.push(token)
        if builder.finish_reason is None:
            sampler.accept(token)
    if builder.finish_reason is None:
        text += builder.end("length")
    assert builder.finish_reason is not None
    return text, builder.finish_reason
