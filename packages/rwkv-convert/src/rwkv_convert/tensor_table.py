"""Which tensors each RWKV version has, and what becomes of each: the policy, as tables.

A row says: the tensor's official name, its role, its official shape, the change it undergoes and
its shape in a model file. The role decides the type it is written in (`ROLE_TYPES`). A ggmf file
that is requantised uses the same rows without the change.

Shapes are in PyTorch's order and made of these letters, or of numbers:

    V  vocabulary    C  width (n_embd)    F  width of the channel mix    H  heads    N  head size
    other letters    ranks of low-rank matrices, free in each layer

Size-1 dimensions may be missing from or added to a checkpoint's vectors, as in "1 1 C".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .blocks_32 import Q8_0
from .element_types import FP32, ElementType
from .weight_types import WEIGHT_TYPES


class Role(Enum):
    """What a tensor is, as far as choosing its type is concerned."""

    VECTOR = "vectors, and whatever is not multiplied as a matrix"
    MATRIX = "layer matrices"
    EMBEDDING = "emb.weight"
    HEAD = "head.weight"
    LOW_RANK = "RWKV-7's low-rank matrices"
    DECAY_LOW_RANK = "RWKV-7's w1 and w2, which llama.cpp treats by their names"
    TIME_LOW_RANK = "RWKV-6's low-rank matrices, which rwkv.cpp treats by their names `time_`"
    TIME_LOW_RANK_3D = "RWKV-6's time_maa_w2, five matrices in one tensor"


class Change(Enum):
    """What happens to a checkpoint's tensor on its way into a model file."""

    RESHAPE = "the same numbers in the same order, at most in another shape"
    TRANSPOSE = "the last two dimensions are exchanged"
    JOIN = "joined with its neighbours in the table, on dimension 0"
    NEG_EXP = "-exp(x)"
    EXP = "exp(x)"
    EXP_NEG_EXP = "exp(-exp(x))"


class Layers(Enum):
    """In which layers a row's tensor exists."""

    ALL = "every layer"
    FIRST = "layer 0 only"
    NOT_FIRST = "every layer but 0, where it is unused: left out if it is there"
    OPTIONAL = "every layer, or none"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a version's table.

    Attributes:
        name: official name; `{i}` stands for the layer's number.
        role: decides the type.
        shape: official shape.
        change: from the checkpoint to the file.
        file_shape: shape in a model file.
        file_name: name in a model file; the official one if empty.
        layers: where it exists.
    """

    name: str
    role: Role
    shape: str
    change: Change
    file_shape: str
    file_name: str = ""
    layers: Layers = Layers.ALL

    @property
    def is_per_layer(self) -> bool:
        """Whether there is one in each layer (or in the first)."""
        return "{i}" in self.name

    @property
    def name_in_file(self) -> str:
        """Name in a model file, with `{i}`."""
        return self.file_name or self.name


def _row(
    name: str,
    role: Role,
    shape: str,
    change: Change = Change.RESHAPE,
    file_shape: str = "",
    file_name: str = "",
    layers: Layers = Layers.ALL,
) -> Row:
    return Row(name, role, shape, change, file_shape or shape, file_name, layers)


# --------------------------------------------------------------------------------------------------
# The tables

_V, _M, _LR = Role.VECTOR, Role.MATRIX, Role.LOW_RANK
_TLR, _TLR3 = Role.TIME_LOW_RANK, Role.TIME_LOW_RANK_3D
_T, _B = Change.TRANSPOSE, "blocks.{i}."
_ATT, _FFN = _B + "att.", _B + "ffn."

_BEFORE_LAYERS = [_row("emb.weight", Role.EMBEDDING, "V C")]
_AFTER_LAYERS = [
    _row("ln_out.weight", _V, "C"),
    _row("ln_out.bias", _V, "C"),
    _row("head.weight", Role.HEAD, "V C"),
]
_NORMS = [
    _row(_B + "ln0.weight", _V, "C", layers=Layers.FIRST),
    _row(_B + "ln0.bias", _V, "C", layers=Layers.FIRST),
    _row(_B + "ln1.weight", _V, "C"),
    _row(_B + "ln1.bias", _V, "C"),
    _row(_B + "ln2.weight", _V, "C"),
    _row(_B + "ln2.bias", _V, "C"),
]
_RECEPTANCE_KEY_VALUE = [
    _row(_ATT + "receptance.weight", _M, "C C"),
    _row(_ATT + "key.weight", _M, "C C"),
    _row(_ATT + "value.weight", _M, "C C"),
]
_GATE = [_row(_ATT + "gate.weight", _M, "C C")]
_OUTPUT = [_row(_ATT + "output.weight", _M, "C C")]
_GROUP_NORM = [
    _row(_ATT + "ln_x.weight", _V, "C"),
    _row(_ATT + "ln_x.bias", _V, "C"),
]
_FFN_KEY_VALUE = [
    _row(_FFN + "key.weight", _M, "F C"),
    _row(_FFN + "value.weight", _M, "C F"),
]
_FFN_RECEPTANCE = [_row(_FFN + "receptance.weight", _M, "C C")]

# An initial state, made by state tuning. Row = value's channel, in the checkpoint and in the file.
# Last in each layer, because a wrong one must not tell the other tensors what H is.
_TIME_STATE = [_row(_ATT + "time_state", _V, "H N N", layers=Layers.OPTIONAL)]


def _table(*groups: list[Row]) -> list[Row]:
    """A version's rows: in this order, layer after layer, its tensors stand in a model file."""
    layer = [row for group in groups for row in group]
    return [*_BEFORE_LAYERS, *layer, *_AFTER_LAYERS]


