"""`rwkv info`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from .options import AsJson, ModelArgument, Opening, with_groups
from .output import show


@with_groups
def info(*, model: ModelArgument, opening: Opening, as_json: AsJson = False) -> None:
    """Say what a model file is, and how it would run here."""
    opened = opening.model(model)
    facts = dataclasses.asdict(opened.info)
    facts["fingerprint"] = f"{opened.info.fingerprint:016x}"  # JSON readers round large integers
    show({"path": opened.path, **facts}, _readable(facts), as_json=as_json, title=opened.path)


def _readable(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of `rwkv info`."""
    yield "architecture", f"RWKV-{facts['version']}"
    if facts["name"]:
        yield "name", facts["name"]
    yield "type", facts["data_type"]
    yield "parameters", f"{facts['n_parameters']:,}"
    yield "layers", str(facts["n_layer"])
    yield "width", f"{facts['n_embd']} (channel mix {facts['n_ffn']})"
    if facts["n_head"]:
        yield "heads", f"{facts['n_head']} of {facts['head_size']}"
        yield "ln_x_eps", f"{facts['ln_x_eps']:.3g}"
    own = ", in the file" if facts["has_tokenizer"] else ""
    yield "vocabulary", f"{facts['n_vocab']} tokens{own}"
    yield "state", f"{facts['state_size'] * 4 / 1e6:.2f} MB"
    yield "begins with", "its own initial state" if facts["has_time_state"] else "a blank state"
    yield "file", f"{facts['file_bytes'] / 1e6:.1f} MB, {facts['container']}"
    yield "weights in memory", f"{facts['weight_bytes'] / 1e6:.1f} MB"
    yield "fingerprint", facts["fingerprint"]
    yield "kernels", facts["kernels"]
    yield "threads", str(facts["n_threads"])
