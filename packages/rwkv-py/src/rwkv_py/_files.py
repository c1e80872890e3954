"""Files that appear under their names when they are complete."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def kind_of(mode: int) -> str:
    """Return in a word what a path names, by its `st_mode`."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a folder to write in, whose file `complete` takes the name `path` at the end.

    The folder is beside `path`, so that the file moves in one step, and goes whatever happens. Its
    name is short and owes nothing to that of `path`, which may be as long as a name can be.

    Raises:
        OSError: of the first thing that cannot be done; an older `path` is then as it was.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):  # replacing a device breaks the system
        raise FileExistsError(f"expected a file or nothing, got {kind_of(mode)}")
    with tempfile.TemporaryDirectory(
        prefix=".rwkv-", dir=path.parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
        complete = Path(folder, "complete")
        with complete.open("rb") as file:
            os.fsync(file.fileno())  # on the disk before it takes the place of an older one
        complete.replace(path)
