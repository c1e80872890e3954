"""From what a user names to a model file, or to what must be done to have one."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .._arguments import StrPath
from ..errors import FetchError, InvalidArgumentError
from . import memory
from .cache import (
    DEFAULT_DTYPE,
    CachedModel,
    UnfinishedModel,
    cache_folder,
    cached_models,
    is_model_file,
    local_target,
    read_plan,
    target,
    unfinished,
    work_folder,
)
from .known import CHECKPOINT_ENDS, KnownModel, by_date, find_known, known_models, named_by_file
from .preparation import Preparation, Progress, size

if TYPE_CHECKING:
    from rwkv_convert import HubFiles, ModelInfo

__all__ = ["fetch", "find", "find_kept", "recognise"]

_HUB_NAME = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+?))?(?:@(?P<revision>[^@]+))?/?"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE | re.ASCII)
# A zip archive and a pickle, as .pth files are, and the length and brace of a safetensors file.
_CHECKPOINT = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]|.{6}\x00\x00\{", re.DOTALL)


def fetch(
    name: StrPath,
    *,
    dtype: str | None = None,
    offline: bool = False,
    update: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the model file that `name` stands for; the first time it is fetched and converted.

    This needs the package rwkv-convert: `pip install rwkv-py[run]`.

    Args:
        name: the short name of a known model, such as `g1-0.4b`; `hf://OWNER/NAME`, perhaps with
            `/FILE` and `@REVISION`; a model file; or a checkpoint, which is converted.
        dtype: type of the weights, such as `q8_0`; by default q4_0, or what the cache has.
        offline: fetch nothing.
        update: of a hub's model, ask whether there is a newer file than the one in the cache.
        progress: called now and then with "waiting", "fetching" or "converting", the bytes done,
            and the bytes in all.

    Raises:
        FetchError: there is no such model, it needs more memory than there is (only if `dtype` is
            not given), or it cannot be fetched, converted or kept.
        InvalidArgumentError: `dtype` is given for a file that is a model file already.
    """
    found = find(name, dtype=dtype, offline=offline, update=update)
    return found.carry_out(progress) if isinstance(found, Preparation) else found


def find(
    name: StrPath, *, dtype: str | None = None, offline: bool = False, update: bool = False
) -> Path | Preparation:
    """Return the model file that `name` stands for, or what `fetch` would do to have it.

    The arguments and errors are those of `fetch`. Nothing is fetched or written.
    """
    text = os.fspath(name)
    dtype = None if dtype is None else _type_name(dtype)
    if os.path.exists(text):
        return _here(Path(text), dtype)
    if not text.startswith("hf://"):
        kept = [each.path for each in _kept_models() if each.name == text]
        if kept:
            return kept[0]
        if not _NAME.fullmatch(text) or text.lower().endswith((*CHECKPOINT_ENDS, ".json")):
            return Path(text)  # which is missing: opening it says so
    return _on_hub(_hub_name(text), dtype, offline, update)


def find_kept(name: str) -> list[CachedModel | UnfinishedModel]:
    """Return what the cache has of a model.

    Args:
        name: the name or address that it was fetched by, or its name in the cache.

    Raises:
        FetchError: nothing.
    """
    kept: list[CachedModel | UnfinishedModel] = [*cached_models(), *unfinished()]
    found = [each for each in kept if name in (each.name, os.path.basename(each.name))]
    if not found and (name.startswith("hf://") or "/" not in name):
        wanted = _hub_name(name)
        found = [
            each
            for each in kept
            if (wanted.is_made(each) if isinstance(each, CachedModel) else wanted.is_begun(each))
        ]
    if not found:
        raise FetchError(f"{name}: expected a model in {cache_folder()}, got none")
    return found


def recognise(path: StrPath) -> KnownModel | None:
    """Return the known model that a file is, by its name and its place in the cache; or None."""
    path = os.fspath(path)
    kept = next((each for each in _kept_models() if os.fspath(each.path) == path), None)
    return named_by_file(path, kept.repository if kept is not None else None)


def _kept_models() -> list[CachedModel]:
    """Return the models in the cache; none where there is no place for one."""
    with contextlib.suppress(FetchError):
        return cached_models()
    return []


def _hub_name(text: str) -> _HubName:
    if text.startswith("hf://"):
        return _HubName.of(text)
    known = find_known(text)
    return _HubName(text, known.repository, None, None, known)


