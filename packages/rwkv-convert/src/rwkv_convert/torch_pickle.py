"""The pickles inside `.pth` files: which globals they may name, and what is built in their place.

In the dict a tensor is a call of `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides,
...)`, whose storage is a persistent id that names a key. Tensors may share a storage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .element_types import BF16, FP16, FP32, FP64, OTHER_TYPES, ElementType
from .errors import quote
from .trainer_state import TRAINER_STATE
from .unpickle import Constructor, Global, RebuildError, Unpickler

MAX_DIMENSIONS = 8
MAX_REPEATED = 1 << 20
"""Tensors that use an element more than once (`expand`) may have this many elements."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in a file.

    Attributes:
        key: names it.
        type: of its numbers.
        count: how many there are.
        start: of a legacy view of another storage, its first element; else 0.
    """

    key: str
    type: ElementType
    count: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view of a storage.

    Attributes:
        storage: holds its numbers.
        type: of its numbers, mostly the storage's.
        offset: in elements, from the storage's start.
        shape: PyTorch's order.
        strides: in elements.
    """

    storage: Storage
    type: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def offset_bytes(self) -> int:
        """Of its first element, from where the numbers of the storage's key begin."""
        return self.storage.start * self.storage.type.size + self.offset * self.type.size


_BYTES = OTHER_TYPES["uint8"]

_STORAGE_TYPES: dict[str, ElementType] = {
    "FloatStorage": FP32,
    "HalfStorage": FP16,
    "BFloat16Storage": BF16,
    "DoubleStorage": FP64,
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
    "float64": FP64,
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


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata)`."""
    return _checked_tensor(storage, offset, shape, strides, None)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> StoredTensor:
    """`_rebuild_tensor_v3`: the storage is bytes, the type an argument."""
    if not isinstance(dtype, ElementType):
        raise RebuildError("expected a dtype")
    return _checked_tensor(storage, offset, shape, strides, dtype)


def _parameter(data: Any, *_: Any) -> StoredTensor:
    """`_rebuild_parameter(tensor, requires_grad, hooks)`."""
    if not isinstance(data, StoredTensor):
        raise RebuildError("expected a tensor")
    return data


def _checked_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: ElementType | None
) -> StoredTensor:
    if not isinstance(storage, Storage):
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
    return StoredTensor(storage, type, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


_CONSTRUCTORS: dict[Global, Constructor] = {
    **TRAINER_STATE,
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
}


def _load_storage(identifier: Any) -> Storage:
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
        return Storage(key, type, count)
    if not isinstance(view[0], tuple) or len(view[0]) != 3:
        raise RebuildError("view of a storage, expected key, offset and size")
    _, start, size = view[0]
    if not _is_count(start) or not _is_count(size) or start + size > count:
        raise RebuildError(f"view of a storage of {count} elements reaches past its end")
    return Storage(key, type, size, start)


@dataclass(frozen=True, slots=True)
class LoadedPickle:
    """What a pickle holds.

    Attributes:
        value: in which tensors are `StoredTensor`, and what trainers keep beside them `PassedOver`.
        storages: all that it names, by key.
        end: position behind it.
    """

    value: Any
    storages: dict[str, Storage]
    end: int


def load_torch_pickle(data: bytes, position: int, where: str) -> LoadedPickle:
    """Reads one pickle of those that torch.save writes, executing nothing.

    Args:
        data: what holds the pickle.
        position: where it begins.
        where: the beginning of every error message.

    Raises:
        UnsafePickleError: it asks for more than tensors and ordinary trainer state need.
        CheckpointError: it is damaged.
    """
    storages: dict[str, Storage] = {}

    def load_storage(identifier: Any) -> Storage:
        storage = _load_storage(identifier)
        storages.setdefault(storage.key, storage)
        return storage

    unpickler = Unpickler(
        data,
        position,
        where,
        constants=_CONSTANTS,
        constructors=_CONSTRUCTORS,
        load_persistent=load_storage,
    )
    value = unpickler.load()
    return LoadedPickle(value, storages, unpickler.position)
