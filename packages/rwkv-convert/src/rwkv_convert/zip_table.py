"""The table of contents of a zip archive, as far as torch.save writes them.

Members are stored as they are, nothing compressed, so that a storage is a plain range of the file.
The table lies at the end of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .checkpoint import MAX_TENSORS
from .errors import DOWNLOAD_AGAIN, CheckpointError, quote
from .input_file import InputFile

ZIP_MAGIC = b"PK\x03\x04"

MAX_MEMBERS = MAX_TENSORS + 100
"""A storage for each tensor, and the few others."""
MAX_MEMBER_BYTES = 1024
"""Of the table of contents, for one member."""

_END = struct.Struct("<4s4H2IH")
_END_64_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED = 0
_ENCRYPTED = 1
_IN_ZIP_64 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of the table of contents, as it stands there."""

    name: str
    method: int
    flags: int
    size: int
    stored_size: int
    header_offset: int

    def locate(self, file: InputFile) -> tuple[int, int]:
        """The byte offset and size of the member's data.

        Raises:
            CheckpointError: it is compressed, or does not lie inside the file.
        """
        where = f"{file.path}: {quote(self.name)}"
        if self.method != _STORED or self.flags & _ENCRYPTED or self.size != self.stored_size:
            raise CheckpointError(
                f"{where}: expected a stored member, got a compressed or encrypted one",
                remedy="Try to save it again with torch.save",
            )
        if self.header_offset + _LOCAL.size > file.size:
            raise _damaged(file, f"its header within {file.size} bytes", self.header_offset)
        header = file.read(self.header_offset, _LOCAL.size)
        magic, *_, name_bytes, extra_bytes = _LOCAL.unpack(header)
        if magic != ZIP_MAGIC:
            raise _damaged(file, f"the header of {quote(self.name)}", "something else")
        offset = self.header_offset + _LOCAL.size + name_bytes + extra_bytes
        if offset + self.size > file.size:
            raise _damaged(
                file, f"the data of {quote(self.name)} within {file.size} bytes", offset + self.size
            )
        return offset, self.size

    def read(self, file: InputFile, limit: int) -> bytes:
        """The member's data.

        Raises:
            CheckpointError: it is larger than `limit`, or what `locate` raises.
        """
        offset, size = self.locate(file)
        if size > limit:
            raise CheckpointError(
                f"{file.path}: {quote(self.name)}, expected at most {limit} bytes, got {size}"
            )
        return file.read(offset, size)


def read_zip_table(file: InputFile) -> dict[str, Member]:
    """Reads the table of contents of a zip archive.

    Returns:
        the members by name, in the table's order.

    Raises:
        CheckpointError: it is truncated or damaged, or has more members than a checkpoint.
    """
    tail_bytes = min(file.size, _END.size + 0xFFFF + _END_64_LOCATOR.size)
    tail = file.read(file.size - tail_bytes, tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > tail_bytes:
        raise CheckpointError(
            f"{file.path}: truncated, expected a table of contents at the zip archive's end, "
            "got none",
            remedy=DOWNLOAD_AGAIN,
        )
    _, _, _, _, count, table_bytes, table_start, _ = _END.unpack_from(tail, at)
    locator = at - _END_64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, _, end_64, _ = _END_64_LOCATOR.unpack_from(tail, locator)
        if end_64 + _END_64.size > file.size:
            raise _damaged(file, f"a zip64 record within {file.size} bytes", end_64)
        magic, *_, count, table_bytes, table_start = _END_64.unpack(file.read(end_64, _END_64.size))
        if magic != b"PK\x06\x06":
            raise _damaged(file, "a zip64 record", "something else")
    if count > MAX_MEMBERS:
        raise _damaged(file, f"at most {MAX_MEMBERS} members", count)
    if table_bytes > count * MAX_MEMBER_BYTES:
        limit = count * MAX_MEMBER_BYTES
        raise _damaged(file, f"a table of contents of at most {limit} bytes", table_bytes)
    if table_start + table_bytes > file.size:
        raise _damaged(
            file, f"a table of contents within {file.size} bytes", table_start + table_bytes
        )
    table = file.read(table_start, table_bytes)

    members: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > table_bytes:
            raise _damaged(file, f"{count} members", len(members))
        (
            magic, _, _, flags, method, _, _, _, stored_size, size,
            name_bytes, extra_bytes, comment_bytes, _, _, _, header_offset,
        ) = _CENTRAL.unpack_from(table, at)  # fmt: skip
        at += _CENTRAL.size
        if magic != b"PK\x01\x02" or at + name_bytes + extra_bytes + comment_bytes > table_bytes:
            raise _damaged(file, f"the entry of member {len(members)}", "something else")
        name = table[at : at + name_bytes].decode("utf-8", "surrogateescape")
        extra = table[at + name_bytes : at + name_bytes + extra_bytes]
        at += name_bytes + extra_bytes + comment_bytes
        large = _zip_64_numbers(extra)
        size, stored_size, header_offset = (
            large.pop(0) if value == _IN_ZIP_64 and large else value
            for value in (size, stored_size, header_offset)
        )
        if name in members:
            raise CheckpointError(
                f"{file.path}: damaged zip archive, expected each member once, "
                f"got {quote(name)} twice"
            )
        members[name] = Member(name, method, flags, size, stored_size, header_offset)
    return members


def _damaged(file: InputFile, expected: str, got: object) -> CheckpointError:
    return CheckpointError(f"{file.path}: damaged zip archive, expected {expected}, got {got}")


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