def _here(path: Path, dtype: str | None) -> Path | Preparation:
    """Return a model file of this machine, or what makes one of a checkpoint."""
    if not _is_checkpoint(path):
        if dtype is not None:
            raise InvalidArgumentError(
                f"dtype: expected none for the model file {path}, got {dtype}"
            )
        return path
    _need_converter(str(path))
    chosen = dtype or DEFAULT_DTYPE
    made = local_target(path, chosen, _end_for(chosen))
    if made.is_file():
        return made
    held = _look_into(path)
    known = named_by_file(path)
    return _fitting(
        Preparation(
            name=str(path),
            known=known,
            source=path,
            dtype=chosen,
            target=made,
            work=work_folder(str(made)),
            fetch_bytes=0,
            weight_bytes=memory.weights(
                chosen, held.version, held.n_layer, held.n_embd, held.n_vocab
            ),
        ),
        asked=dtype is not None,
    )


def _look_into(checkpoint: Path) -> ModelInfo:
    """Return what a checkpoint holds, before anything is said of it."""
    import rwkv_convert

    try:
        return rwkv_convert.info(checkpoint)
    except rwkv_convert.ConvertError as error:
        raise FetchError(error.message, remedy=error.remedy) from None


def _is_checkpoint(path: Path) -> bool:
    if os.path.isdir(path) or path.name.endswith(".index.json"):
        return True
    if not os.path.isfile(path) or is_model_file(path):
        return False
    try:
        with path.open("rb") as file:
            return _CHECKPOINT.match(file.read(9)) is not None
    except OSError:
        return False


# ---- on a hub


@dataclass(frozen=True)
class _HubName:
    """A model on a hub, as it was asked for."""

    text: str
    repository: str
    file: str | None
    revision: str | None
    known: KnownModel | None

    @staticmethod
    def of(text: str) -> _HubName:
        """Take `hf://OWNER/NAME[/FILE][@REVISION]` apart."""
        match = _HUB_NAME.fullmatch(text)
        parts = text.removeprefix("hf://").rstrip("/").split("/")
        if match is None or {"", ".", ".."} & {*parts}:
            raise FetchError(
                f"{text}: expected hf://OWNER/NAME[/FILE][@REVISION], got something else"
            )
        repository, file = match["repository"], match["file"]
        known = named_by_file(file, repository) if file else None
        return _HubName(text, repository, file, match["revision"], known)

    @property
    def kept_revision(self) -> str | None:
        """What the cache calls the revision: it may have a / on the hub."""
        return self.revision.replace("/", "--") if self.revision else None

    @property
    def place(self) -> str:
        """Its folder in the cache."""
        return self.repository + (f"@{self.kept_revision}" if self.revision else "")

    @property
    def source(self) -> str:
        """What rwkv-convert calls it."""
        file = f"/{self.file}" if self.file else ""
        return f"hf://{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")

    def is_begun(self, model: UnfinishedModel) -> bool:
        """Whether an unfinished model may be this one."""
        if model.repository != self.repository:
            return False
        if self.known is not None and self.file is None:
            return self.known.matches(model.file)
        return self.file is None or self.file == model.file

    def is_made(self, model: CachedModel) -> bool:
        """Whether a file in the cache was made of this model."""
        if (model.repository, model.revision) != (self.repository, self.kept_revision):
            return False
        if self.file is not None:
            return model.stem == _stem(self.file)
        if self.known is not None:
            return self.known.is_checkpoint(model.stem)
        return model.stem == self.repository.partition("/")[2]


def _on_hub(wanted: _HubName, dtype: str | None, offline: bool, update: bool) -> Path | Preparation:
    kept = [model for model in cached_models() if wanted.is_made(model)]
    if dtype is not None:
        kept = [model for model in kept if model.dtype == dtype]
    kept.sort(key=lambda model: (model.dtype == DEFAULT_DTYPE, *by_date(model.stem)))
    if kept and not update:
        return kept[-1].path
    _need_converter(wanted.text)
    files = _files_of(wanted, offline)
    as_it_is = dtype is None and _is_model_name(files.file)
    if as_it_is and len(files.sizes) > 1 and files.file.endswith(".gguf"):
        raise FetchError(
            f"{wanted.text}: expected a GGUF file in one part, got {len(files.sizes)} parts"
        )
    chosen = None if as_it_is else dtype or DEFAULT_DTYPE
    stem = _stem(files.file)
    if wanted.file is None and wanted.known is None:
        stem = wanted.repository.partition("/")[2]
    end = os.path.splitext(files.file)[1] if chosen is None else _end_for(chosen)
    made = target(wanted.place, stem, chosen, end)
    if made.is_file():
        return made
    work = work_folder(f"{wanted.place}/{files.file}")
    there = next((each.done_bytes for each in unfinished() if each.path == work), 0)
    known = wanted.known
    return _fitting(
        Preparation(
            name=wanted.text,
            known=known,
            source=files,
            dtype=chosen,
            target=made,
            work=work,
            fetch_bytes=0 if files.in_cache else max(files.total_bytes - there, 0),
            weight_bytes=files.total_bytes
            if chosen is None
            else memory.weights_of(known, files.total_bytes, chosen),
        ),
        asked=dtype is not None,
    )


