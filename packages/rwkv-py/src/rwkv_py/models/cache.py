"""The folder of the model files that were fetched or converted, named after what they are.

    OWNER/NAME/FILE-q4_0.bin      of OWNER/NAME/FILE.pth on the hub
    @local/FILE-1a2b3c4d-q4_0.bin of a checkpoint of this machine, as it was then
    .unfinished/...               what was interrupted, see `preparation`

A file is there when it is complete, and its name is all that is known of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FetchError

__all__ = [
    "CachedModel",
    "UnfinishedModel",
    "cache_folder",
    "cached_models",
    "remove",
    "unfinished",
]

DEFAULT_DTYPE = "q4_0"
MODEL_ENDS = (".bin", ".gguf")
PLAN = "plan.json"
FILES = "files"

_LOCAL = "@local"
_UNFINISHED = ".unfinished"
_TYPED = re.compile(r"(?P<stem>.+)-(?P<dtype>(?:i?q\d|fp\d|bf\d)\w*)")
_MAGICS = (b"fmgg", b"GGUF")


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """A model file in the cache.

    Attributes:
        name: its path in the cache, by which commands take it.
        path: where it is.
        repository: OWNER/NAME on the hub; None for a checkpoint of this machine.
        revision: the revision that was asked for; None for the newest.
        stem: name of the checkpoint, without its ending.
        dtype: type of its weights; None where it was fetched as it is.
        file_bytes: its size.
    """

    name: str
    path: Path
    repository: str | None
    revision: str | None
    stem: str
    dtype: str | None
    file_bytes: int


@dataclass(frozen=True, kw_only=True)
class UnfinishedModel:
    """A model whose fetching or converting was interrupted.

    Attributes:
        name: by which commands take it: OWNER/NAME/FILE.
        path: the folder of what is there.
        repository: OWNER/NAME on the hub; None for a checkpoint of this machine.
        file: its file there.
        done_bytes: what is there.
        total_bytes: what is to be fetched altogether; 0 for a checkpoint of this machine.
    """

    name: str
    path: Path
    repository: str | None
    file: str
    done_bytes: int
    total_bytes: int


def cache_folder() -> Path:
    """Return the folder: `$RWKV_CACHE`, or `rwkv/models` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        FetchError: there is no place for it, as for a service without a home directory.
    """
    given = os.environ.get("RWKV_CACHE", "")
    if given:
        return Path(given).absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"))
    if not folder.is_absolute():
        raise FetchError(
            "cache: expected a home directory, got none", remedy="Try RWKV_CACHE with a folder"
        )
    return folder / "rwkv" / "models"


def is_model_file(path: Path) -> bool:
    """Whether a file begins as a ggmf or GGUF file does."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGICS
    except OSError:
        return False


def cached_models() -> list[CachedModel]:
    """Return the model files in the cache, by their names."""
    folder = cache_folder()
    found = []
    for path in _files(folder):
        parts = path.relative_to(folder).parts
        if not path.name.endswith(MODEL_ENDS) or len(parts) < 2:
            continue
        stem = path.name.rpartition(".")[0]
        match = _TYPED.fullmatch(stem)
        owner, name, revision = parts[0], *parts[1].partition("@")[::2]
        local = owner == _LOCAL or len(parts) < 3
        found.append(
            CachedModel(
                name="/".join(parts),
                path=path,
                repository=None if local else f"{owner}/{name}",
                revision=None if local else revision or None,
                stem="/".join((*parts[2:-1], match["stem"] if match else stem)),
                dtype=match["dtype"] if match else None,
                file_bytes=path.stat().st_size,
            )
        )
    return found


def unfinished() -> list[UnfinishedModel]:
    """Return what was interrupted, by name."""
    found = []
    for path in _entries(cache_folder() / _UNFINISHED):
        plan = read_plan(path)
        if plan is None:
            continue
        files = path / FILES
        done = sum(file.stat().st_size for file in _files(files))
        repository = plan.get("repository")
        file = str(plan.get("file", ""))
        sizes = plan.get("sizes")
        found.append(
            UnfinishedModel(
                name=f"{repository}/{file}" if repository else file,
                path=path,
                repository=str(repository) if repository else None,
                file=file,
                done_bytes=done,
                total_bytes=sum(sizes.values()) if isinstance(sizes, dict) else 0,
            )
        )
    return found


def remove(model: CachedModel | UnfinishedModel) -> None:
    """Remove a model from the cache.

    Raises:
        FetchError: it cannot be removed.
    """
    try:
        if isinstance(model, UnfinishedModel):
            shutil.rmtree(model.path)
        else:
            model.path.unlink()
            _remove_empty(model.path.parent)
    except OSError as error:
        raise FetchError(f"{model.path}: cannot be removed: {error.strerror}") from None


def target(place: str, stem: str, dtype: str | None, end: str) -> Path:
    """Return where a model file is kept.

    Args:
        place: OWNER/NAME or OWNER/NAME@REVISION.
        stem: name of the checkpoint, without its ending.
        dtype: type of the weights; None for a file as it was fetched.
        end: `.bin` or `.gguf`.
    """
    return cache_folder() / place / f"{stem}{f'-{dtype}' if dtype else ''}{end}"


def local_target(checkpoint: Path, dtype: str, end: str) -> Path:
    """Return where the model file of a checkpoint of this machine is kept.

    Its name tells the checkpoint's place, size and time: another file under the same name is
    another model.
    """
    checkpoint = Path(os.path.realpath(checkpoint))
    whole = checkpoint.is_dir()
    if whole or checkpoint.name.endswith(".json") or "-of-" in checkpoint.name:
        files = list(_entries(checkpoint if whole else checkpoint.parent))
    else:
        files = [checkpoint]
    stamps = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    digest = hashlib.sha256(repr((str(checkpoint), stamps)).encode()).hexdigest()[:8]
    stem = checkpoint.name if whole else checkpoint.name.rpartition(".")[0] or checkpoint.name
    return cache_folder() / _LOCAL / f"{stem[:60]}-{digest}-{dtype}{end}"


def work_folder(name: str) -> Path:
    """Return where a model is while it is not finished: a folder of its own, by what it is of."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder() / _UNFINISHED / digest


def read_plan(work: Path) -> dict[str, object] | None:
    """Return what an unfinished model's folder says of it; None if it does not."""
    try:
        plan = json.loads((work / PLAN).read_bytes())
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) else None


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder that are not hidden, in order."""
    for path in _entries(folder):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _remove_empty(folder: Path) -> None:
    """Remove folders that hold nothing any more, up to the cache's own."""
    while folder != cache_folder() and not _entries(folder):
        folder.rmdir()
        folder = folder.parent