_MIX_V4_AND_V5 = [
    _row(_ATT + "time_mix_k", _V, "1 1 C", file_shape="C"),
    _row(_ATT + "time_mix_v", _V, "1 1 C", file_shape="C"),
    _row(_ATT + "time_mix_r", _V, "1 1 C", file_shape="C"),
]
_MIX_GATE_V5 = [_row(_ATT + "time_mix_g", _V, "1 1 C", file_shape="C")]
_FFN_V4_AND_V5 = [
    _row(_FFN + "time_mix_k", _V, "1 1 C", file_shape="C"),
    _row(_FFN + "time_mix_r", _V, "1 1 C", file_shape="C"),
    *_FFN_KEY_VALUE,
    *_FFN_RECEPTANCE,
]

_V4 = _table(
    _NORMS,
    _MIX_V4_AND_V5,
    [
        _row(_ATT + "time_decay", _V, "C", Change.NEG_EXP),
        _row(_ATT + "time_first", _V, "C"),
    ],
    _RECEPTANCE_KEY_VALUE,
    _OUTPUT,
    _FFN_V4_AND_V5,
)

_V5_1 = _table(
    _NORMS,
    _MIX_V4_AND_V5,
    [
        _row(_ATT + "time_decay", _V, "H", Change.EXP_NEG_EXP, "H 1 1"),
        _row(_ATT + "time_first", _V, "H", Change.EXP, "H 1 1"),
    ],
    _RECEPTANCE_KEY_VALUE,
    _OUTPUT,
    _GROUP_NORM,
    _FFN_V4_AND_V5,
    _TIME_STATE,
)

# A gate, but one decay per head: every channel of a head gets the head's value, which makes it 5.2.
_V5_1_GATE = _table(
    _NORMS,
    _MIX_V4_AND_V5,
    _MIX_GATE_V5,
    [
        _row(_ATT + "time_decay", _V, "H", Change.EXP_NEG_EXP, "H N 1"),
        _row(_ATT + "time_first", _V, "H", Change.EXP, "H N 1", file_name=_ATT + "time_faaaa"),
    ],
    _RECEPTANCE_KEY_VALUE,
    _GATE,
    _OUTPUT,
    _GROUP_NORM,
    _FFN_V4_AND_V5,
    _TIME_STATE,
)

