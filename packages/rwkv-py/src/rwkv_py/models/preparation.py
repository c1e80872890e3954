"""From a checkpoint, on a hub or here, to a model file in the cache; stopped anywhere, it goes on.

What is not finished lies in a folder of its own, which one process at a time works in: the files
as far as they were fetched, and `plan.json`, which says what they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .._system import lock_file
from ..errors import FetchError
from . import memory
from .cache import FILES, PLAN, is_model_file, read_plan
from .known import KnownModel

if TYPE_CHECKING:
    from rwkv_convert import HubFiles

__all__ = ["Preparation"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with "waiting", "fetching" or "converting", the bytes done and the bytes in all."""

_log = logging.getLogger("rwkv_py")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is to be done before a model can be opened, and is not done yet.

    Attributes:
        name: the model, as it was asked for.
        known: the known model that it is, if it is one.
        source: the files to fetch, or a checkpoint of this machine.
        dtype: type of the weights; None: the file is a model file, and kept as it is.
        target: the model file that comes of it.
        work: the folder for what is not finished.
        fetch_bytes: how much is still to be fetched.
        weight_bytes: about how large the weights will be, in the file and in memory.
    """

    name: str
    known: KnownModel | None
    source: HubFiles | Path
    dtype: str | None
    target: Path
    work: Path
    fetch_bytes: int
    weight_bytes: int

    @property
    def memory_bytes(self) -> int:
        """About how much memory the model needs."""
        return memory.needed(self.weight_bytes)

    @property
    def fits(self) -> bool:
        """Whether the memory of this machine is enough."""
        return memory.fits(self.memory_bytes)

    def carry_out(self, progress: Progress | None = None) -> Path:
        """Fetch what is missing, convert it, and return the model file.

        Args:
            progress: called now and then with "waiting" (another process is at it), "fetching" or
                "converting", the bytes done, and the bytes in all.

        Raises:
            FetchError: it cannot be fetched, converted or kept. What was fetched so far is kept,
                and gone on with the next time.
        """
        report = progress or (lambda stage, done, total: None)
        needed = self.fetch_bytes + self.weight_bytes
        left = memory.disk_left(self.target.parent)
        if left < needed:
            raise FetchError(
                f"{self.target.parent}: expected {size(needed)} of free space, got {size(left)}",
                remedy="Try RWKV_CACHE with a folder on another disk",
            )
        try:
            with self._alone(report):
                if not self.target.is_file():  # else another process was quicker
                    self._convert(self._fetch(report), report)
                shutil.rmtree(self.work, ignore_errors=True)
        except OSError as error:
            where = error.filename or self.target.parent
            raise FetchError(f"{where}: cannot be written: {error.strerror or error}") from None
        return self.target

    @contextlib.contextmanager
    def _alone(self, report: Progress) -> Iterator[None]:
        """Be the only process that works on this model."""
        while True:
            self.work.mkdir(parents=True, exist_ok=True)
            with (self.work / "lock").open("a") as lock:
                if not lock_file(lock.fileno()):
                    report("waiting", 0, 0)
                    lock_file(lock.fileno(), wait=True)
                # The one before may have finished, and taken the folder away with the lock in it.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(lock.fileno()), os.stat(self.work / "lock")):
                        yield
                        return

    def _fetch(self, report: Progress) -> Path:
        """Return the checkpoint, complete and on this machine."""
        import rwkv_convert

        if isinstance(self.source, Path):
            self._write_plan({"file": str(self.source)})
            return self.source
        wanted = self.source
        before = read_plan(self.work)
        if before is not None:
            # The same files, of an older commit: what is there of them is gone on with.
            if before.get("file") == wanted.file and before.get("sizes") == wanted.sizes:
                wanted = dataclasses.replace(wanted, commit=str(before.get("commit")))
            else:
                shutil.rmtree(self.work / FILES, ignore_errors=True)
        self._write_plan(dataclasses.asdict(wanted))
        with self._told():
            return rwkv_convert.fetch_hub_files(
                wanted,
                self.work / FILES,
                progress=lambda done, total: report("fetching", done, total),
            )

    def _convert(self, checkpoint: Path, report: Progress) -> None:
        """Make the model file of the checkpoint."""
        import rwkv_convert

        complete = self.work / f"complete{self.target.suffix}"
        if self.dtype is None:
            if not is_model_file(checkpoint):
                raise FetchError(
                    f"{self.name}: expected a model file, got another one",
                    remedy="Try to name a type, such as q4_0, if it is a checkpoint",
                )
            _move(checkpoint, complete, keep=FILES not in checkpoint.parts)
        else:
            with self._told():
                summary = rwkv_convert.convert(
                    checkpoint,
                    complete,
                    dtype=self.dtype,
                    container="gguf" if self.target.suffix == ".gguf" else "ggmf",
                    force=True,
                    progress=lambda done, total: report("converting", done, total),
                )
            for told in (*summary.notes, *summary.warnings):
                _log.info("%s", told)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        complete.replace(self.target)

    def _write_plan(self, plan: dict[str, Any]) -> None:
        written = self.work / f"{PLAN}.part"
        written.write_text(json.dumps(plan))
        written.replace(self.work / PLAN)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the converter's errors into ours; a checkpoint that is damaged is not kept."""
        import rwkv_convert

        try:
            yield
        except rwkv_convert.ConvertError as error:
            damaged = isinstance(error, (rwkv_convert.CheckpointError, rwkv_convert.ModelError))
            if damaged and all(self._is_there(name) for name in self._names()):
                shutil.rmtree(self.work, ignore_errors=True)
            raise FetchError(error.message, remedy=error.remedy) from error

    def _names(self) -> tuple[str, ...]:
        return () if isinstance(self.source, Path) else tuple(self.source.sizes)

    def _is_there(self, name: str) -> bool:
        return (self.work / FILES / name).is_file()


def size(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _move(source: Path, target: Path, *, keep: bool) -> None:
    if keep:
        shutil.copyfile(source, target)
    else:
        source.replace(target)
