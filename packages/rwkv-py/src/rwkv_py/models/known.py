"""The models that are known by a short name: data, in a file that a user can extend."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from .._arguments import StrPath
from ..chat_format import CHAT_FORMATS, ChatFormat
from ..errors import FetchError
from ..sampling import SamplingOptions

__all__ = ["KnownModel", "find_known", "known_models", "named_by_file"]

CHECKPOINT_ENDS = (".pth", ".pt", ".safetensors", ".st", ".bin", ".gguf", ".ckpt")

_DATE = re.compile(r"(?<!\d)20\d{6}(?!\d)")
_CONTEXT = re.compile(r"ctx(\d+)(k?)", re.IGNORECASE)
_TELLING = 6
"""So many letters of a pattern make it one of certain files, and not of any."""


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that has a short name.

    Attributes:
        name: such as `g1-0.4b`; a ? in it stands for any letter.
        series: the name of its series, such as `g1`.
        about: what it is good at.
        repository: OWNER/NAME on the hub.
        pattern: of the file's name there, with the wildcards * and ?.
        format: how turns are written, by its name in `CHAT_FORMATS`.
        sampling: settings of a chat, in place of the format's.
        version: RWKV version, None if it is not told.
        layers: number of layers, None if it is not told.
        width: n_embd, None if it is not told.
        context: tokens that it was trained to read at once, None if it is not told.
    """

    name: str
    series: str
    about: str
    repository: str
    pattern: str
    format: str
    sampling: SamplingOptions
    version: str | None
    layers: int | None
    width: int | None
    context: int | None

    @property
    def page(self) -> str:
        """Address of its page on the hub."""
        return f"https://huggingface.co/{self.repository}"

    @property
    def chat_format(self) -> ChatFormat:
        """How a chat is written, with the settings that suit it."""
        chat_format = ChatFormat.named(self.format)
        if not self.sampling:
            return chat_format
        return ChatFormat(**{**vars(chat_format), "sampling": self.sampling})

    @property
    def telling(self) -> int:
        """How many letters of a file's name its pattern determines."""
        return len(re.sub(r"[*?]", "", os.path.splitext(self.pattern)[0]))

    def matches(self, file: str) -> bool:
        """Whether a file on the hub is this model, by its name."""
        return fnmatchcase(file.lower(), self.pattern.lower())

    def is_checkpoint(self, stem: str) -> bool:
        """Whether a file of that name, without its ending, is this model."""
        return any(self.matches(stem + end) for end in ("", *CHECKPOINT_ENDS))

    def newest(self, files: Iterable[str]) -> str:
        """Return the file that is this model, of several the newest by the date in its name.

        Raises:
            FetchError: there is none.
        """
        files = list(files)
        found = [file for file in files if self.matches(file)]
        if found:
            return max(found, key=by_date)
        models = [file for file in files if file.endswith(CHECKPOINT_ENDS)]
        near = difflib.get_close_matches(self.pattern, models, 3, cutoff=0.4) or models[:3]
        others = f" and {len(models) - len(near)} others" if len(models) > len(near) else ""
        known = [named_by_file(file, self.repository) for file in near]
        names = list(dict.fromkeys(model.name for model in known if model is not None))
        raise FetchError(
            f"{self.name}: expected a file {self.pattern} in {self.repository}, got "
            + (f"{', '.join(near)}{others}" if near else "no model"),
            remedy=f"Try {' or '.join(names)}" if names else "",
        )


def by_date(file: str) -> tuple[str, str]:
    """Return what sorts files by the date in their names, the newest last."""
    dates = _DATE.findall(file)
    return (dates[-1] if dates else "", file)


def context_of(file: str) -> int | None:
    """Return how many tokens a model was trained to read at once, if its file's name tells."""
    match = _CONTEXT.search(file)
    return int(match[1]) * (1024 if match[2] else 1) if match else None


def known_models() -> dict[str, KnownModel]:
    """Return the models that have a short name, by it.

    They are those of the package, and of the file `models.toml` in `$XDG_CONFIG_HOME/rwkv`, which
    is `~/.config/rwkv`.

    Raises:
        FetchError: the user's file cannot be read or understood.
    """
    ours = resources.files(__package__).joinpath("known_models.toml").read_text(encoding="utf-8")
    series = {each["name"]: each for each in tomllib.loads(ours)["series"]}
    where = {name: "known_models.toml" for name in series}
    path = _users_file()
    for each in _read(path) if path is not None else ():
        series[each["name"]] = each
        where[each["name"]] = str(path)
    models = [model for name, each in series.items() for model in _models(where[name], each)]
    return {model.name: model for model in models}


def find_known(name: str) -> KnownModel:
    """Return the model of a short name, case ignored.

    Raises:
        FetchError: there is none; names that are near are told.
    """
    wanted = name.lower()
    models = list(known_models().values())
    names = []
    for model in models:
        filled = _filled(model, wanted)
        names.append(filled.name)
        if filled.name == wanted:
            return filled
    near = difflib.get_close_matches(wanted, [n for n in names if "?" not in n], 3, cutoff=0.5)
    raise FetchError(
        f"{name}: expected a model file, a checkpoint, hf://OWNER/NAME or the name of a known "
        "model, got none of them",
        remedy=f"Try {' or '.join(near)}" if near else "Try one of `rwkv models --known`",
    )


