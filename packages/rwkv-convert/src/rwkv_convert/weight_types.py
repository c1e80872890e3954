"""The list of types that weights are stored in, and how users name them."""

from __future__ import annotations

from .blocks_32 import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from .blocks_256 import IQ4_NL, Q4_K, Q5_K, Q6_K
from .element_types import BF16, FP16, FP32, ElementType
from .errors import OptionError, quote

WEIGHT_TYPES: dict[str, ElementType] = {
    type.name: type
    for type in (FP32, FP16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL)
}
"""All of them, by name."""

GGMF_TYPES = {type.ggmf: type for type in WEIGHT_TYPES.values() if type.ggmf is not None}
"""What a ggmf file may hold, by its number there."""

GGUF_TYPES = {type.gguf: type for type in WEIGHT_TYPES.values() if type.gguf is not None}
"""What a GGUF file may hold, by its number there."""

OUTPUT_TYPES = {type.name: type for type in GGMF_TYPES.values()}
"""What we write, by name."""

_ALIASES = {"float32": "fp32", "f32": "fp32", "float16": "fp16", "f16": "fp16"}


def parse_output_type(text: str, option: str = "dtype") -> ElementType:
    """The type that a user named: `q4_0`, `Q4_0`, `fp16`, `FP16`, `float16`, `f16` ...

    Args:
        text: the name.
        option: the argument that it was given for.

    Raises:
        OptionError: there is no such type, or model files cannot hold it.
    """
    name = text.strip().lower() if isinstance(text, str) else ""
    found = OUTPUT_TYPES.get(_ALIASES.get(name, name))
    if found is None:
        raise OptionError(option, f"expected one of {', '.join(OUTPUT_TYPES)}, got {quote(text)}")
    return found
