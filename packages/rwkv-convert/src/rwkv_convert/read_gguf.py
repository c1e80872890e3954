"""GGUF files of llama.cpp, versions 2 and 3: the table of contents of RWKV-6 and 7.

    4 bytes      GGUF
    uint32       version
    uint64 x 2   number of tensors, number of values
    values       each: key, uint32 kind, the value (gguf_values)
    tensors      each: name, uint32 number of dimensions, uint64 each of them, the fastest-varying
                 first, uint32 type, uint64 offset
    data         each tensor at its offset, all in a row, padded to multiples of the alignment

Texts are a uint64 length and that many bytes. A file of several parts, NAME-00001-of-0000N.gguf,
has its values in the first part and tensors in all.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .checkpoint import MAX_TENSORS, Checkpoint, TensorView
from .errors import DOWNLOAD_AGAIN, CheckpointError, ModelError, quote
from .gguf_table import ARCHITECTURES, GGUF_TABLES, LAYER_NORM_EPSILON, GgufRow
from .gguf_values import ARRAY, SCALARS, STRING, GgufValue
from .input_file import InputFile
from .weight_types import GGUF_TYPES

GGUF_MAGIC = b"GGUF"
GGUF_VERSION = 3
"""What we write. 2 is read too."""
ALIGNMENT = 32
"""Of the data, if the file does not say otherwise."""

MAX_TABLE_BYTES = 16 << 20
"""Of the table of contents. That of a World model has 2 MB, most of it the vocabulary."""
MAX_VALUES = 10_000
MAX_DIMENSIONS = 4
MAX_PARTS = 1000
MAX_SCALE_BITS = 60

UNSUPPORTED_TYPES = {
    9: "q8_1", 10: "q2_K", 11: "q3_K", 15: "q8_K", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs",
    19: "iq1_s", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 24: "int8", 25: "int16", 26: "int32",
    27: "int64", 28: "fp64", 29: "iq1_m", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4",
}  # fmt: skip

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GgufPart:
    """What one file says: its values, and its tensors by GGUF's names."""

    values: dict[str, GgufValue]
    tensors: dict[str, TensorView]


def read_gguf(file: InputFile) -> Checkpoint:
    """Reads the table of contents, of all parts if there are several.

    Returns:
        the tensors under the names and in the shapes of a model file of ours.

    Raises:
        CheckpointError: a damaged file, or one of a type or version that we do not read.
        ModelError: a model of another architecture.
    """
    first = read_part(file)
    parts = _other_parts(file.path, first.values)  # first: only the first part has all values
    version = _version(file.path, first.values)
    tensors, places, more_files = dict(first.tensors), {}, {}
    for path in parts:
        with InputFile(path) as other:
            part = read_part(other)
            more_files[path] = other.stamp
        for name, view in part.tensors.items():
            if name in tensors:
                raise CheckpointError(
                    f"{path}: tensor {quote(name)}: expected each name once, got it twice"
                )
            tensors[name] = view
            places[name] = path
    total = first.values.get("split.tensors.count")
    if more_files and total is not None and total.scalar() != len(tensors):
        raise CheckpointError(
            f"{file.path}: expected {total.scalar()} tensors in all parts, got {len(tensors)}"
        )

    ours: dict[str, TensorView] = {}
    our_places: dict[str, Path] = {}
    sizes = _Sizes(file.path, f"rwkv{version}", first.values)
    for name, view in tensors.items():
        path = places.get(name, file.path)
        for our_name, our_view in _as_ours(path, version, sizes, name, view):
            ours[our_name] = our_view
            if path != file.path:
                our_places[our_name] = path
    _check_sizes(file.path, sizes, ours)
    return Checkpoint(
        file.path,
        file.stamp,
        "gguf",
        ours,
        is_model_file=True,
        more_files=more_files,
        places=our_places,
        metadata=first.values,
    )


# --------------------------------------------------------------------------------------------------
# One file


