"""The list of types that weights are stored in, and how users name them."""

from __future__ import annotations

from typing import Literal

from .blocks_32 import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from .blocks_256 import IQ4_NL, Q4_K, Q5_K, Q6_K
from .element_types import BF16, FP16, FP32, ElementType
from .errors import OptionError, quote

Container = Literal["ggmf", "gguf"]
CONTAINERS: tuple[Container, ...] = ("ggmf", "gguf")
"""What models are written in."""

WEIGHT_TYPES: dict[str, ElementType] = {
    type.name: type
    for type in (FP32, FP16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL)
}
"""All of them, by name."""

GGMF_TYPES = {type.ggmf: type for type in WEIGHT_TYPES.values() if type.ggmf is not None}
"""What a ggmf file may hold, by its number there."""

GGUF_TYPES = {type.gguf: type for type in WEIGHT_TYPES.values() if type.gguf is not None}
"""What a GGUF file may hold, by its number there."""

MIXES = {"q4_K_M": Q4_K, "q5_K_M": Q5_K}
"""llama.cpp's names for a choice of types, and that of most matrices. For RWKV, whose matrices it
knows no differences between, the choice is the same as for the type alone."""

FALLBACKS: dict[ElementType, ElementType] = {Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}
"""What llama.cpp takes for rows that are no multiple of 256. For those that are no multiple of 32
it takes fp16, as for all other types."""


def fitting(type: ElementType, columns: int) -> ElementType:
    """The type itself, or the one that is taken for rows that its blocks do not fit into."""
    while columns % type.block:
        type = FALLBACKS.get(type, FP16)
    return type


DTYPES: dict[str, ElementType] = {**WEIGHT_TYPES, **MIXES}
"""What a user may ask for, and the type that it means for most matrices."""

_ALIASES = {"float32": "fp32", "f32": "fp32", "float16": "fp16", "f16": "fp16", "bfloat16": "bf16"}
_NAMES = {name.lower(): name for name in DTYPES}


def parse_dtype(text: str, option: str = "dtype") -> str:
    """The name of a type that a user named: `q4_0`, `Q4_0`, `q4_k_m`, `FP16`, `float16`, `f16` ...

    Args:
        text: the name.
        option: the argument that it was given for.

    Returns:
        a key of DTYPES.

    Raises:
        OptionError: there is no such type.
    """
    name = text.strip().lower() if isinstance(text, str) else ""
    found = _NAMES.get(_ALIASES.get(name, name))
    if found is None:
        raise OptionError(option, f"expected one of {', '.join(DTYPES)}, got {quote(text)}")
    return found


def container_for(dtype: str) -> Literal["ggmf", "gguf"]:
    """The container for a file of a type: ggmf where it can hold that, else GGUF.

    Args:
        dtype: a name as `parse_dtype` gives it.
    """
    return "gguf" if DTYPES[dtype].ggmf is None else "ggmf"


def check_ggmf(name: str, option: str) -> None:
    """Makes sure that a ggmf file can hold a type.

    Raises:
        OptionError: it cannot.
    """
    if DTYPES[name].ggmf is None:
        known = ", ".join(type.name for type in GGMF_TYPES.values())
        raise OptionError(option, f"expected one of {known} for a ggmf file, got {name}")
