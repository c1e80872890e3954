"""`.pth` files, what `torch.save` writes: the table of contents.

    zip layout     a zip archive, nothing compressed: NAME/data.pkl is a pickle of the dict,
                   NAME/data/KEY the numbers of one storage, NAME/byteorder `little` or `big`
    legacy layout  (PyTorch before 1.6) five pickles one after the other: a magic number, a protocol
                   number, facts about the system, the dict, the list of storage keys; then for each
                   key an int64 count and the storage's numbers

In the dict a tensor is a call of `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides,
...)`, whose storage is a persistent id that names a key. Tensors may share a storage.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .checkpoint import Checkpoint, TensorView, read_exactly
from .element_types import BF16, FP16, FP32, OTHER_TYPES, ElementType
from .errors import CheckpointError, listing, quote
from .unpickle import Constructor, Global, RebuildError, Unpickler

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a" + re.escape(bytes.fromhex("6cfc9c46f9206aa85019")),
    re.DOTALL,
)
"""How a legacy file begins: the pickle of the number 0x1950a86a20f9469cfc6c."""
LEGACY_PROTOCOL = 1001

MAX_PICKLE_BYTES = 8 << 20
"""The pickle of a model of 100 layers has about 1 MB."""
MAX_MEMBERS = 100_000
MAX_DIMENSIONS = 8
MAX_REPEATED = 1 << 20
"""Tensors that use an element more than once (`expand`) may have this many elements."""


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of numbers, named by a key; `start` is non-zero for a legacy view of another one."""

    key: str
    type: ElementType
    count: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    type: ElementType
    offset: int  # in elements, from the storage's start
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_BYTES = OTHER_TYPES["uint8"]

_STORAGE_TYPES: dict[str, ElementType] = {
    "FloatStorage": FP32,
    "HalfStorage": FP16,
    "BFloat16Storage": BF16,
    "DoubleStorage": OTHER_TYPES["fp64"],
    "LongStorage": OTHER_TYPES["int64"],
    "IntStorage": OTHER_TYPES["int32"],
    "ShortStorage": OTHER_TYPES["int16"],
    "CharStorage": OTHER_TYPES["int8"],
    "ByteStorage": OTHER_TYPES["uint8"],
    "BoolStorage": OTHER_TYPES["bool"],
    "ComplexFloatStorage": OTHER_TYPES["complex64"],
    "ComplexDoubleStorage": OTHER_TYPES["complex128"],
}

_DTYPES: dict[str, ElementType] = {
    "float32": FP32,
    "float16": FP16,
    "bfloat16": BF16,
    "float64": OTHER_TYPES["fp64"],
    "float8_e4m3fn": OTHER_TYPES["fp8_e4m3"],
    "float8_e5m2": OTHER_TYPES["fp8_e5m2"],
    "int64": OTHER_TYPES["int64"],
    "int32": OTHER_TYPES["int32"],
    "int16": OTHER_TYPES["int16"],
    "int8": OTHER_TYPES["int8"],
    "uint64": OTHER_TYPES["uint64"],
    "uint32": OTHER_TYPES["uint32"],
    "uint16": OTHER_TYPES["uint16"],
    "uint8": OTHER_TYPES["uint8"],
    "bool": OTHER_TYPES["bool"],
    "complex64": OTHER_TYPES["complex64"],
    "complex128": OTHER_TYPES["complex128"],
}

_CONSTANTS: dict[Global, Any] = {
    **{Global("torch", name): type for name, type in _STORAGE_TYPES.items()},
    **{Global("torch", name): type for name, type in _DTYPES.items()},
    Global("torch", "UntypedStorage"): _BYTES,
    Global("torch.storage", "UntypedStorage"): _BYTES,
}


# --------------------------------------------------------------------------------------------------
# What the pickle may call, and what is built in its place


