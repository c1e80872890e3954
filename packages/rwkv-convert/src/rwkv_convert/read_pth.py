"""`.pth` files, what `torch.save` writes: the table of contents.

zip layout     a zip archive, nothing compressed: NAME/data.pkl is a pickle of the dict,
NAME/data/KEY the numbers of one storage, NAME/byteorder `little` or `big`
legacy layout  (PyTorch before 1.6) five pickles one after the other: a magic number, a protocol
number, facts about the system, the dict, the list of storage keys; then for each
key an int64 count and the storage's numbers
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from .checkpoint import MAX_TENSORS, Checkpoint, TensorView
from .errors import DOWNLOAD_AGAIN, CheckpointError, listing, quote
from .input_file import InputFile
from .torch_pickle import Storage, StoredTensor, load_torch_pickle
from .zip_table import read_zip_table

LEGACY_MAGIC = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a" + re.escape(bytes.fromhex("6cfc9c46f9206aa85019")),
    re.DOTALL,
)
"""How a legacy file begins: the pickle of the number 0x1950a86a20f9469cfc6c."""
LEGACY_PROTOCOL = 1001

MAX_PICKLE_BYTES = 4 << 20
"""The pickle of a model of 100 layers has about 1 MB."""

MAX_DEPTH = 6
MAX_PATH = 200
"""Dicts inside dicts in which a model is looked for, and characters of the path of one."""

Place = Callable[[Storage, str], tuple[int, int]]
"""Gives the byte offset and the size of a storage's numbers; the text begins its messages."""


def read_pth_zip(file: InputFile) -> Checkpoint:
    """Reads the pickle of a `.pth` in the zip layout.

    Raises:
        CheckpointError: a damaged file, or a zip archive of something else.
        UnsafePickleError: its pickle asks for more than a dict of tensors needs.
    """
    members = read_zip_table(file)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{file.path}: a zip archive but no checkpoint, expected one NAME/data.pkl, "
            f"got {listing(list(members))}"
        )
    prefix = pickles[0].removesuffix("data.pkl")

    order = members.get(prefix + "byteorder")
    if order is not None and (found := order.read(file, 64)) != b"little":
        raise _foreign_byte_order(file, quote(found.decode("latin-1")))
    pickle = members[pickles[0]].read(file, MAX_PICKLE_BYTES)
    loaded = load_torch_pickle(pickle, 0, str(file.path)).value

    located: dict[str, tuple[int, int]] = {}

    def place(storage: Storage, where: str) -> tuple[int, int]:
        if storage.key not in located:
            name = f"{prefix}data/{storage.key}"
            if name not in members:
                raise CheckpointError(
                    f"{where}: its data, expected a member {quote(name)} of the archive, got none"
                )
            located[storage.key] = members[name].locate(file)
        return located[storage.key]

    return _checkpoint(file, "pth (zip)", loaded, place)