_V5_2 = _table(
    _NORMS,
    _MIX_V4_AND_V5,
    _MIX_GATE_V5,
    [
        _row(_ATT + "time_decay", _V, "H N", Change.EXP_NEG_EXP, "H N 1"),
        _row(_ATT + "time_faaaa", _V, "H N", file_shape="H N 1"),
    ],
    _RECEPTANCE_KEY_VALUE,
    _GATE,
    _OUTPUT,
    _GROUP_NORM,
    _FFN_V4_AND_V5,
    _TIME_STATE,
)

_V6 = _table(
    _NORMS,
    [
        _row(_ATT + "time_maa_x", _V, "1 1 C", file_shape="C"),
        _row(_ATT + "time_maa_w", _V, "1 1 C", file_shape="C"),
        _row(_ATT + "time_maa_k", _V, "1 1 C", file_shape="C"),
        _row(_ATT + "time_maa_v", _V, "1 1 C", file_shape="C"),
        _row(_ATT + "time_maa_r", _V, "1 1 C", file_shape="C"),
        _row(_ATT + "time_maa_g", _V, "1 1 C", file_shape="C"),
        _row(_ATT + "time_maa_w1", _TLR, "C 5M", _T, "5M C"),
        _row(_ATT + "time_maa_w2", _TLR3, "5 M C", _T, "5 C M"),
        _row(_ATT + "time_decay", _V, "1 1 C", file_shape="H N 1"),
        _row(_ATT + "time_decay_w1", _TLR, "C D", _T, "D C"),
        _row(_ATT + "time_decay_w2", _TLR, "D C", _T, "C D"),
        _row(_ATT + "time_faaaa", _V, "H N", file_shape="H N 1"),
    ],
    _RECEPTANCE_KEY_VALUE,
    _GATE,
    _OUTPUT,
    _GROUP_NORM,
    [
        _row(_FFN + "time_maa_k", _V, "1 1 C", file_shape="C"),
        _row(_FFN + "time_maa_r", _V, "1 1 C", file_shape="C"),
    ],
    _FFN_KEY_VALUE,
    _FFN_RECEPTANCE,
    _TIME_STATE,
)

_RWKVAG = _ATT + "x_rwkvag"
_V7 = _table(
    _NORMS,
    [
        _row(_ATT + "x_r", _V, "1 1 C", Change.JOIN, "6 1 C", _RWKVAG),
        _row(_ATT + "x_w", _V, "1 1 C", Change.JOIN, "6 1 C", _RWKVAG),
        _row(_ATT + "x_k", _V, "1 1 C", Change.JOIN, "6 1 C", _RWKVAG),
        _row(_ATT + "x_v", _V, "1 1 C", Change.JOIN, "6 1 C", _RWKVAG),
        _row(_ATT + "x_a", _V, "1 1 C", Change.JOIN, "6 1 C", _RWKVAG),
        _row(_ATT + "x_g", _V, "1 1 C", Change.JOIN, "6 1 C", _RWKVAG),
        _row(_ATT + "w0", _V, "1 1 C"),
        _row(_ATT + "w1", Role.DECAY_LOW_RANK, "C W", _T, "W C"),
        _row(_ATT + "w2", Role.DECAY_LOW_RANK, "W C", _T, "C W"),
        _row(_ATT + "a0", _V, "1 1 C"),
        _row(_ATT + "a1", _LR, "C A", _T, "A C"),
        _row(_ATT + "a2", _LR, "A C", _T, "C A"),
        _row(_ATT + "v0", _V, "1 1 C", layers=Layers.NOT_FIRST),
        _row(_ATT + "v1", _LR, "C B", _T, "B C", layers=Layers.NOT_FIRST),
        _row(_ATT + "v2", _LR, "B C", _T, "C B", layers=Layers.NOT_FIRST),
        _row(_ATT + "g1", _LR, "C G", _T, "G C"),
        _row(_ATT + "g2", _LR, "G C", _T, "C G"),
        _row(_ATT + "k_k", _V, "1 1 C"),
        _row(_ATT + "k_a", _V, "1 1 C"),
        _row(_ATT + "r_k", _V, "H N"),
    ],
    _RECEPTANCE_KEY_VALUE,
    _OUTPUT,
    _GROUP_NORM,
    [_row(_FFN + "x_k", _V, "1 1 C")],
    _FFN_KEY_VALUE,
    _TIME_STATE,
)