def _ordered_dict(items: Any = None) -> dict[str | int, Any]:
    """`collections.OrderedDict()`; Python 2 passed the items as a list of lists."""
    result: dict[str | int, Any] = {}
    if items is None:
        return result
    if not isinstance(items, list):
        raise RebuildError("expected a list of items")
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise RebuildError("expected pairs of key and value")
        if not isinstance(item[0], str | int):
            raise RebuildError("expected keys of text")
        result[item[0]] = item[1]
    return result


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata)`."""
    return _checked_tensor(storage, offset, shape, strides, None)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> _Tensor:
    """`_rebuild_tensor_v3`: the storage is bytes, the type an argument."""
    if not isinstance(dtype, ElementType):
        raise RebuildError("expected a dtype")
    return _checked_tensor(storage, offset, shape, strides, dtype)


def _parameter(data: Any, *_: Any) -> _Tensor:
    """`_rebuild_parameter(tensor, requires_grad, hooks)`."""
    if not isinstance(data, _Tensor):
        raise RebuildError("expected a tensor")
    return data


def _checked_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: ElementType | None
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise RebuildError("expected a storage")
    if not _is_count(offset):
        raise RebuildError(f"storage offset, expected a count, got {quote(offset)}")
    for what, value in (("shape", shape), ("strides", strides)):
        if (
            not isinstance(value, tuple)
            or len(value) > MAX_DIMENSIONS
            or not all(_is_count(n) for n in value)
        ):
            raise RebuildError(f"{what}, expected a tuple of up to {MAX_DIMENSIONS} counts")
    if len(shape) != len(strides):
        raise RebuildError(f"expected as many strides as dimensions, got {strides} for {shape}")
    type = dtype or storage.type
    held = storage.count * storage.type.size // type.size
    count = math.prod(shape)
    if count:
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if last >= held:
            raise RebuildError(
                f"a tensor of shape {shape}, strides {strides} and offset {offset} needs "
                f"{last + 1} elements, its storage {quote(storage.key)} holds {held}"
            )
        if count > max(held, MAX_REPEATED):
            raise RebuildError(
                f"a tensor of shape {shape} repeats the {held} elements of its storage "
                f"{quote(storage.key)}"
            )
    return _Tensor(storage, type, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


_CONSTRUCTORS: dict[Global, Constructor] = {
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
}


def _load_storage(identifier: Any) -> _Storage:
    """`("storage", type, key, location, count)`, in the legacy layout with a view after it."""
    if (
        not isinstance(identifier, tuple)
        or len(identifier) not in (5, 6)
        or identifier[0] != "storage"
    ):
        raise RebuildError("persistent id, expected a storage")
    _, type, key, _, count, *view = identifier
    if not isinstance(type, ElementType) or not isinstance(key, str) or not _is_count(count):
        raise RebuildError("persistent id of a storage, expected type, key and count")
    if not view or view[0] is None:
        return _Storage(key, type, count)
    if not isinstance(view[0], tuple) or len(view[0]) != 3:
        raise RebuildError("view of a storage, expected key, offset and size")
    _, start, size = view[0]
    if not _is_count(start) or not _is_count(size) or start + size > count:
        raise RebuildError(f"view of a storage of {count} elements reaches past its end")
    return _Storage(key, type, size, start)


def _unpickler(data: bytes, position: int, where: str) -> Unpickler:
    return Unpickler(
        data,
        position,
        where,
        constants=_CONSTANTS,
        constructors=_CONSTRUCTORS,
        load_persistent=_load_storage,
    )


# --------------------------------------------------------------------------------------------------
# From the dict to views of the file


def _table(
    path: Path,
    container: str,
    file_bytes: int,
    loaded: Any,
    place: Callable[[_Storage, str], int],
) -> Checkpoint:
    """Makes views of the dict's tensors; `place` gives the byte offset of a storage's numbers."""
    if not isinstance(loaded, dict):
        kind = "a tensor" if isinstance(loaded, _Tensor) else f"a {type(loaded).__name__}"
        raise CheckpointError(f"{path}: expected a dict of tensors, got {kind}")
    tensors: dict[str, TensorView] = {}
    others: list[str] = []
    for name, value in loaded.items():
        if not isinstance(value, _Tensor) or not isinstance(name, str):
            others.append(str(name))
            continue
        start = place(value.storage, f"{path}: tensor {quote(name)}")
        offset = start + value.storage.start * value.storage.type.size
        tensors[name] = TensorView(
            value.type, offset + value.offset * value.type.size, value.shape, value.strides
        )
    if not tensors:
        raise CheckpointError(
            f"{path}: expected a dict of tensors, got {listing(others)}. "
            "Try to save the model's state_dict alone"
        )
    return Checkpoint(path, container, file_bytes, tensors, others)


def read_pth_zip(path: Path, file: BinaryIO, file_bytes: int) -> Checkpoint:
    """Reads the pickle of a `.pth` in the zip layout.

    Raises:
        CheckpointError: a damaged file, or a zip archive of something else.
        UnsafePickleError: its pickle asks for more than a dict of tensors needs.
    """
    members = _zip_members(path, file, file_bytes)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path}: a zip archive but no checkpoint, expected one NAME/data.pkl, "
            f"got {listing(list(members))}"
        )
    prefix = pickles[0].removesuffix("data.pkl")

    def read(name: str, limit: int) -> bytes:
        offset, size = members[name].locate(path, file, file_bytes)
        if size > limit:
            raise CheckpointError(
                f"{path}: {quote(name)}, expected at most {limit} bytes, got {size}"
            )
        data = bytearray(size)
        read_exactly(file, offset, memoryview(data), path)
        return bytes(data)

    order_name = prefix + "byteorder"
    if order_name in members and (order := read(order_name, 64)) != b"little":
        raise CheckpointError(
            f"{path}: byte order, expected little, got {quote(order.decode('latin-1'))}. "
            "Try to save it on a little-endian machine"
        )
    loaded = _unpickler(read(pickles[0], MAX_PICKLE_BYTES), 0, str(path)).load()

    located: dict[str, tuple[int, int]] = {}

    def place(storage: _Storage, where: str) -> int:
        if storage.key not in located:
            name = f"{prefix}data/{storage.key}"
            if name not in members:
                raise CheckpointError(f"{where}: its data {quote(name)} is missing in the archive")
            located[storage.key] = members[name].locate(path, file, file_bytes)
        offset, size = located[storage.key]
        needed = (storage.start + storage.count) * storage.type.size
        if size < needed:
            raise CheckpointError(
                f"{where}: its data {quote(storage.key)}, expected {needed} bytes, got {size}"
            )
        return offset

    return _table(path, "pth (zip)", file_bytes, loaded, place)


def read_pth_legacy(path: Path, file: BinaryIO, file_bytes: int) -> Checkpoint:
    """Reads the pickles of a `.pth` in the legacy layout.

    Raises:
        CheckpointError: a damaged file.
        UnsafePickleError: its pickle asks for more than a dict of tensors needs.
    """
    data = bytearray(min(MAX_PICKLE_BYTES, file_bytes))
    read_exactly(file, 0, memoryview(data), path)
    head = bytes(data)
    position = 0

    def load() -> Any:
        nonlocal position
        unpickler = _unpickler(head, position, str(path))
        value = unpickler.load()
        position = unpickler.position
        return value

    load()  # the magic number
    if (protocol := load()) != LEGACY_PROTOCOL:
        raise CheckpointError(
            f"{path}: legacy protocol, expected {LEGACY_PROTOCOL}, got {quote(protocol)}"
        )
    system = load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(
            f"{path}: byte order, expected little, got big or none. "
            "Try to save it on a little-endian machine"
        )
    loaded = load()
    keys = load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"{path}: damaged, expected a list of storage keys")

    # A storage's size follows from its count and its type, which only the dict's tensors know.
    storages: dict[str, _Storage] = {}
    if isinstance(loaded, dict):
        for value in loaded.values():
            if isinstance(value, _Tensor):
                storages.setdefault(value.storage.key, value.storage)
    placed: dict[str, tuple[int, int]] = {}
    for key in keys if storages else []:
        if key not in storages:
            raise CheckpointError(f"{path}: storage {quote(key)} belongs to no tensor of the dict")
        if position + 8 > file_bytes:
            raise CheckpointError(f"{path}: truncated. Try to download it again")
        count_bytes = bytearray(8)
        read_exactly(file, position, memoryview(count_bytes), path)
        (count,) = struct.unpack("<q", count_bytes)
        position += 8
        size = count * storages[key].type.size
        if count < 0 or position + size > file_bytes:
            raise CheckpointError(
                f"{path}: truncated, expected {quote(size)} bytes of storage {quote(key)} at "
                f"offset {position}, got {file_bytes - position}. Try to download it again"
            )
        placed[key] = (position, size)
        position += size

    def place(storage: _Storage, where: str) -> int:
        if storage.key not in placed:
            raise CheckpointError(f"{where}: its storage {quote(storage.key)} is missing")
        offset, size = placed[storage.key]
        needed = (storage.start + storage.count) * storage.type.size
        if size < needed:
            raise CheckpointError(f"{where}: its data, expected {needed} bytes, got {size}")
        return offset

    return _table(path, "pth (legacy)", file_bytes, loaded, place)


# --------------------------------------------------------------------------------------------------
# Zip archives: the table at the end of the file. Only what torch.save writes: members stored as
# they are, so that a storage is a plain range of the file.

_END = struct.Struct("<4s4H2IH")
_END_64_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED = 0
_ENCRYPTED = 1
_IN_ZIP_64 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    method: int
    flags: int
    size: int
    stored_size: int
    header_offset: int

    def locate(self, path: Path, file: BinaryIO, file_bytes: int) -> tuple[int, int]:
        """The byte offset and size of the member's data."""
        where = f"{path}: {quote(self.name)}"
        if self.method != _STORED or self.flags & _ENCRYPTED or self.size != self.stored_size:
            raise CheckpointError(
                f"{where} is compressed or encrypted, expected a stored member. "
                "Try to save it again with torch.save"
            )
        if self.header_offset + _LOCAL.size > file_bytes:
            raise CheckpointError(f"{where}: damaged zip archive, its header is past the end")
        header = bytearray(_LOCAL.size)
        read_exactly(file, self.header_offset, memoryview(header), path)
        magic, *_, name_bytes, extra_bytes = _LOCAL.unpack(header)
        if magic != ZIP_MAGIC:
            raise CheckpointError(f"{where}: damaged zip archive, expected its header")
        offset = self.header_offset + _LOCAL.size + name_bytes + extra_bytes
        if offset + self.size > file_bytes:
            raise CheckpointError(f"{where}: damaged zip archive, its data is past the end")
        return offset, self.size


def _zip_members(path: Path, file: BinaryIO, file_bytes: int) -> dict[str, _Member]:
    """Reads the table of members of a zip archive."""
    tail_bytes = min(file_bytes, _END.size + 0xFFFF + _END_64_LOCATOR.size)
    tail_start = file_bytes - tail_bytes
    tail = bytearray(tail_bytes)
    read_exactly(file, tail_start, memoryview(tail), path)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > tail_bytes:
        raise CheckpointError(
            f"{path}: truncated, a zip archive without its table of contents. "
            "Try to download it again"
        )
    damaged = f"{path}: damaged zip archive"
    _, _, _, _, count, table_bytes, table_start, _ = _END.unpack_from(tail, at)
    locator = at - _END_64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, _, end_64, _ = _END_64_LOCATOR.unpack_from(tail, locator)
        if end_64 + _END_64.size > file_bytes:
            raise CheckpointError(f"{damaged}, its zip64 record is past the end")
        record = bytearray(_END_64.size)
        read_exactly(file, end_64, memoryview(record), path)
        magic, *_, count, table_bytes, table_start = _END_64.unpack(record)
        if magic != b"PK\x06\x06":
            raise CheckpointError(f"{damaged}, expected a zip64 record")
    if count > MAX_MEMBERS or table_bytes > MAX_MEMBERS * 256:
        raise CheckpointError(f"{damaged}, expected at most {MAX_MEMBERS} members, got {count}")
    if table_start + table_bytes > file_bytes:
        raise CheckpointError(f"{damaged}, its table of contents is past the end")
    table = bytearray(table_bytes)
    read_exactly(file, table_start, memoryview(table), path)

    members: dict[str, _Member] = {}
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > table_bytes:
            raise CheckpointError(f"{damaged}, expected {count} members, got {len(members)}")
        (
            magic, _, _, flags, method, _, _, _, stored_size, size,
            name_bytes, extra_bytes, comment_bytes, _, _, _, header_offset,
        ) = _CENTRAL.unpack_from(table, at)  # fmt: skip
        at += _CENTRAL.size
        if magic != b"PK\x01\x02" or at + name_bytes + extra_bytes + comment_bytes > table_bytes:
            raise CheckpointError(f"{damaged}, expected the entry of member {len(members)}")
        name = bytes(table[at : at + name_bytes]).decode("utf-8", "surrogateescape")
        extra = bytes(table[at + name_bytes : at + name_bytes + extra_bytes])
        at += name_bytes + extra_bytes + comment_bytes
        large = _zip_64_numbers(extra)
        size, stored_size, header_offset = (
            large.pop(0) if value == _IN_ZIP_64 and large else value
            for value in (size, stored_size, header_offset)
        )
        if name in members:
            raise CheckpointError(f"{damaged}, member {quote(name)} occurs twice")
        members[name] = _Member(name, method, flags, size, stored_size, header_offset)
    return members


def _zip_64_numbers(extra: bytes) -> list[int]:
    """The 64-bit numbers that stand for those of an entry which do not fit into 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            numbers = extra[at + 4 : at + 4 + size]
            return [number for (number,) in struct.iter_unpack("<Q", numbers[: len(numbers) & ~7])]
        at += 4 + size
    return []
