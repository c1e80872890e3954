"""Which RWKV version a checkpoint is, and where the numbers of each tensor lie, by the tables.

What comes out is complete and checked: every tensor of the version, under the name and in the shape
of a model file, as views of the input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from .checkpoint import Checkpoint, TensorView, layer_of
from .delta import Delta
from .errors import ModelError, listing, quote
from .official_names import ModelTensors, Source
from .tensor_table import TABLES, Change, Layers, Role, Row
from .time_state import find_time_state
from .unknown_tensors import check_unknown

MAX_LAYERS = 1000
"""The largest official models have 61."""

# The version is that of the first line whose tensors exist in a layer, but for the last one, which
# must not.
_DETECTION: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("7", ("att.k_k",), ""),
    ("7", ("att.r_k",), ""),
    ("7", ("att.x_rwkvag",), ""),
    ("6", ("att.time_maa_x",), ""),
    ("5.1-gate", ("att.ln_x.weight", "att.gate.weight", "att.time_first"), "att.time_faaaa"),
    ("5.2", ("att.ln_x.weight", "att.gate.weight"), ""),
    ("5.1", ("att.ln_x.weight",), ""),
    ("4", ("att.time_decay",), ""),
)

# Tensors of models that are close to a version, but are not it: leaving these out would give a file
# that loads and talks nonsense.
_OTHER_ARCHITECTURES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"blocks\.\d+\.ffn\.(s_emb|s_emb_x|enn)\.weight"),
        "RWKV with DeepEmbed",
    ),
    (re.compile(r"blocks\.\d+\.ffn\.s[012]"), "RWKV with DeepEmbed"),
    (re.compile(r"blocks\.\d+\.(qkv|att\.qkv)\..*"), "RWKV with DeepEmbed attention"),
    (re.compile(r"blocks\.\d+\.tiny_.*"), "RWKV-4a"),
    (re.compile(r".*\.lora_[AB]|.*\.(bone|disha)"), "a fine-tuning delta, not a whole model"),
)


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor as it will stand in a model file, and where its numbers come from.

    Attributes:
        name: in the model file.
        role: decides its type.
        shape: in the model file, PyTorch's order.
        parts: one after the other its numbers in row-major order.
        paths: the file that each part is a view of.
        change: what is still to be computed: one of the exponentials, or nothing.
        delta: what is added to it before.
        own_name: in a ggmf file, where another container names it otherwise; else "".
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    parts: tuple[TensorView, ...]
    paths: tuple[Path, ...]
    change: Change
    delta: Delta | None = None
    own_name: str = ""

    @property
    def name_in_ggmf(self) -> str:
        """The name that a ggmf file has for it, whatever is written."""
        return self.own_name or self.name

    @property
    def path(self) -> Path:
        """The file that its numbers come from, of several the first."""
        return self.paths[0]


@dataclass(frozen=True, slots=True)
class Model:
    """What a checkpoint's tensors make up.

    Attributes:
        version: "4", "5.1", "5.2", "6" or "7": what it is in a model file.
        n_layer: number of layers.
        n_embd: width.
        n_vocab: size of the vocabulary.
        n_ffn: width of the channel mix.
        n_head: number of heads; None for RWKV-4, which has none.
        tensors: in the order of a model file.
        unused: names of tensors that the version does not use; they are left out.
    """

    version: str
    n_layer: int
    n_embd: int
    n_vocab: int
    n_ffn: int
    n_head: int | None
    tensors: tuple[FileTensor, ...]
    unused: tuple[str, ...]


class _MisshapedError(Exception):
    def __init__(self, problem: str, name: str = "") -> None:
        super().__init__(problem)
        self.name = name  # of the tensor


def _without_layer(name: str) -> str:
    """`blocks.{i}.rest` of `blocks.N.rest`."""
    return f"blocks.{{i}}.{name.split('.', 2)[2]}" if layer_of(name) >= 0 else name


_KNOWN_NAMES = {
    name for rows in TABLES.values() for row in rows for name in (row.name, row.name_in_file)
}


def identify(found: ModelTensors, time_state: Checkpoint | None = None) -> Model:
    """Finds out which RWKV version a model is, and checks every tensor's presence and shape.

    Args:
        found: the model's tensors, by official name.
        time_state: a file with an initial state, which takes the place of the model's own.

    Raises:
        ModelError: it is none that we know; the message lists what was found and what is missing.
    """
    path = found.checkpoint.path
    for name, source in found.tensors.items():
        for pattern, what in _OTHER_ARCHITECTURES:
            if pattern.fullmatch(name):
                raise ModelError(
                    f"{path}: tensor {quote(source.name)} shows {what}, which is not supported"
                )
    version = _detect(found)
    emb = found.tensors.get("emb.weight")
    if emb is not None and len(emb.shape) != 2:
        raise ModelError(
            f"{path}: shape of tensor {quote(emb.name)}, expected 2 dimensions, got {emb.shape}"
        )
    n_layer = 1 + max(layer_of(name) for name in found.tensors)
    most = min(len(found.tensors), MAX_LAYERS)
    if n_layer > most:
        raise ModelError(f"{path}: expected at most {most} layers, got number {n_layer - 1}")
    names = dict(found.tensors)
    if time_state is not None:
        names.update(_time_state_for(version, n_layer, time_state))

    # Every tensor that the version has, by the name that the checkpoint should hold it under.
    is_model_file = found.checkpoint.is_model_file
    rows = _file_rows(TABLES[version]) if is_model_file else TABLES[version]
    expected: dict[str, tuple[Row, int]] = {}
    present = {_without_layer(name) for name in names}
    for row, i in _in_file_order(rows, n_layer):
        if row.layers is not Layers.OPTIONAL or row.name in present:
            expected[row.name.replace("{i}", str(i))] = (row, i)
    missing = [
        name for name, (row, i) in expected.items() if name not in names and not _is_unused(row, i)
    ]
    # A tensor of another version is not unused: the file is a mixture, or lacks what we detect by.
    foreign = [
        name for name in names if name not in expected and _without_layer(name) in _KNOWN_NAMES
    ]
    if missing or foreign:
        raise ModelError(
            f"{path}: not a whole RWKV-{version} model: missing {listing(missing)}; "
            f"found {listing([name for name in names if name in expected])}"
            + (f"; of other versions {listing(foreign)}" if foreign else "")
            + (f" (official names; the file has those of {found.layout})" if found.renamed else "")
        )
    unknown = [name for name in names if name not in expected]
    check_unknown(found, unknown, set(expected))

    try:
        letters = _Letters(names, expected, lowrank_transposed=False)
    except _MisshapedError as problem:
        # Some safetensors files hold the low-rank matrices transposed, as model files do.
        try:
            letters = _Letters(names, expected, lowrank_transposed=True)
        except _MisshapedError:
            where = names[problem.name].path if problem.name else path
            raise ModelError(f"{where}: {problem}") from None

    tensors: list[FileTensor] = []
    joined: set[str] = set()
    for name, (row, layer) in expected.items():
        if _is_unused(row, layer):
            continue
        file_name = row.name_in_file.replace("{i}", str(layer))
        if row.change is Change.JOIN:
            if file_name in joined:
                continue
            joined.add(file_name)
            members = [
                r.name.replace("{i}", str(layer)) for r in rows if r.file_name == row.file_name
            ]
        else:
            members = [name]
        shape = letters.resolve(row.file_shape, layer)
        parts: list[TensorView] = []
        paths: list[Path] = []
        for member in members:
            views = letters.views(names[member], row, layer)
            parts += views
            paths += [names[member].path] * len(views)
        computed = row.change in (Change.NEG_EXP, Change.EXP, Change.EXP_NEG_EXP)
        left_to_do = row.change if computed else Change.RESHAPE
        delta = found.deltas.get(name)
        tensors.append(
            FileTensor(file_name, row.role, shape, tuple(parts), tuple(paths), left_to_do, delta)
        )
    return Model(
        version="5.2" if version == "5.1-gate" else version,
        n_layer=n_layer,
        n_embd=letters.values["C"],
        n_vocab=letters.values["V"],
        n_ffn=letters.values["F"],
        n_head=letters.values.get("H"),
        tensors=tuple(tensors),
        unused=tuple(names[name].name for name in unknown),
    )


def _time_state_for(version: str, n_layer: int, source: Checkpoint) -> dict[str, Source]:
    """The initial state in a file, if it is one for such a model."""
    if version == "4":
        raise ModelError(
            f"{source.path}: an initial state, expected for a model of version 5 or later, "
            "got one for RWKV-4, which has no heads"
        )
    found = find_time_state(source)
    if len(found) != n_layer:
        raise ModelError(
            f"{source.path}: an initial state, expected {n_layer} layers as in the model, "
            f"got {len(found)}",
            remedy="Try the one that was tuned with this model",
        )
    return {name: Source(name, source.path, (view,)) for name, view in found.items()}


def _detect(found: ModelTensors) -> str:
    # Any layer will do, so that a tensor that is missing in one is named as missing.
    checkpoint = found.checkpoint
    in_layers = {name.split(".", 2)[2] for name in found.tensors if layer_of(name) >= 0}
    for version, present, absent in _DETECTION:
        if in_layers.issuperset(present) and absent not in in_layers:
            if version == "5.1-gate" and checkpoint.is_model_file:
                break
            return version
    if in_layers == {"att.time_state"}:
        raise ModelError(
            f"{checkpoint.path}: expected a model, got an initial state from state tuning",
            remedy="Try it as time_state=, beside the model that it was tuned with",
        )
    raise ModelError(
        f"{checkpoint.path}: no RWKV version that we know: "
        f"found {listing([source.name for source in found.tensors.values()])}; "
        "missing 'blocks.0.att.time_decay' (4), 'blocks.0.att.ln_x.weight' (5), "
        "'blocks.0.att.time_maa_x' (6) and 'blocks.0.att.k_k' (7)"
    )


def _is_unused(row: Row, layer: int) -> bool:
    """Whether the version has no use for a tensor of this layer, though checkpoints may hold it."""
    return row.layers is Layers.NOT_FIRST and layer == 0


def _in_file_order(rows: Iterable[Row], n_layer: int) -> Iterator[tuple[Row, int]]:
    """Each row with each of its layers' numbers, or -1 if it belongs to none."""
    for per_layer, group in groupby(rows, key=lambda row: row.is_per_layer):
        some = list(group)
        for i in range(n_layer) if per_layer else (-1,):
            for row in some:
                if row.layers is not Layers.FIRST or i == 0:
                    yield row, i