def _files_of(wanted: _HubName, offline: bool) -> HubFiles:
    """Return what the hub has of a model; without it, what was fetched completely before."""
    import rwkv_convert

    chooser = wanted.known.newest if wanted.known is not None else None
    told: rwkv_convert.ConvertError | FetchError | None = None
    if not offline:
        try:
            return rwkv_convert.find_hub_files(wanted.source, choose=chooser)
        except rwkv_convert.ConvertError as error:
            told = error
    for found in _complete(wanted):
        return found
    try:  # what huggingface_hub has fetched for somebody
        return rwkv_convert.find_hub_files(wanted.source, choose=chooser, offline=True)
    except (rwkv_convert.ConvertError, FetchError):
        if told is None:
            raise FetchError(
                f"{wanted.text}: expected it in {cache_folder() / wanted.place}, got nothing, and "
                "nothing is to be fetched"
            ) from None
        raise FetchError(told.message, remedy=told.remedy) from None


def _complete(wanted: _HubName) -> list[HubFiles]:
    """Return what was fetched completely, but not converted yet, the newest first."""
    from rwkv_convert import HubFiles

    found = []
    for each in unfinished():
        if not wanted.is_begun(each):
            continue
        plan = read_plan(each.path) or {}
        sizes = plan.get("sizes")
        if each.total_bytes == each.done_bytes and isinstance(sizes, dict):
            found.append(HubFiles(wanted.repository, str(plan.get("commit")), each.file, sizes))
    return sorted(found, key=lambda files: by_date(files.file), reverse=True)


# ---- both


def _fitting(found: Preparation, *, asked: bool) -> Preparation:
    """Refuse what has no room in memory, unless its type was asked for."""
    if found.fits or asked:
        return found
    smaller = [
        model
        for model in known_models().values()
        if found.known is not None
        and model.repository == found.known.repository
        and "?" not in model.name
        and model.layers is not None
        and memory.fits(memory.needed(memory.weights_of(model, 0, DEFAULT_DTYPE)))
    ]
    best = max(smaller, key=lambda m: memory.weights_of(m, 0, DEFAULT_DTYPE), default=None)
    raise FetchError(
        f"{found.name}: expected {size(found.memory_bytes)} of memory, got "
        f"{size(memory.memory_here())}",
        remedy=f"Try {best.name}" if best is not None else "Try a smaller model",
    )


def _need_converter(what: str) -> None:
    try:
        import rwkv_convert  # noqa: F401
    except ImportError:
        raise FetchError(
            f"{what}: fetching and converting need rwkv-convert, which is not installed",
            remedy="Try `pip install rwkv-py[run]`",
        ) from None


def _type_name(dtype: str) -> str:
    """Return the name of a type as the converter writes it."""
    _need_converter("dtype")
    from rwkv_convert import OptionError, parse_dtype

    try:
        return parse_dtype(dtype)
    except OptionError as error:
        raise InvalidArgumentError(f"dtype: {error.problem}") from None


def _end_for(dtype: str) -> str:
    """Return the ending of a model file of that type."""
    from rwkv_convert import container_for

    return ".gguf" if container_for(dtype) == "gguf" else ".bin"


def _stem(file: str) -> str:
    name = file.removesuffix(".index.json")
    return re.sub(r"-\d{5}-of-\d{5}$", "", os.path.splitext(name)[0])


def _is_model_name(file: str) -> bool:
    """Whether a file of the hub is a model file, as its name has it."""
    name = file.rpartition("/")[2]
    return name.endswith(".gguf") or (name.endswith(".bin") and "pytorch_model" not in name)
