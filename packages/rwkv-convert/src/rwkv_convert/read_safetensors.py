"""`.safetensors` / `.st` files: the table of contents.

8 bytes     length of the header, little-endian
header      JSON: {"name": {"dtype": "BF16", "shape": [..], "data_offsets": [begin, end]}, ..}
data        offsets count from here; no holes, no overlaps
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .checkpoint import MAX_TENSORS, Checkpoint, TensorView
from .element_types import BF16, FP16, FP32, FP64, OTHER_TYPES, ElementType
from .errors import DOWNLOAD_AGAIN, CheckpointError, quote
from .input_file import InputFile

MAX_HEADER_BYTES = 2 << 20
"""Five times what a model of 100 layers needs; the format's own limit is 100 MB. A byte of JSON may
cost 20 of memory."""

TYPES: dict[str, ElementType] = {
    "F32": FP32,
    "F16": FP16,
    "BF16": BF16,
    "F64": FP64,
    "F8_E4M3": OTHER_TYPES["fp8_e4m3"],
    "F8_E5M2": OTHER_TYPES["fp8_e5m2"],
    "I64": OTHER_TYPES["int64"],
    "I32": OTHER_TYPES["int32"],
    "I16": OTHER_TYPES["int16"],
    "I8": OTHER_TYPES["int8"],
    "U64": OTHER_TYPES["uint64"],
    "U32": OTHER_TYPES["uint32"],
    "U16": OTHER_TYPES["uint16"],
    "U8": OTHER_TYPES["uint8"],
    "BOOL": OTHER_TYPES["bool"],
}


SAFETENSORS_HEAD = re.compile(rb".{8}\{", re.DOTALL)
"""How a safetensors file begins: a length, then JSON."""


def read_safetensors(file: InputFile) -> Checkpoint:
    """Reads the header and checks that the tensors fill the data without holes or overlaps.

    Raises:
        CheckpointError: a damaged file, or one with a data type that we do not know.
    """
    path = file.path
    header_bytes = int.from_bytes(file.read(0, 8), "little")
    limit = min(MAX_HEADER_BYTES, file.size - 8)
    if header_bytes > limit:
        raise CheckpointError(
            f"{path}: safetensors header, expected at most {limit} bytes, "
            f"got a length of {header_bytes}",
            remedy=DOWNLOAD_AGAIN,
        )
    text = file.read(8, header_bytes)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_no_duplicates)
    except _DuplicateKeyError as error:
        raise CheckpointError(
            f"{path}: tensor {quote(str(error))}: expected each name once, got it twice"
        ) from None
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, an endless number
        raise CheckpointError(
            f"{path}: safetensors header, expected JSON, got something else",
            remedy=DOWNLOAD_AGAIN,
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: safetensors header, expected a JSON object, got something else"
        )
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path}: expected at most {MAX_TENSORS} tensors, got {len(header)}")

    data = 8 + header_bytes
    tensors: dict[str, TensorView] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        where = f"{path}: tensor {quote(name)}"
        type, shape, begin, end = _entry(entry, where)
        size = type.bytes_of(math.prod(shape))
        if end - begin != size:
            raise CheckpointError(
                f"{where}: {quote(shape)} of {type} takes {quote(size)} bytes, expected data "
                f"offsets so far apart, got {quote([begin, end])}"
            )
        if data + end > file.size:
            raise CheckpointError(
                f"{where}: truncated, expected data up to byte {data + end}, "
                f"got a file of {file.size} bytes",
                remedy=DOWNLOAD_AGAIN,
            )
        tensors[name] = TensorView.contiguous(type, data + begin, shape)
        spans.append((begin, end, name))

    filled = 0
    for begin, end, name in sorted(spans):
        if begin != filled:
            raise CheckpointError(
                f"{path}: tensor {quote(name)}: expected data from offset {filled} on, "
                f"got {begin}: safetensors files have no holes and no overlaps"
            )
        filled = end
    if data + filled != file.size:
        raise CheckpointError(
            f"{path}: expected {data + filled} bytes, got {file.size}", remedy=DOWNLOAD_AGAIN
        )
    return Checkpoint(path, file.stamp, "safetensors", tensors)


class _DuplicateKeyError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKeyError(key)
        result[key] = value
    return result


def _entry(entry: Any, where: str) -> tuple[ElementType, tuple[int, ...], int, int]:
    """Type, shape and data offsets of one tensor, checked one by one."""
    if not isinstance(entry, dict):
        raise CheckpointError(
            f"{where}: expected an object with dtype, shape and data_offsets, got {quote(entry)}"
        )
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise CheckpointError(
            f"{where}: dtype, expected one of {', '.join(TYPES)}, got {quote(dtype)}"
        )
    shape = _counts(entry.get("shape"))
    if shape is None or len(shape) > 8:
        raise CheckpointError(
            f"{where}: shape, expected up to 8 counts, got {quote(entry.get('shape'))}"
        )
    offsets = _counts(entry.get("data_offsets"))
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{where}: data_offsets, expected [begin, end], got {quote(entry.get('data_offsets'))}"
        )
    return TYPES[dtype], tuple(shape), offsets[0], offsets[1]


def _counts(value: Any) -> list[int] | None:
    """The value if it is a list of counts."""
    if isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value):
        return value
    return None