def _file_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows as a model file has them: its names and shapes, nothing left to change."""
    result = {
        row.name_in_file: replace(
            row,
            name=row.name_in_file,
            shape=row.file_shape,
            file_name="",
            change=Change.RESHAPE,
        )
        for row in rows
    }
    return list(result.values())


class _Letters:
    """Finds what the letters of the tables' shapes stand for, and checks all shapes on the way."""

    def __init__(
        self,
        sources: dict[str, Source],
        expected: dict[str, tuple[Row, int]],
        *,
        lowrank_transposed: bool,
    ) -> None:
        self.values: dict[str, int] = {}
        self._ranks: dict[tuple[int, str], int] = {}
        self._lowrank_transposed = lowrank_transposed
        for name, (row, layer) in expected.items():  # emb.weight comes first and gives V and C
            source = sources.get(name)
            if source is None:
                continue
            fits = self._match(self._shape(row), source.shape, layer)
            if not fits or (len(source.parts) > 1 and lowrank_transposed):
                raise _MisshapedError(
                    f"shape of tensor {quote(source.name)}{_also(source, name)}, expected "
                    f"{self._describe(row, layer)}, got {source.shape}",
                    name,
                )
        heads, width = self.values.get("H"), self.values["C"]
        if heads is not None:
            if width % heads or self.values.get("N", width // heads) != width // heads:
                raise _MisshapedError(
                    f"heads, expected {width} channels to divide into {heads} heads of equal size"
                )
            self.values["N"] = width // heads

    def resolve(self, shape: str, layer: int) -> tuple[int, ...]:
        """The numbers of a shape, all of whose letters are known."""
        return tuple(
            factor * (self._get(letter, layer) or 0) if letter else factor
            for factor, letter in map(_parse_dimension, shape.split())
        )

    def views(self, source: Source, row: Row, layer: int) -> list[TensorView]:
        """A checkpoint's tensor as views, whose elements one after the other are the file's."""
        if len(source.parts) > 1:  # transposed, they follow each other along the first dimension
            return [part.transposed() for part in source.parts]
        view = _aligned(source.parts[0], self.resolve(self._shape(row), layer))
        if row.change is Change.TRANSPOSE and not self._lowrank_transposed:
            return [view.transposed()]
        file_shape = self.resolve(row.file_shape, layer)
        if row.change is not Change.JOIN and math.prod(file_shape) != view.count:  # H -> H N 1
            return [replace(view, shape=file_shape, strides=(*view.strides, 0, 0))]
        return [view]

    def _shape(self, row: Row) -> str:
        transposed = row.change is Change.TRANSPOSE and self._lowrank_transposed
        return row.file_shape if transposed else row.shape

    def _match(self, expected: str, shape: tuple[int, ...], layer: int) -> bool:
        dimensions = expected.split()
        if len(dimensions) != len(shape):  # size-1 dimensions may be missing or added
            dimensions = [d for d in dimensions if d != "1"]
            shape = tuple(n for n in shape if n != 1)
            if len(dimensions) != len(shape):
                return False
        for dimension, size in zip(dimensions, shape, strict=True):
            factor, letter = _parse_dimension(dimension)
            if size < 1 or size % factor or size >= 2**31:
                return False
            known = self._get(letter, layer) if letter else 1
            if known is None:
                self._set(letter, layer, size // factor)
            elif factor * known != size:
                return False
        return True

    def _get(self, letter: str, layer: int) -> int | None:
        if letter == "N" and "N" not in self.values:
            heads, width = self.values.get("H"), self.values["C"]
            return width // heads if heads and width % heads == 0 else None
        if letter in "VCFHN":
            return self.values.get(letter)
        return self._ranks.get((layer, letter))

    def _set(self, letter: str, layer: int, value: int) -> None:
        if letter in "VCFHN":
            self.values[letter] = value
        else:
            self._ranks[layer, letter] = value

    def _describe(self, row: Row, layer: int) -> str:
        """`(1024, any)`: what is known of a row's shape."""
        parts = []
        for factor, letter in map(_parse_dimension, row.shape.split()):
            known = self._get(letter, layer) if letter else 1
            parts.append(
                str(factor * known) if known is not None else _LETTER_WORDS.get(letter, "rank")
            )
        return f"({', '.join(parts)})"


def _also(source: Source, name: str) -> str:
    """The official name, where the file has another."""
    return "" if source.name.endswith(name) else f" ({name})"


_LETTER_WORDS = {"F": "any", "H": "heads", "N": "head size", "V": "vocabulary", "C": "width"}


def _parse_dimension(text: str) -> tuple[int, str]:
    """`"5M"` is (5, "M"), `"C"` (1, "C"), `"6"` (6, "")."""
    digits = text.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return int(digits or 1), text[len(digits) :]


def _aligned(view: TensorView, shape: tuple[int, ...]) -> TensorView:
    """The same elements with size-1 dimensions added or dropped, so that the shape is `shape`."""
    strides = iter(view.squeezed().strides)
    return replace(view, shape=shape, strides=tuple(0 if n == 1 else next(strides) for n in shape))
