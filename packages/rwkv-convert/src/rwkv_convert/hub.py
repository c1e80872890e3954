"""Models on a Hugging Face hub, fetched by huggingface_hub: its cache, tokens and settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

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
    if match is None or ".." in source.split("/"):
        raise CheckpointError(
            f"{quote(source)}: expected hf://OWNER/NAME[/FILE][@REVISION], got something else"
        )
    return HubSource(f"{match['owner']}/{match['name']}", match["file"], match["revision"])


def download(source: str, choose_file: ChooseFile) -> Path:
    """Fetches a model, as far as it is not in the cache already.

    What was fetched before an interruption is not fetched again. `HF_HOME`, `HF_TOKEN`,
    `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub.

    Args:
        source: `hf://OWNER/NAME[/FILE][@REVISION]`.
        choose_file: chooses of the names in the repository.

    Returns:
        the file, in the cache; shards and config.json are beside it.

    Raises:
        CheckpointError: huggingface_hub is missing, or the hub does not give the file.
    """
    wanted = parse_hub_source(source)
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise CheckpointError(
            f"{source}: expected the package huggingface_hub to be installed, got {error}",
            remedy="Try `pip install rwkv-convert[hub]`",
        ) from error

    def fetch(patterns: list[str], *, offline: bool = False) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                wanted.repository,
                revision=wanted.revision,
                allow_patterns=patterns,
                local_files_only=offline,
            )
        )

    try:
        file = wanted.file
        if file is None:
            try:
                names = huggingface_hub.HfApi().list_repo_files(
                    wanted.repository, revision=wanted.revision
                )
            except (errors.OfflineModeIsEnabled, OSError, RuntimeError) as error:
                if isinstance(error, errors.HfHubHTTPError):
                    raise
                folder = fetch([], offline=True)
                names = [p.name for p in folder.iterdir()]
            file = choose_file(f"{SCHEME}{wanted.repository}", names)
        path = fetch(_patterns(file)) / file
    except CheckpointError:
        raise
    except Exception as error:  # of any class: those of huggingface_hub, httpx, requests, and OSError
        raise CheckpointError(f"{source}: cannot be fetched: {_line(error)}") from error
    if not path.is_file():
        raise CheckpointError(f"{source}: expected a file {quote(file)}, got none")
    return path


def _patterns(file: str) -> list[str]:
    """What to fetch for a file: its shards and its config.json come with it."""
    folder, slash, name = file.rpartition("/")
    beside = [f"{folder}{slash}config.json", file]
    if name.endswith(".index.json"):
        stem, end = name.removesuffix(".index.json").rsplit(".", 1)
        beside.append(f"{folder}{slash}{stem}-*.{end}")
    elif (match := _SHARD.fullmatch(name)) is not None:
        beside.append(f"{folder}{slash}{match[1]}-*-of-{match[2]}")
    return beside


def _line(error: BaseException) -> str:
    """The first line of what an error says, and its kind if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
