"""The values of a GGUF file's metadata: how each kind is stored."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Kinds of numbers, as struct's formats."""
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class GgufValue:
    """A value as it stands in a file.

    Attributes:
        kind: its number.
        raw: its bytes, without that number.
    """

    kind: int
    raw: bytes

    def scalar(self) -> Scalar | None:
        """The number or text, None if it is a list or no UTF-8."""
        if self.kind == STRING:
            try:
                return self.raw[8:].decode()
            except UnicodeDecodeError:
                return None
        if self.kind in SCALARS:
            value: int | float | bool
            (value,) = struct.unpack("<" + SCALARS[self.kind], self.raw)
            return value
        return None

    def count(self) -> int | None:
        """The length of a list, None if it is none."""
        return int.from_bytes(self.raw[4:12], "little") if self.kind == ARRAY else None


def uint32(value: int) -> GgufValue:
    """A count."""
    return GgufValue(UINT32, struct.pack("<I", value))


def float32(value: float) -> GgufValue:
    """A number."""
    return GgufValue(FLOAT32, struct.pack("<f", value))


def string(text: str) -> GgufValue:
    """A text."""
    return GgufValue(STRING, packed(text.encode()))


def strings(texts: Sequence[bytes]) -> GgufValue:
    """A list of texts."""
    head = struct.pack("<IQ", STRING, len(texts))
    return GgufValue(ARRAY, head + b"".join(map(packed, texts)))


def int32s(values: Sequence[int]) -> GgufValue:
    """A list of integers."""
    return GgufValue(ARRAY, struct.pack(f"<IQ{len(values)}i", INT32, len(values), *values))


def packed(text: bytes) -> bytes:
    """A text after its length."""
    return struct.pack("<Q", len(text)) + text
