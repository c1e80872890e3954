"""How others name a model's tensors, and store them: each layout a table of names and changes.

A row says: their name, the official names of what it holds, and the change. In names `{i}` stands
for a layer's number, `{rest}` for any remainder; the first row that matches a name counts, and what
no row matches keeps its name. Names come without the prefix that all tensors of the model share
(`model.`, `rwkv.`), which `official_names` takes off. To add a layout, add an entry to LAYOUTS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Change(Enum):
    """How a tensor of theirs becomes official ones, each a view of the same numbers."""

    SAME = "the same; dimensions of size 1 may come and go"
    TRANSPOSE = "its two dimensions are exchanged"
    SPLIT = "along its first dimension it holds the official tensors, in the order of the row"
    ROW_BLOCKS = "equal blocks of rows; transposed and reordered, one beside the other"
    COLUMN_BLOCKS = "equal blocks of columns; transposed and reordered, one behind the other"


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """One line of a layout.

    Attributes:
        theirs: name in this layout.
        ours: official names: several where the tensor is split, else one.
        change: from theirs to ours.
        order: of blocks: for each of the official tensor's, its index in theirs.
    """

    theirs: str
    ours: tuple[str, ...]
    change: Change = Change.SAME
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """How somebody names a model's tensors.

    Attributes:
        name: for people.
        marks: names, as in rows, one of which every such model has and no layout above it.
        rows: what is named or stored otherwise than officially.
    """

    name: str
    marks: tuple[str, ...]
    rows: tuple[LayoutRow, ...]


HEADS = ("head.weight", "lm_head.weight")
"""The head stands beside the model in many classes, so it may lack a part of the prefix."""


def _row(
    theirs: str, *ours: str, change: Change = Change.SAME, order: tuple[int, ...] = ()
) -> LayoutRow:
    return LayoutRow(theirs, ours, change, order)


_THEIR, _OUR = "layers.{i}.", "blocks.{i}."

_EMBEDDING = _row("embeddings.weight", "emb.weight")
_EMBED_TOKENS = _row("embed_tokens.weight", "emb.weight")
_HEAD = _row("lm_head.weight", "head.weight")
_NORM = _row("norm.{rest}", "ln_out.{rest}")
_FLA_NORMS = (
    _row(_THEIR + "pre_norm.{rest}", _OUR + "ln0.{rest}"),
    _row(_THEIR + "attn_norm.{rest}", _OUR + "ln1.{rest}"),
    _row(_THEIR + "ffn_norm.{rest}", _OUR + "ln2.{rest}"),
)


def _projections(folder: str) -> tuple[LayoutRow, ...]:
    """Matrices and the group norm of a time mix, as fla and those after it name them."""
    names = {"r": "receptance", "k": "key", "v": "value", "o": "output"}
    return (
        *(
            _row(f"{_THEIR}{folder}.{letter}_proj.weight", f"{_OUR}att.{name}.weight")
            for letter, name in names.items()
        ),
        _row(_THEIR + folder + ".g_norm.{rest}", _OUR + "att.ln_x.{rest}"),
    )


def _low_rank(theirs: str, first: str, second: str, bias: str) -> tuple[LayoutRow, ...]:
    """Two linear layers, y = B f(A x) + bias, whose matrices are transposed official ones."""
    attn, att = _THEIR + "attn.", _OUR + "att."
    return (
        _row(f"{attn}{theirs}.0.weight", att + first, change=Change.TRANSPOSE),
        _row(f"{attn}{theirs}.2.weight", att + second, change=Change.TRANSPOSE),
        _row(f"{attn}{theirs}.2.bias", att + bias),
    )


_FLA_7 = Layout(
    "fla RWKV-7",
    (_THEIR + "attn.k_k", _THEIR + "attn.r_k", _THEIR + "attn.x_x"),
    (
        _EMBEDDING,
        _EMBED_TOKENS,
        _HEAD,
        _NORM,
        *_FLA_NORMS,
        _row(  # files of 2024: all six in one
            _THEIR + "attn.x_x",
            *(f"{_OUR}att.x_{letter}" for letter in "rwkvag"),
            change=Change.SPLIT,
        ),
        *(
            row
            for letter in "wavg"
            for row in _low_rank(f"{letter}_lora.lora", f"{letter}1", f"{letter}2", f"{letter}0")
        ),
        *_projections("attn"),
        _row(_THEIR + "attn.{rest}", _OUR + "att.{rest}"),
        _row(_THEIR + "ffn.{rest}", _OUR + "ffn.{rest}"),
    ),
)

_FROM_RWKVG = (1, 2, 3, 0, 4)
"""fla keeps RWKV-6's five token shifts in the order r w k v g, officially it is w k v r g."""