def read_pth_legacy(file: InputFile) -> Checkpoint:
    """Reads the pickles of a `.pth` in the legacy layout.

    Raises:
        CheckpointError: a damaged file.
        UnsafePickleError: its pickle asks for more than a dict of tensors needs.
    """
    head = file.read(0, min(MAX_PICKLE_BYTES, file.size))
    position = 0
    values: list[Any] = []
    storages: dict[str, Storage] = {}
    for _ in range(5):
        pickle = load_torch_pickle(head, position, str(file.path))
        position = pickle.end
        values.append(pickle.value)
        storages.update(pickle.storages)
    _, protocol, system, loaded, keys = values
    if protocol != LEGACY_PROTOCOL:
        raise CheckpointError(
            f"{file.path}: legacy protocol, expected {LEGACY_PROTOCOL}, got {quote(protocol)}"
        )
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _foreign_byte_order(file, "big or none")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(
            f"{file.path}: damaged, expected a list of storage keys, got something else"
        )

    # A storage's size follows from its count and its type, which only the dict's tensors know.
    placed: dict[str, tuple[int, int]] = {}
    for key in keys if storages else []:
        if key not in storages:
            raise CheckpointError(
                f"{file.path}: storage {quote(key)}, expected a tensor that uses it, got none"
            )
        what = f"storage {quote(key)}"
        (count,) = struct.unpack("<q", file.read(position, 8, f"the size of {what}"))
        position += 8
        size = count * storages[key].type.size
        if count < 0 or position + size > file.size:
            raise CheckpointError(
                f"{file.path}: truncated, expected {quote(size)} bytes of {what} at "
                f"offset {position}, got {file.size - position}",
                remedy=DOWNLOAD_AGAIN,
            )
        placed[key] = (position, size)
        position += size

    def place(storage: Storage, where: str) -> tuple[int, int]:
        if storage.key not in placed:
            raise CheckpointError(
                f"{where}: its storage {quote(storage.key)}, expected it in the list of storages, "
                "got none"
            )
        return placed[storage.key]

    return _checkpoint(file, "pth (legacy)", loaded, place)


def _checkpoint(file: InputFile, container: str, loaded: Any, place: Place) -> Checkpoint:
    """Makes views of the dict's tensors."""
    if not isinstance(loaded, dict):
        kind = "a tensor" if isinstance(loaded, StoredTensor) else f"a {type(loaded).__name__}"
        raise CheckpointError(f"{file.path}: expected a dict of tensors, got {kind}")
    reader = _DictReader(file, place)
    reader.read(loaded, "")
    tensors = reader.groups.pop("", {})
    if not tensors and not reader.groups:
        raise CheckpointError(
            f"{file.path}: expected a dict of tensors, got {listing(reader.others)}",
            remedy="Try to save the model's state_dict alone",
        )
    return Checkpoint(
        file.path, file.stamp, container, tensors, nested=reader.groups, other_entries=reader.others
    )


class _DictReader:
    """Makes views of the tensors in a dict, and in the dicts inside it."""

    def __init__(self, file: InputFile, place: Place) -> None:
        self.groups: dict[str, dict[str, TensorView]] = {}
        self.others: list[str] = []
        self._file = file
        self._place = place
        self._seen: set[int] = set()  # a dict may be an entry many times, even of itself
        self._count = 0

    def read(self, loaded: dict[str | int, Any], path: str) -> None:
        """Reads a dict and those inside it; those below the top are the groups."""
        self._seen.add(id(loaded))
        for key, value in loaded.items():
            name = str(key)
            if isinstance(value, StoredTensor) and isinstance(key, str):
                self.groups.setdefault(path, {})[name] = self._view(name, value)
                continue
            if not path:
                self.others.append(name)
            within = f"{path}.{name}" if path else name
            if isinstance(value, dict) and id(value) not in self._seen and self._is_path(within):
                self.read(value, within)

    def _is_path(self, text: str) -> bool:
        return text.count(".") < MAX_DEPTH and len(text) <= MAX_PATH

    def _view(self, name: str, value: StoredTensor) -> TensorView:
        self._count += 1
        if self._count > MAX_TENSORS:
            raise CheckpointError(
                f"{self._file.path}: expected at most {MAX_TENSORS} tensors, got more"
            )
        storage = value.storage
        where = f"{self._file.path}: tensor {quote(name)}"
        start, size = self._place(storage, where)
        needed = (storage.start + storage.count) * storage.type.size
        if size < needed:
            raise CheckpointError(
                f"{where}: its data {quote(storage.key)}, expected {needed} bytes, got {size}"
            )
        return TensorView(value.type, start + value.offset_bytes, value.shape, value.strides)


def _foreign_byte_order(file: InputFile, got: str) -> CheckpointError:
    return CheckpointError(
        f"{file.path}: byte order, expected little, got {got}",
        remedy="Try to save it on a little-endian machine",
    )
