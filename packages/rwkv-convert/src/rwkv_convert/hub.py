"""Models on a Hugging Face hub, fetched by huggingface_hub: its cache, tokens and settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import CheckpointError, quote

SCHEME = "hf://"
_SOURCE = re.compile(
    r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:/(?P<file>[^@]+?))?(?:@(?P<revision>[^@]+))?/?"
)
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5}\.[a-z]+)")

ChooseFile = Callable[[object, Iterable[str]], str]
"""Of the names in a folder, the file to read."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model on a hub, or a file of it.

    Attributes:
        repository: OWNER/NAME.
        file: path inside the repository; None for the one model in it.
        revision: branch, tag or commit; None for the newest.
    """

    repository: str
    file: str | None
    revision: str | None


def is_hub_source(source: str) -> bool:
    """Whether a user names a hub's model."""
    return source.startswith(SCHEME)


def parse_hub_source(source: str) -> HubSource:
    """Takes `hf://OWNER/NAME[/FILE][@REVISION]` apart.

    Raises:
        CheckpointError: it has another form.
    """
    match = _SOURCE.fullmatch(source)
    # No part may lead out of the repository's folder, nor out of one that files are fetched into.
    if match is None or {"", ".", ".."} & set(source.removeprefix(SCHEME).rstrip("/").split("/")):
        raise CheckpointError(
            f"{quote(source)}: expected hf://OWNER/NAME[/FILE][@REVISION], got something else"
        )
    return HubSource(f"{match['owner']}/{match['name']}", match["file"], match["revision"])


def download(source: str, choose_file: ChooseFile, *, quiet: bool = True) -> Path:
    """Fetches a model, as far as it is not in the cache already.

    A connection that breaks is taken up again, and files that are complete are kept. `HF_HOME`,
    `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub.

    Args:
        source: `hf://OWNER/NAME[/FILE][@REVISION]`.
        choose_file: chooses of the names in the repository.
        quiet: show no progress bar.

    Returns:
        the file, in the cache; shards and config.json are beside it.

    Raises:
        CheckpointError: huggingface_hub is missing, or the hub does not give the file.
    """
    wanted = parse_hub_source(source)
    hub = huggingface(source)

    def names() -> list[str]:
        try:
            about = hub.HfApi().model_info(wanted.repository, revision=wanted.revision)
        except hub.errors.HfHubHTTPError:  # the hub answers: there is no such model, or not for all
            raise
        except Exception:  # it cannot be reached, or is not to be asked
            return [path.name for path in cached_folder(hub, wanted).iterdir()]
        found = [file.rfilename for file in about.siblings or []]
        return [name for name in found if "/" not in name]

    try:
        with silence() if quiet else contextlib.nullcontext():
            file = wanted.file or choose_file(f"{SCHEME}{wanted.repository}", names())
            folder = hub.snapshot_download(
                wanted.repository, revision=wanted.revision, allow_patterns=beside(file)
            )
            path = Path(folder, file)
    except CheckpointError:
        raise
    except Exception as error:  # of any class: huggingface_hub's, its HTTP library's, OSError
        raise CheckpointError(f"{source}: cannot be fetched: {line_of(error)}") from error
    if not path.is_file():
        raise CheckpointError(f"{source}: expected a file {quote(file)}, got none")
    return path


def huggingface(source: str) -> Any:
    """The package huggingface_hub, imported where it is needed: it takes half a second.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        for part in ("constants", "errors", "utils"):
            import_module(f"huggingface_hub.{part}")
        return import_module("huggingface_hub")
    except ImportError as error:
        raise CheckpointError(
            f"{source}: expected the package huggingface_hub to be installed, got {error}",
            remedy="Try `pip install rwkv-convert[hub]`",
        ) from error


def cached_folder(hub: Any, wanted: HubSource) -> Path:
    """The folder of huggingface_hub's cache with what is there of a model, named by its commit."""
    return Path(
        hub.snapshot_download(
            wanted.repository, revision=wanted.revision, allow_patterns=[], local_files_only=True
        )
    )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without progress bars and warnings of huggingface_hub."""
    utils: Any = import_module("huggingface_hub.utils")  # which does not export what it documents
    verbosity, bars = utils.logging.get_verbosity(), not utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if bars:
            utils.enable_progress_bars()


def beside(file: str) -> list[str]:
    """What to fetch for a file, as patterns of names: with it, its shards and its config.json."""
    folder, slash, name = file.rpartition("/")
    patterns = [f"{folder}{slash}config.json", file]
    if name.endswith(".index.json"):
        stem, end = name.removesuffix(".index.json").rsplit(".", 1)
        patterns.append(f"{folder}{slash}{stem}-*.{end}")
    elif (match := _SHARD.fullmatch(name)) is not None:
        patterns.append(f"{folder}{slash}{match[1]}-*-of-{match[2]}")
    return patterns


def line_of(error: BaseException) -> str:
    """The first line of what an error says, and its kind if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
