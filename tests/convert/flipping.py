"""Files with a bit that is not as it was."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """Flip a bit of a file for as long as a block lasts: sooner than the whole file is written."""
    _flip(path, bit)
    try:
        yield
    finally:
        _flip(path, bit)


def _flip(path: Path, bit: int) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