TABLES: dict[str, list[Row]] = {
    "4": _V4,
    "5.1": _V5_1,
    "5.1-gate": _V5_1_GATE,
    "5.2": _V5_2,
    "6": _V6,
    "7": _V7,
}
"""By version. `5.1-gate` exists in checkpoints only: in a model file it is 5.2."""

# --------------------------------------------------------------------------------------------------
# Types


@dataclass(frozen=True, slots=True)
class RoleTypes:
    """The type a role is written in; `asked` stands for the type that the user asked for, `head`
    for what llama.cpp then takes for the head: q6_K, or q8_0 if q8_0 was asked for.

    Attributes:
        fp16: in a file of type fp16. (In one of type fp32 everything is fp32.)
        quantized: in a file of a quantised type.
        rwkv_cpp: in a file of a quantised type, in rwkv.cpp's layout.
        gguf_fp16: in a GGUF file of type fp16, as llama.cpp's converter chooses.
        gguf: in a GGUF file of a quantised type, as its quantiser chooses.
        option: which option overrides all of these.
    """

    fp16: str
    quantized: str
    rwkv_cpp: str
    gguf_fp16: str
    gguf: str
    option: str = ""


_LOW = "lowrank_dtype"
ROLE_TYPES: dict[Role, RoleTypes] = {
    #                                fp16    quantized  rwkv_cpp  gguf_fp16  gguf     option
    Role.VECTOR: RoleTypes(          "fp32", "fp32",    "fp32",   "fp32",    "fp32"),
    Role.MATRIX: RoleTypes(          "fp16", "asked",   "asked",  "fp16",    "asked"),
    Role.EMBEDDING: RoleTypes(       "fp16", "q8_0",    "fp16",   "fp16",    "asked", "emb_dtype"),
    Role.HEAD: RoleTypes(            "fp16", "q8_0",    "fp16",   "fp16",    "head",  "head_dtype"),
    Role.LOW_RANK: RoleTypes(        "fp16", "q8_0",    "fp16",   "fp16",    "fp16",  _LOW),
    Role.DECAY_LOW_RANK: RoleTypes(  "fp16", "q8_0",    "fp16",   "fp32",    "fp32",  _LOW),
    Role.TIME_LOW_RANK: RoleTypes(   "fp32", "q8_0",    "asked",  "fp32",    "fp32",  _LOW),
    Role.TIME_LOW_RANK_3D: RoleTypes("fp32", "q8_0",    "fp32",   "fp32",    "fp32",  _LOW),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """What the user asked for.

    Attributes:
        dtype: the file's type: that of most matrices.
        overrides: types by option (`head_dtype`, `emb_dtype`, `lowrank_dtype`).
        rwkv_cpp: make exactly rwkv.cpp's own choice.
        gguf: make llama.cpp's choice, for a GGUF file.
    """

    dtype: ElementType
    overrides: dict[str, ElementType]
    rwkv_cpp: bool = False
    gguf: bool = False

    def type_of(self, role: Role) -> ElementType:
        """The type to write a tensor of this role in."""
        types = ROLE_TYPES[role]
        if types.option in self.overrides:
            return self.overrides[types.option]
        if self.dtype is FP32:
            name = "fp32"
        elif not self.dtype.is_quantized:
            name = types.gguf_fp16 if self.gguf else types.fp16
            name = self.dtype.name if name == "fp16" else name  # fp16 or bf16
        elif self.gguf:
            name = types.gguf
        else:
            name = types.rwkv_cpp if self.rwkv_cpp else types.quantized
        if name == "head":
            name = "q8_0" if self.dtype is Q8_0 else "q6_K"
        return self.dtype if name == "asked" else WEIGHT_TYPES[name]
