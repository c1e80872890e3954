"""Finds the model in a checkpoint, whoever named its tensors, and gives each its official name.

Trainers put a model into a dict beside their own state, and a prefix before every name; others name
and store its tensors as the tables of `layouts` say. What comes out are views of the same numbers.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from .checkpoint import Checkpoint, TensorView
from .delta import Delta
from .errors import ModelError, listing, quote
from .layouts import HEADS, LAYOUTS, OFFICIAL, Change, Layout, LayoutRow

_BEFORE_LAYERS = re.compile(r"((?:[^.]+\.)*?)(?:blocks|layers)\.(?:0|[1-9]\d{0,4})\.")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the numbers of a tensor lie, and as what.

    Attributes:
        name: in the file.
        path: the file.
        parts: views, mostly one; the tensor is what they are together.
        axis: of the official tensor, along which the parts follow each other.
    """

    name: str
    path: Path
    parts: tuple[TensorView, ...]
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        shape = list(self.parts[0].shape)
        if len(self.parts) > 1:
            shape[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return tuple(shape)


@dataclass(slots=True)
class ModelTensors:
    """The tensors of a model.

    Attributes:
        checkpoint: the file, or files, that they are in.
        group: path of the dict that holds them.
        layout: how they are named there.
        key: path of the dict that holds them, and their common prefix; "" if there is neither.
        tensors: by official name; what no layout knows has the name of the file.
        ignored: names of tensors that are left out as asked.
        beside: of a model in a dict of its own, what else the file's dict holds.
        deltas: what a fine-tuning adds, by official name.
        merged: what was merged into them, for people.
    """

    checkpoint: Checkpoint
    group: str
    layout: str
    key: str
    tensors: dict[str, Source]
    ignored: list[str]
    beside: list[str]
    deltas: dict[str, Delta] = field(default_factory=dict)
    merged: list[str] = field(default_factory=list)

    @property
    def renamed(self) -> bool:
        """Whether the file has other names than the official ones."""
        return self.layout != OFFICIAL.name


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Tensors that may be a model: those with layers, of one dict, below one prefix."""

    group: str
    prefix: str
    layout: Layout

    @property
    def key(self) -> str:
        return ".".join(part for part in (self.group, self.prefix.rstrip(".")) if part)


def find_model(
    checkpoint: Checkpoint, key: str | None = None, ignore: tuple[str, ...] = ()
) -> ModelTensors:
    """Finds the model in a checkpoint.

    Args:
        checkpoint: as it was read.
        key: path of the dict with the model, or its prefix, or both joined by a dot; needed where
            there are several.
        ignore: shell patterns; tensors of the file with such names are left out.

    Raises:
        ModelError: there are several, or two tensors with the same official name, or one cannot be
            taken apart as its layout says.
    """
    if checkpoint.is_model_file:
        tensors = {n: _source(checkpoint, n, v) for n, v in checkpoint.tensors.items()}
        ignored = [name for name in tensors if _is_ignored(name, ignore)]
        for name in ignored:
            del tensors[name]
        return ModelTensors(checkpoint, "", OFFICIAL.name, "", tensors, ignored, [])
    chosen = _choose(checkpoint, key)
    named: dict[str, Source] = {}
    ignored = []
    for name, view in checkpoint.groups[chosen.group].items():
        source = _source(checkpoint, name, view)
        if _is_ignored(name, ignore):
            ignored.append(name)
            continue
        for official, part in _official(source, chosen):
            if official in named:
                raise ModelError(
                    f"{source.path}: tensor {quote(name)}: expected one tensor for "
                    f"{quote(official)}, got {quote(named[official].name)} too",
                    remedy="Try ignore= with the name of the one to leave out",
                )
            named[official] = part
    beside = [*checkpoint.other_entries, *checkpoint.tensors] if chosen.group else []
    beside = [entry for entry in beside if entry != chosen.group.split(".")[0]]
    return ModelTensors(
        checkpoint, chosen.group, chosen.layout.name, chosen.key, named, ignored, beside
    )


def _source(checkpoint: Checkpoint, name: str, view: TensorView) -> Source:
    return Source(name, checkpoint.path_of(name), (view,))


def _is_ignored(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _choose(checkpoint: Checkpoint, key: str | None) -> _Candidate:
    found = list(_candidates(checkpoint))
    if key is not None:
        fitting = [c for c in found if key in (c.key, c.group, c.prefix.rstrip("."))]
        if not fitting:
            keys = [c.key for c in found]
            raise ModelError(
                f"{checkpoint.path}: a model at {quote(key)}, expected one of {listing(keys)}"
            )
        found = fitting
    whole = [c for c in found if _has_embedding(checkpoint, c)]
    if len(whole) > 1:
        raise ModelError(
            f"{checkpoint.path}: expected one model, got {len(whole)}: "
            f"{listing([c.key for c in whole])}",
            remedy="Try key= with the name of one",
        )
    if whole or found:  # a part of a model: what it lacks will be named
        return (whole or found)[0]
    group = next((name for name, tensors in checkpoint.groups.items() if tensors), "")
    return _Candidate(group, "", OFFICIAL)


def _candidates(checkpoint: Checkpoint) -> Iterator[_Candidate]:
    for group, tensors in checkpoint.groups.items():
        below: dict[str, list[str]] = {}
        for name in tensors:
            if (match := _BEFORE_LAYERS.match(name)) is not None:
                below.setdefault(match[1], []).append(name[len(match[1]) :])
        for prefix, names in below.items():
            layout = next((one for one in LAYOUTS if _has_mark(one, names)), None)
            if layout is not None:
                yield _Candidate(group, prefix, layout)


def _has_mark(layout: Layout, names: list[str]) -> bool:
    return any(_pattern(mark).fullmatch(name) for mark in layout.marks for name in names)


def _has_embedding(checkpoint: Checkpoint, candidate: _Candidate) -> bool:
    rows = candidate.layout.rows
    names = ["emb.weight", *(row.theirs for row in rows if row.ours == ("emb.weight",))]
    tensors = checkpoint.groups[candidate.group]
    return any(candidate.prefix + name in tensors for name in names)


@cache
def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name)
    number, rest = r"(?P<i>0|[1-9]\\d{0,4})", r"(?P<rest>.+)"
    return re.compile(re.sub(r"\\{i\\}", number, escaped).replace(r"\{rest\}", rest), re.DOTALL)


def _official(source: Source, candidate: _Candidate) -> Iterator[tuple[str, Source]]:
    """The official tensors that one of the file's holds; one that is not known keeps its name."""
    name = source.name
    if name.startswith(candidate.prefix):
        name = name[len(candidate.prefix) :]
    else:
        shared = _shared_prefix(name, candidate.prefix)
        if name[len(shared) :] not in HEADS:
            yield name, source
            return
        name = name[len(shared) :]
    for row in candidate.layout.rows:
        if (match := _pattern(row.theirs).fullmatch(name)) is not None:
            values = match.groupdict()
            names = [
                ours.replace("{i}", values.get("i", "")).replace("{rest}", values.get("rest", ""))
                for ours in row.ours
            ]
            yield from zip(names, _changed(source, row), strict=True)
            return
    yield name, source


def _shared_prefix(name: str, prefix: str) -> str:
    """As many parts of a prefix as a name begins with."""
    shared = ""
    for part in prefix.split(".")[:-1]:
        if not name.startswith(f"{shared}{part}."):
            break
        shared += part + "."
    return shared


def _changed(source: Source, row: LayoutRow) -> list[Source]:
    """What a row makes of a tensor."""
    (view,) = source.parts
    if row.change is Change.SAME:
        return [source]
    if row.change is Change.SPLIT:
        _check(source, len(view.shape) > 1 and view.shape[0] == len(row.ours), len(row.ours))
        return [replace(source, parts=(_narrowed(view, 0, i, 1),)) for i in range(len(row.ours))]
    _check(source, len(view.shape) == 2, "2 dimensions")
    if row.change is Change.TRANSPOSE:
        return [replace(source, parts=(view.transposed(),))]
    axis = 0 if row.change is Change.ROW_BLOCKS else 1
    size, left = divmod(view.shape[axis], len(row.order))
    _check(source, size > 0 and not left, f"a multiple of {len(row.order)}")
    blocks = [_narrowed(view, axis, i * size, size).transposed() for i in row.order]
    if row.change is Change.ROW_BLOCKS:
        return [replace(source, parts=tuple(blocks), axis=1)]
    stacked = tuple(replace(b, shape=(1, *b.shape), strides=(0, *b.strides)) for b in blocks)
    return [replace(source, parts=stacked, axis=0)]


def _check(source: Source, fits: bool, expected: object) -> None:
    if not fits:
        if isinstance(expected, int):
            expected = f"{expected} tensors in one"
        raise ModelError(
            f"{source.path}: shape of tensor {quote(source.name)}, expected {expected}, "
            f"got {source.shape}"
        )


def _narrowed(view: TensorView, axis: int, start: int, size: int) -> TensorView:
    """Some of the indices along one dimension."""
    return replace(
        view,
        offset=view.offset + view.type.bytes_of(start * view.strides[axis]),
        shape=(*view.shape[:axis], size, *view.shape[axis + 1 :]),
    )
