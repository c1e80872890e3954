"""What a hub has, and files of it fetched into a folder: stopped at any byte, it goes on there.

huggingface_hub knows where a file is, with which token it is given and what is in its cache. What
it does not do is to go on after the process has ended, so the bytes are read here.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPResponse
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import CheckpointError, OutputError, quote, reason
from .hub import beside, cached_folder, huggingface, line_of, parse_hub_source, silence
from .sources import choose_file

_PIECE = 1 << 20
_TRIES = 5
"""How often a connection is made again that gave nothing."""
_SECONDS_BETWEEN = 1.0
_TIMEOUT = 30.0
_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<size>\d+|\*)")


@dataclass(frozen=True, slots=True)
class HubFiles:
    """The files of a model on a hub, as they are at one commit.

    Attributes:
        repository: OWNER/NAME.
        commit: the commit's full hash.
        file: the one to convert: of several shards the first, or their index.
        sizes: bytes of each file that is needed, by name: `file`, its shards, its config.json.
        in_cache: whether huggingface_hub's cache has all of them.
    """

    repository: str
    commit: str
    file: str
    sizes: dict[str, int]
    in_cache: bool = False

    @property
    def total_bytes(self) -> int:
        """Of all files together."""
        return sum(self.sizes.values())


def find_hub_files(
    source: str,
    *,
    choose: Callable[[Iterable[str]], str] | None = None,
    offline: bool = False,
) -> HubFiles:
    """Asks a hub what a model's files are; fetches none.

    Args:
        source: `hf://OWNER/NAME[/FILE][@REVISION]`.
        choose: which file of those whose names it is given, where `source` has none; by default the
            one model among them.
        offline: do not ask the hub, but huggingface_hub's cache.

    Raises:
        CheckpointError: huggingface_hub is missing, or the hub has no such model.
    """
    wanted = parse_hub_source(source)
    hub = huggingface(source)
    try:
        with silence():
            if offline or hub.constants.HF_HUB_OFFLINE:
                folder = cached_folder(hub, wanted)
                commit = folder.name
                sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
            else:
                about = hub.HfApi().model_info(
                    wanted.repository, revision=wanted.revision, files_metadata=True
                )
                commit = about.sha
                sizes = {f.rfilename: f.size or 0 for f in about.siblings or []}
    except Exception as error:  # of any class: huggingface_hub's, its HTTP library's, OSError
        raise CheckpointError(f"{source}: cannot be fetched: {line_of(error)}") from error
    names = sorted(name for name in sizes if "/" not in name)
    if wanted.file is not None:
        file = wanted.file
    else:
        file = choose(names) if choose else choose_file(f"hf://{wanted.repository}", names)
    if file not in sizes:
        raise CheckpointError(f"{source}: expected a file {quote(file)}, got none")
    folder_of = file.rpartition("/")[0]
    needed = {
        name: size
        for name, size in sizes.items()
        if name.rpartition("/")[0] == folder_of
        and (name == file or any(fnmatchcase(name, pattern) for pattern in beside(file)))
    }
    in_cache = None not in (_cached(hub, wanted.repository, commit, name) for name in needed)
    return HubFiles(wanted.repository, commit, file, needed, in_cache)


def fetch_hub_files(
    files: HubFiles,
    folder: str | os.PathLike[str],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fetches a model's files, as far as they are not in huggingface_hub's cache already.

    What is in `folder` of an earlier try, which may have ended anywhere, is gone on with. A
    connection that breaks is made again.

    Args:
        files: as `find_hub_files` gives them.
        folder: where they go; it is made. Files of another commit in it are not known from these.
        progress: called as `progress(bytes_done, bytes_total)` now and then.

    Returns:
        `files.file`, in `folder` or in huggingface_hub's cache; the others are beside it.

    Raises:
        CheckpointError: the hub does not give a file, or gives another one.
        OutputError: a file cannot be written.
    """
    hub = huggingface(f"hf://{files.repository}")
    places = {name: _cached(hub, files.repository, files.commit, name) for name in files.sizes}
    if (place := places[files.file]) is not None and None not in places.values():
        return place
    before = 0
    for name, size in files.sizes.items():

        def report(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, files.total_bytes)

        _fetch(hub, files, name, Path(folder, name), report)
        before += size
    return Path(folder, files.file)