def named_by_file(file: StrPath, repository: str | None = None) -> KnownModel | None:
    """Return the known model that a file is, by its name; None if it is none.

    Args:
        file: a checkpoint, or a model file that was made of it and is named after it.
        repository: the one that it comes from, if that is known.
    """
    stem = os.path.basename(os.fspath(file)).lower()
    stem = stem.rpartition(".")[0] or stem
    found: list[tuple[int, KnownModel]] = []
    for model in known_models().values():
        own = repository is not None and model.repository.lower() == repository.lower()
        if not own and repository is not None:
            continue
        filled = _named_by(model, stem)
        if filled is not None and (own or filled.telling >= _TELLING):
            found.append((filled.telling, filled))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _filled(model: KnownModel, name: str) -> KnownModel:
    """Return a model whose name has a ?, with the letter that a name has there."""
    match = re.match(re.escape(model.series).replace(r"\?", "[a-z]"), name)
    if "?" not in model.series or match is None:
        return model
    return _renamed(model, match[0])


def _named_by(model: KnownModel, stem: str) -> KnownModel | None:
    """Return the model if a file's name is its; a ? in its name becomes the letter there."""
    if "?" not in model.series:
        return model if _begins_as(model, stem) else None
    for match in re.finditer(re.escape(model.series).replace(r"\?", "[a-z]"), stem):
        filled = _renamed(model, match[0])
        if _begins_as(filled, stem):
            return filled
    return None


def _begins_as(model: KnownModel, stem: str) -> bool:
    """Whether a file's name, without its ending, is a model's, perhaps with its type after it."""
    return model.is_checkpoint(stem) or model.is_checkpoint(stem.rpartition("-")[0])


def _renamed(model: KnownModel, series: str) -> KnownModel:
    values = {
        **vars(model),
        "series": series,
        "name": model.name.replace(model.series, series, 1),
        "pattern": model.pattern.replace("{name}", series),
    }
    return KnownModel(**values)


# ---- the files


def _users_file() -> Path | None:
    config = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(config if os.path.isabs(config) else os.path.expanduser("~/.config"), "rwkv")
    path = folder / "models.toml"
    return path if folder.is_absolute() and path.is_file() else None


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the series of a user's file."""
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise FetchError(f"{path}: expected a file of TOML, got: {error}") from None
    series = content.get("series")
    if not isinstance(series, list) or not all(isinstance(each, dict) for each in series):
        raise FetchError(f"{path}: expected [[series]] and what belongs to it, got something else")
    for number, each in enumerate(series, 1):
        _value(f"{path}: series {number}", each, "name", str)
    return series


_TEXTS = ("name", "about", "repository", "pattern", "version", "format")
_OTHERS: Mapping[str, type] = {"context": int, "sampling": dict, "sizes": dict}
_OF_SIZES: Mapping[str, type] = {"layers": int, "width": int, "context": int}
_NEEDED = ("name", "repository", "pattern")


def _models(path: str, series: Mapping[str, Any]) -> Iterator[KnownModel]:
    """Yield the models of a series, each value of it checked."""
    where = f"{path}: series {series['name']!r}"
    _known_keys(where, series, (*_TEXTS, *_OTHERS))
    for key in _TEXTS:
        if key in series or key in _NEEDED:
            _value(where, series, key, str)
    for key, kind in _OTHERS.items():
        if key in series:
            _value(where, series, key, kind)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", series["repository"]):
        raise FetchError(f"{where}: repository, expected OWNER/NAME, got {series['repository']!r}")
    if not re.fullmatch(r"[\w.?-]+", series["name"]):
        raise FetchError(f"{where}: name, expected letters, digits and .-?, got others")
    chat_format = series.get("format", "world")
    if chat_format not in CHAT_FORMATS:
        known = ", ".join(CHAT_FORMATS)
        raise FetchError(f"{where}: format, expected one of {known}, got {chat_format!r}")
    sampling: Any = series.get("sampling", {})
    _known_keys(f"{where}: sampling", sampling, SamplingOptions.__annotations__)
    sizes = series.get("sizes", {"": {}})
    for size, values in sizes.items():
        of_size = f"{where}: size {size!r}"
        if not isinstance(values, dict):
            raise FetchError(f"{of_size}: expected a table, got {values!r}")
        _known_keys(of_size, values, _OF_SIZES)
        for key, kind in _OF_SIZES.items():
            if key in values and _value(of_size, values, key, kind) < 1:
                raise FetchError(f"{of_size}: {key}, expected at least 1, got {values[key]}")
        name = series["name"].lower()
        pattern = series["pattern"].replace("{size}", size)
        yield KnownModel(
            name=f"{name}-{size.lower()}" if size else name,
            series=name,
            about=series.get("about", ""),
            repository=series["repository"],
            pattern=pattern if "?" in name else pattern.replace("{name}", name),
            format=chat_format,
            sampling=sampling,
            version=series.get("version"),
            layers=values.get("layers"),
            width=values.get("width"),
            context=values.get("context", series.get("context")),
        )


def _known_keys(where: str, values: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in values:
        if key not in known:
            raise FetchError(f"{where}: expected {', '.join(known)}, got {key!r}")


def _value(where: str, values: Mapping[str, Any], key: str, kind: type) -> Any:
    value = values.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = {str: "a text", int: "a whole number", dict: "a table"}
        raise FetchError(f"{where}: {key}, expected {kinds[kind]}, got {value!r}")
    return value
