"""ggmf `.bin` files: where everything goes in one, and writing it so that no half file remains."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .element_types import ElementType
from .errors import OutputError
from .read_ggmf import GGMF_MAGIC, GGMF_VERSION, HEADER, TENSOR_HEADER
from .tensor_table import FileTensor, Model


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A tensor with its place in the file.

    Attributes:
        tensor: what is written.
        type: the type it is written in.
        header: the bytes before its data.
        offset: byte offset of its data.
        through_fp16: whether its numbers are rounded to fp16 before they are quantised.
    """

    tensor: FileTensor
    type: ElementType
    header: bytes
    offset: int
    through_fp16: bool

    @property
    def data_bytes(self) -> int:
        """Size of the data."""
        return self.type.bytes_of(sum(part.count for part in self.tensor.parts))


@dataclass(frozen=True, slots=True)
class FilePlan:
    """A file whose every byte has its place before the first one is written."""

    header: bytes
    tensors: tuple[PlacedTensor, ...]
    file_bytes: int


def plan_file(
    model: Model,
    dtype: ElementType,
    type_of: Callable[[FileTensor], ElementType],
    through_fp16: Callable[[FileTensor], bool],
) -> FilePlan:
    """Lays out a file.

    Args:
        model: what is written.
        dtype: the type that the file's header names.
        type_of: the type of each tensor.
        through_fp16: see PlacedTensor.
    """
    (magic,) = struct.unpack("<i", GGMF_MAGIC)
    header = HEADER.pack(
        magic, GGMF_VERSION, model.n_vocab, model.n_embd, model.n_layer, dtype.ggmf
    )
    at = len(header)
    placed: list[PlacedTensor] = []
    for tensor in model.tensors:
        type = type_of(tensor)
        name = tensor.name.encode()
        dimensions = tensor.shape[::-1]  # the fastest-varying first
        tensor_header = (
            TENSOR_HEADER.pack(len(dimensions), len(name), type.ggmf)
            + struct.pack(f"<{len(dimensions)}i", *dimensions)
            + name
        )
        at += len(tensor_header)
        placed.append(PlacedTensor(tensor, type, tensor_header, at, through_fp16(tensor)))
        at += placed[-1].data_bytes
    return FilePlan(header, tuple(placed), at)


def write_headers(file: BinaryIO, plan: FilePlan) -> None:
    """Writes all that is no data."""
    write_at(file, 0, plan.header)
    for placed in plan.tensors:
        write_at(file, placed.offset - len(placed.header), placed.header)


def write_at(file: BinaryIO, offset: int, data: bytes | memoryview) -> None:
    """Writes all of `data` at a byte offset of an unbuffered file."""
    file.seek(offset)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def check_destination(path: Path, *, force: bool) -> None:
    """Refuses early what would fail late.

    Raises:
        OutputError: the path exists (and `force` is not set), or cannot be a file.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path}: expected the name of a file to write, got a folder")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: expected the name of a file to write, got a device or pipe")
        if (path.exists() or path.is_symlink()) and not force:
            raise OutputError(
                f"{path}: exists. Try another name, or --force (in Python force=True) to replace"
            )
        if not path.parent.is_dir():
            raise OutputError(f"{path}: the folder {path.parent} does not exist")
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


@contextlib.contextmanager
def temporary_output(path: Path, *, force: bool) -> Iterator[Path]:
    """A file beside `path` that takes its name when the block succeeds, and vanishes when it fails.

    Raises:
        OutputError: it cannot be created, or `path` came into being meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
        yield temporary
        try:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            check_destination(path, force=force)
            os.replace(temporary, path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
    except BaseException:
        with contextlib.suppress(OSError, ValueError):  # ValueError: a zero byte in the name
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable where the system can (not on Windows, not on every file system)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reason(error: Exception) -> str:
    """The system's words for an error, without Python's decoration."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