class _Cursor:
    """Reads the table of contents from the front to the end."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.at = 0
        self._data = file.read(0, min(file.size, MAX_TABLE_BYTES))

    def take(self, count: int, what: str) -> bytes:
        """The next bytes, which are `what`."""
        end = self.at + count
        if end > len(self._data):
            if end > MAX_TABLE_BYTES and self.file.size > MAX_TABLE_BYTES:
                raise CheckpointError(
                    f"{self.file.path}: table of contents, expected at most {MAX_TABLE_BYTES} "
                    f"bytes, got {what} that end at {quote(end)}"
                )
            raise CheckpointError(
                f"{self.file.path}: truncated, expected {quote(count)} bytes for {what} at offset "
                f"{self.at}, got {len(self._data) - self.at}",
                remedy=DOWNLOAD_AGAIN,
            )
        data = self._data[self.at : end]
        self.at = end
        return data

    def number(self, format: str, what: str) -> int:
        """The next number."""
        return int(struct.unpack("<" + format, self.take(struct.calcsize(format), what))[0])

    def text(self, what: str) -> str:
        """The next text."""
        at = self.at
        data = self.take(self.number("Q", what), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise CheckpointError(
                f"{self.file.path}: {what} at offset {at}, expected UTF-8, got other bytes"
            ) from None

    def value(self, key: str) -> GgufValue:
        """The next value."""
        kind = self.number("I", "the kind of a value")
        start = self.at
        self._skip(kind, key)
        return GgufValue(kind, self._data[start : self.at])

    def _skip(self, kind: int, key: str) -> None:
        what = f"the value of {quote(key)}"
        if kind in SCALARS:
            self.take(struct.calcsize(SCALARS[kind]), what)
        elif kind == STRING:
            self.take(self.number("Q", what), what)
        elif kind == ARRAY:
            inner, count = self.number("I", what), self.number("Q", what)
            if inner in SCALARS:
                self.take(count * struct.calcsize(SCALARS[inner]), what)
            elif inner == STRING:
                for _ in range(count):  # each takes 8 bytes at least, of those that are there
                    self.take(self.number("Q", what), what)
            else:
                raise CheckpointError(
                    f"{self.file.path}: {what}, expected a list of numbers or texts, "
                    f"got one of kind {inner}"
                )
        else:
            raise CheckpointError(
                f"{self.file.path}: {what}, expected a kind from 0 to 12, got {kind}"
            )


def read_part(file: InputFile) -> GgufPart:
    """Reads the table of contents of one file, whatever it holds.

    Raises:
        CheckpointError: a damaged file, or one of a type or version that we do not read.
    """
    path = file.path
    cursor = _Cursor(file)
    cursor.take(len(GGUF_MAGIC), "the magic")
    version = cursor.number("I", "the version")
    if version not in (2, GGUF_VERSION):
        swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
        if swapped in (2, GGUF_VERSION):
            raise CheckpointError(f"{path}: byte order, expected little, got big")
        raise CheckpointError(f"{path}: GGUF version, expected 2 or {GGUF_VERSION}, got {version}")
    n_tensors = cursor.number("Q", "the number of tensors")
    n_values = cursor.number("Q", "the number of values")
    if n_tensors > MAX_TENSORS or n_values > MAX_VALUES:
        raise CheckpointError(
            f"{path}: expected at most {MAX_TENSORS} tensors and {MAX_VALUES} values, "
            f"got {n_tensors} and {n_values}"
        )
    values: dict[str, GgufValue] = {}
    for _ in range(n_values):
        key = cursor.text("a key")
        if key in values:
            raise CheckpointError(f"{path}: key {quote(key)}: expected each once, got it twice")
        values[key] = cursor.value(key)
    alignment = values["general.alignment"].scalar() if "general.alignment" in values else ALIGNMENT
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise CheckpointError(
            f"{path}: 'general.alignment', expected a power of two from 8 on, got "
            f"{quote(alignment)}"
        )

    tensors: dict[str, TensorView] = {}
    expected = 0  # offset of the next tensor
    end = 0
    for _ in range(n_tensors):
        name, view = _read_tensor(cursor)
        where = f"{path}: tensor {quote(name)}"
        if name in tensors:
            raise CheckpointError(f"{where}: expected each name once, got it twice")
        if view.offset != expected:
            raise CheckpointError(
                f"{where}: offset, expected {expected}, where the one before ends, "
                f"got {view.offset}"
            )
        end = view.offset + view.type.bytes_of(view.count)
        expected = _aligned(end, alignment)
        tensors[name] = view
    data = _aligned(cursor.at, alignment)
    if not data + end <= file.size <= data + expected:
        raise CheckpointError(
            f"{path}: {'truncated, ' * (file.size < data + end)}expected {data + expected} bytes, "
            f"got {file.size}",
            remedy=DOWNLOAD_AGAIN,
        )
    placed = {name: replace(view, offset=data + view.offset) for name, view in tensors.items()}
    return GgufPart(values, placed)


def _read_tensor(cursor: _Cursor) -> tuple[str, TensorView]:
    """The name of the next tensor, and its view, whose offset counts from the data."""
    name = cursor.text("the name of a tensor")
    where = f"{cursor.file.path}: tensor {quote(name)}"
    dimensions = cursor.number("I", "the number of dimensions")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise CheckpointError(
            f"{where}: expected 1 to {MAX_DIMENSIONS} dimensions, got {dimensions}"
        )
    shape = tuple(cursor.number("Q", "a dimension") for _ in range(dimensions))[::-1]
    if min(shape) < 1 or max(shape) >= 2**31:
        raise CheckpointError(f"{where}: expected dimensions from 1 to 2^31, got {quote(shape)}")
    number = cursor.number("I", "the type of a tensor")
    if number not in GGUF_TYPES:
        known = ", ".join(type.name for type in GGUF_TYPES.values())
        raise CheckpointError(
            f"{where}: type, expected one of {known}, "
            f"got {UNSUPPORTED_TYPES.get(number, f'number {number}')}",
            remedy="Try a file of one of these types",
        )
    type = GGUF_TYPES[number]
    if shape[-1] % type.block:
        raise CheckpointError(
            f"{where}: rows of {type} values, expected a multiple of {type.block}, got {shape[-1]}"
        )
    return name, TensorView.contiguous(type, cursor.number("Q", "an offset"), shape)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _other_parts(path: Path, values: dict[str, GgufValue]) -> list[Path]:
    """The other files of a model of several parts."""
    count = values["split.count"].scalar() if "split.count" in values else 1
    if count == 0 or count == 1:
        return []
    match = _PART.fullmatch(path.name)
    if not isinstance(count, int) or not 1 < count <= MAX_PARTS:
        raise CheckpointError(
            f"{path}: number of parts, expected at most {MAX_PARTS}, got {quote(count)}"
        )
    if match is None or int(match[3]) != count:
        raise CheckpointError(
            f"{path}: one of {count} parts, expected a name that ends in "
            f"-00001-of-{count:05}.gguf, got another",
            remedy="Try to name them all as they were downloaded",
        )
    names = [f"{match[1]}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]
    if int(match[2]) != 1:
        raise CheckpointError(
            f"{path}: part {int(match[2])} of {count}, expected the first", remedy=f"Try {names[0]}"
        )
    return [path.with_name(name) for name in names[1:]]


# --------------------------------------------------------------------------------------------------
# What it means


def _version(path: Path, values: dict[str, GgufValue]) -> str:
    """The RWKV version, by the name of the architecture."""
    value = values.get("general.architecture")
    name = value.scalar() if value is not None else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelError(
            f"{path}: architecture, expected {' or '.join(ARCHITECTURES)}, "
            f"got {'none' if name is None else quote(name)}"
        )
    return ARCHITECTURES[name]


class _Sizes:
    """What the values say about the tensors."""

    def __init__(self, path: Path, architecture: str, values: dict[str, GgufValue]) -> None:
        def count(key: str, least: int, default: int | None = None) -> int:
            full = f"{architecture}.{key}"
            found = values[full].scalar() if full in values else default
            if not isinstance(found, int) or found < least:
                got = "none" if found is None else quote(found)
                raise CheckpointError(f"{path}: {full!r}, expected a count, got {got}")
            return found

        self.n_embd = count("embedding_length", 1)
        self.n_layer = count("block_count", 1)
        self.n_ffn = count("feed_forward_length", 1)
        self.head_size = count("wkv.head_size", 1)
        self.rescale_every = count("rescale_every_n_layers", 0, 0)
        key = f"{architecture}.attention.layer_norm_epsilon"
        epsilon = values[key].scalar() if key in values else None
        if not isinstance(epsilon, float) or not math.isclose(
            epsilon, LAYER_NORM_EPSILON, rel_tol=1e-3
        ):
            raise CheckpointError(
                f"{path}: {key!r}, expected {LAYER_NORM_EPSILON}, got {quote(epsilon)}"
            )
        if self.n_embd % self.head_size:
            raise CheckpointError(
                f"{path}: '{architecture}.wkv.head_size', expected a divisor of {self.n_embd}, "
                f"got {self.head_size}"
            )
        if self.rescale_every and self.n_layer > MAX_SCALE_BITS * self.rescale_every:
            raise CheckpointError(
                f"{path}: '{architecture}.rescale_every_n_layers', expected at most "
                f"{MAX_SCALE_BITS} times in {self.n_layer} layers, got {self.rescale_every}"
            )


_LAYER = re.compile(r"blk\.(0|[1-9]\d{0,4})\.(.*)", re.DOTALL)
_ROWS: dict[str, dict[str, GgufRow]] = {
    version: {row.name: row for row in rows if not row.filler}
    for version, rows in GGUF_TABLES.items()
}


def _as_ours(
    path: Path, version: str, sizes: _Sizes, name: str, view: TensorView
) -> Iterator[tuple[str, TensorView]]:
    """The tensors of ours that a tensor of GGUF holds; an unknown one keeps its name."""
    match = _LAYER.fullmatch(name)
    row = _ROWS[version].get(f"blk.{{i}}.{match[2]}" if match else name)
    if row is None:
        yield name, view
        return
    layer = int(match[1]) if match else -1
    names = [ours.replace("{i}", str(layer)) for ours in row.ours]
    if row.rescaled and sizes.rescale_every and layer >= 0:
        view = replace(view, scale=2.0 ** (layer // sizes.rescale_every))
    if row.flattened and view.count == sizes.n_embd:
        heads = sizes.n_embd // sizes.head_size
        view = TensorView.contiguous(view.type, view.offset, (heads, sizes.head_size))
    if len(names) == 1:
        yield names[0], view
        return
    each = sizes.n_embd
    if view.count != each * len(names) or each % view.type.block:
        raise CheckpointError(
            f"{path}: tensor {quote(name)}: shape, expected {len(names)} times {each}, "
            f"got {view.shape}"
        )
    for i, ours in enumerate(names):
        offset = view.offset + view.type.bytes_of(i * each)
        yield ours, TensorView.contiguous(view.type, offset, (each,))


def _check_sizes(path: Path, sizes: _Sizes, tensors: dict[str, TensorView]) -> None:
    """What the values say against what the tensors are; the rest is checked by the tables."""
    layers = {name.split(".", 2)[1] for name in tensors if name.startswith("blocks.")}
    if len(layers) != sizes.n_layer:
        raise CheckpointError(f"{path}: expected {sizes.n_layer} layers, got {len(layers)}")
    for name, axis, expected in (
        ("emb.weight", 1, sizes.n_embd),
        ("blocks.0.ffn.key.weight", 0, sizes.n_ffn),
    ):
        view = tensors.get(name)
        if view is not None and (len(view.shape) != 2 or view.shape[axis] != expected):
            raise CheckpointError(
                f"{path}: shape of tensor {quote(name)}, expected {expected} "
                f"{'columns' if axis else 'rows'}, got {view.shape}"
            )