def _cached(hub: Any, repository: str, commit: str, name: str) -> Path | None:
    """Where huggingface_hub's cache has a file."""
    place = hub.try_to_load_from_cache(repository, name, revision=commit)
    return Path(place) if isinstance(place, str) else None


def _fetch(
    hub: Any, files: HubFiles, name: str, path: Path, progress: Callable[[int], None]
) -> None:
    """Fetches one file: its beginning has the ending `.part` until it is complete."""
    size = files.sizes[name]
    if path.is_file() and path.stat().st_size == size:
        progress(size)
        return
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab", buffering=0) as out:
            if out.tell() > size:
                out.truncate(0)
            _read_all(hub, files, name, out, progress)
            os.fsync(out.fileno())
        part.replace(path)
    except _Refused as error:
        source = f"hf://{files.repository}/{name}"
        raise CheckpointError(f"{source}: cannot be fetched: {error}") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


class _Refused(Exception):
    """A file is not given, and trying again will not help."""


class _Broken(Exception):
    """A connection was not made, or ended too early: trying again may help."""


def _read_all(
    hub: Any, files: HubFiles, name: str, out: FileIO, progress: Callable[[int], None]
) -> None:
    """Reads a file from where it was left, over as many connections as it takes."""
    tries = _TRIES
    while (done := _size(out)) < files.sizes[name]:
        try:
            _read_on(hub, files, name, out, progress)
        except _Broken as error:
            gained = _size(out) > done
            tries = _TRIES if gained else tries - 1
            if not tries:
                raise _Refused(str(error)) from error
            time.sleep(0 if gained else _SECONDS_BETWEEN)
    progress(files.sizes[name])


def _read_on(
    hub: Any, files: HubFiles, name: str, out: FileIO, progress: Callable[[int], None]
) -> None:
    """Reads on until the file is complete, or raises _Broken."""
    done, size = _size(out), files.sizes[name]
    with _ask(hub, files, name, done) as answer:
        if answer.status == 200 and done:  # it sends all of it
            out.truncate(0)
            done = 0
        told = _told_size(answer, done)
        if told not in (None, size):
            raise _Refused(f"expected {size} bytes, got {told}")
        while done < size:
            try:
                data = answer.read1(min(_PIECE, size - done))
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(line_of(error)) from error
            if not data:
                raise _Broken(f"expected {size} bytes, got {done}")
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
            done += len(data)
            progress(done)


def _size(out: FileIO) -> int:
    return os.fstat(out.fileno()).st_size


def _told_size(answer: HTTPResponse, first: int) -> int | None:
    """What the answer says of the size of the file; None if it does not."""
    if answer.status == 200:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None or int(match["first"]) != first:
        raise _Refused(f"expected the file from byte {first}, got another part")
    return int(match["size"]) if match["size"] != "*" else None


def _ask(hub: Any, files: HubFiles, name: str, first: int) -> HTTPResponse:
    """Asks for a file from a byte on, where the hub says that it is: perhaps in another store."""
    url = hub.hf_hub_url(files.repository, name, revision=files.commit)
    headers: dict[str, str] = hub.utils.build_hf_headers()
    token = headers.pop("authorization", None)
    try:
        with silence():
            place = hub.get_hf_file_metadata(url).location
        request = urllib.request.Request(place, headers={**headers, "Range": f"bytes={first}-"})
        if token is not None and urlsplit(place).netloc == urlsplit(url).netloc:
            # Unredirected: what a store may see is in its address, and no token.
            request.add_unredirected_header("Authorization", token)
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failure(error.code)(f"the hub answers {error.code} {error.reason}") from error
    except hub.errors.HfHubHTTPError as error:
        raise _failure(error.response.status_code)(line_of(error)) from error
    except hub.errors.OfflineModeIsEnabled as error:
        raise _Refused(line_of(error)) from error
    except Exception as error:  # of any class: urllib's, OSError, huggingface_hub's HTTP library's
        raise _Broken(line_of(error)) from error
    return answer


def _failure(status: int) -> type[_Broken | _Refused]:
    """Whether it may help to ask again: the hub is busy, or it said no."""
    return _Broken if status >= 500 or status in (408, 429) else _Refused