_FLA_6 = Layout(
    "fla RWKV-6",
    (_THEIR + "attn.x_bias", _THEIR + "attn.bonus"),
    (
        _EMBEDDING,
        _HEAD,
        _NORM,
        *_FLA_NORMS,
        _row(_THEIR + "attn.x_proj.0.mu", _OUR + "att.time_maa_x"),
        _row(
            _THEIR + "attn.x_proj.0.linear.weight",
            _OUR + "att.time_maa_w1",
            change=Change.ROW_BLOCKS,
            order=_FROM_RWKVG,
        ),
        _row(
            _THEIR + "attn.x_proj.2.weight",
            _OUR + "att.time_maa_w2",
            change=Change.COLUMN_BLOCKS,
            order=_FROM_RWKVG,
        ),
        _row(
            _THEIR + "attn.x_bias",
            *(f"{_OUR}att.time_maa_{letter}" for letter in "rwkvg"),
            change=Change.SPLIT,
        ),
        *_low_rank("w_proj.linear.lora", "time_decay_w1", "time_decay_w2", "time_decay"),
        _row(_THEIR + "attn.r_proj.linear.weight", _OUR + "att.receptance.weight"),
        _row(_THEIR + "attn.k_proj.linear.weight", _OUR + "att.key.weight"),
        _row(_THEIR + "attn.v_proj.linear.weight", _OUR + "att.value.weight"),
        _row(_THEIR + "attn.g_proj.linear.weight", _OUR + "att.gate.weight"),
        _row(_THEIR + "attn.o_proj.weight", _OUR + "att.output.weight"),
        _row(_THEIR + "attn.bonus", _OUR + "att.time_faaaa"),
        _row(_THEIR + "attn.g_norm.{rest}", _OUR + "att.ln_x.{rest}"),
        _row(_THEIR + "ffn.key.linear.weight", _OUR + "ffn.key.weight"),
        _row(_THEIR + "ffn.key.mu", _OUR + "ffn.time_maa_k"),
        _row(_THEIR + "ffn.receptance.linear.weight", _OUR + "ffn.receptance.weight"),
        _row(_THEIR + "ffn.receptance.mu", _OUR + "ffn.time_maa_r"),
        _row(_THEIR + "ffn.value.weight", _OUR + "ffn.value.weight"),
    ),
)

_RWKV_RS = Layout(
    "rwkv-rs RWKV-7",
    (_THEIR + "linear_attn.k_k", _THEIR + "linear_attn.r_k"),
    (
        _EMBED_TOKENS,
        _HEAD,
        _NORM,
        _row("embedding_norm.{rest}", "blocks.0.ln0.{rest}"),
        _row(_THEIR + "input_layernorm.{rest}", _OUR + "ln1.{rest}"),
        _row(_THEIR + "post_attention_layernorm.{rest}", _OUR + "ln2.{rest}"),
        *_projections("linear_attn"),
        _row(_THEIR + "linear_attn.{rest}", _OUR + "att.{rest}"),
        _row(_THEIR + "mlp.{rest}", _OUR + "ffn.{rest}"),
    ),
)

# RWKV-4 in transformers itself, RWKV-5 and 6 as code that comes with their models.
_MIXES = {"key": "k", "value": "v", "receptance": "r", "gate": "g"}
_TRANSFORMERS = Layout(
    "transformers",
    (_OUR + "attention.{rest}",),
    (
        _EMBEDDING,
        _row(_OUR + "pre_ln.{rest}", _OUR + "ln0.{rest}"),
        *(
            _row(f"{_OUR}{theirs}.time_mix_{name}", f"{_OUR}{ours}.time_mix_{letter}")
            for theirs, ours in (("attention", "att"), ("feed_forward", "ffn"))
            for name, letter in _MIXES.items()
        ),
        _row(_OUR + "attention.{rest}", _OUR + "att.{rest}"),
        _row(_OUR + "feed_forward.{rest}", _OUR + "ffn.{rest}"),
    ),
)

# Those of RWKV-LM, its releases and trainers; transformers' RWKV-7 and rwkv-rs put a prefix before.
OFFICIAL = Layout("official names", (_OUR + "{rest}",), (_EMBEDDING, _HEAD))

LAYOUTS = (_FLA_7, _FLA_6, _RWKV_RS, _TRANSFORMERS, OFFICIAL)
"""A model is of the first whose mark it has."""
