"""Writes checkpoints without torch: `.pth` in both layouts, `.safetensors`, and whole test models.

Pickles are put together opcode by opcode, as torch's pickler would, so that tests can also make the
ones that it would not.
"""

import json
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

STORAGES = {"fp32": "FloatStorage", "fp16": "HalfStorage", "bf16": "BFloat16Storage"}
SAFETENSORS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
NUMPY = {"fp32": "<f4", "fp16": "<f2", "bf16": "<u2"}
MAGIC = 0x1950A86A20F9469CFC6C


def encode(array: Array, type: str) -> NDArray:
    """The array's numbers in a type, bf16 as its bits (rounded to nearest even)."""
    array = np.ascontiguousarray(array, dtype=np.float32)
    if type == "bf16":
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return array.astype(NUMPY[type])


def decode(data: NDArray, type: str) -> Array:
    """What `encode` has kept of the numbers, in fp32."""
    if type == "bf16":
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data.astype(np.float32)


def rounded(checkpoint: Mapping[str, Array], type: str) -> dict[str, Array]:
    """A checkpoint's numbers as they are after a visit to `type`."""
    return {name: decode(encode(array, type), type) for name, array in checkpoint.items()}


@dataclass
class View:
    """A tensor of a `.pth`: a view of the numbers of one storage.

    storage: its key; data: the storage's numbers (1-D); type: "fp32", "fp16" or "bf16".
    """

    storage: str
    type: str
    data: NDArray
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    parameter: bool = False


def views(checkpoint: Mapping[str, Array], type: str) -> dict[str, View]:
    """One storage for each tensor, as torch.save has it."""
    result = {}
    for number, (name, array) in enumerate(checkpoint.items()):
        strides = tuple(s // 4 for s in np.empty(array.shape, np.float32).strides)
        result[name] = View(
            str(number), type, encode(array, type).reshape(-1), array.shape, strides
        )
    return result


# --------------------------------------------------------------------------------------------------
# Pickles


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def integers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(integer(v) for v in values) + b"t"


def persistent_storage(view: View, *, legacy: bool = False) -> bytes:
    parts = [
        text("storage"),
        global_("torch", STORAGES[view.type]),
        text(view.storage),
        text("cpu"),
        integer(len(view.data)),
        *([b"N"] if legacy else []),
    ]
    return b"(" + b"".join(parts) + b"tQ"


ORDERED_DICT = global_("collections", "OrderedDict") + b")R"


def tensor(view: View, *, legacy: bool = False) -> bytes:
    arguments = [
        persistent_storage(view, legacy=legacy),
        integer(view.offset),
        integers(view.shape),
        integers(view.strides),
        b"\x89",
        ORDERED_DICT,
    ]
    built = global_("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(arguments) + b"tR"
    if view.parameter:
        arguments = [built, b"\x88", ORDERED_DICT]
        built = global_("torch._utils", "_rebuild_parameter") + b"(" + b"".join(arguments) + b"tR"
    return built


def dictionary(
    tensors: Mapping[str, View | bytes], *, ordered: bool = False, legacy: bool = False
) -> bytes:
    """A dict's pickle; values that are bytes are taken as opcodes."""
    items = b"".join(
        text(name) + (value if isinstance(value, bytes) else tensor(value, legacy=legacy))
        for name, value in tensors.items()
    )
    metadata = b"}" + text("_metadata") + ORDERED_DICT + b"sb" if ordered else b""
    start = ORDERED_DICT if ordered else b"}"
    return b"\x80\x02" + start + b"(" + items + b"u" + metadata + b"."


# --------------------------------------------------------------------------------------------------
# Files


def write_pth(
    path: Path,
    tensors: Mapping[str, View | bytes],
    *,
    pickle: bytes | None = None,
    byteorder: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
    ordered: bool = False,
) -> Path:
    """A `.pth` in the zip layout."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(
            "archive/data.pkl", dictionary(tensors, ordered=ordered) if pickle is None else pickle
        )
        if byteorder is not None:
            archive.writestr("archive/byteorder", byteorder)
        storages = {v.storage: v.data for v in tensors.values() if isinstance(v, View)}
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data.tobytes())
        archive.writestr("archive/version", b"3\n")
    return path


def write_legacy_pth(
    path: Path,
    tensors: Mapping[str, View | bytes],
    *,
    pickle: bytes | None = None,
    little_endian: bool = True,
) -> Path:
    """A `.pth` in the layout of PyTorch before 1.6."""
    endian = b"\x88" if little_endian else b"\x89"
    storages = {v.storage: v.data for v in tensors.values() if isinstance(v, View)}
    with path.open("wb") as file:
        file.write(b"\x80\x02" + integer(MAGIC) + b".")
        file.write(b"\x80\x02" + integer(1001) + b".")
        file.write(b"\x80\x02}" + text("little_endian") + endian + b"s.")
        file.write(dictionary(tensors, legacy=True) if pickle is None else pickle)
        file.write(b"\x80\x02](" + b"".join(text(key) for key in storages) + b"e.")
        for data in storages.values():
            file.write(struct.pack("<q", len(data)) + data.tobytes())
    return path


def write_safetensors(path: Path, checkpoint: Mapping[str, Array], type: str) -> Path:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in checkpoint.items():
        encoded = encode(array, type).tobytes()
        header[name] = {
            "dtype": SAFETENSORS[type],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(encoded)],
        }
        data += encoded
    return write_safetensors_raw(path, json.dumps(header).encode(), data)


def write_safetensors_raw(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path
