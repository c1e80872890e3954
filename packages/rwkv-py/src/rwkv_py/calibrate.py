"""Quantises a model so that what its matrices compute changes least, on texts like those given.

Layer after layer: the rows that leave the quantised layers before it run through the layer as it
was, and the second moments of what each of its matrices multiplies are summed; by these the
matrices are quantised (`rwkv_convert.quantize_compensated`); then the same rows run through the
layer as it is now. So each layer is fitted to what it will be given. In memory are one layer and
the rows.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ._arguments import StrPath, Tokens, as_count, as_number, as_path
from ._system import processors
from .calibration_text import calibration_tokens, default_token_limit, random_tokens
from .choose_types import choose_types
from .errors import ConversionError, InvalidArgumentError
from .kept_layers import KeptLayers
from .layer_rows import LayerRows
from .moments import Workers
from .quantize_layers import Progress, quantize_layers
from .tokenizer import Tokenizer
from .type_effects import measure_effects, probe_tokens

if TYPE_CHECKING:
    import rwkv_convert

__all__ = ["Calibration", "Progress", "calibrate", "importance_matrix"]


class _Types(TypedDict):
    head_dtype: str | None
    emb_dtype: str | None
    lowrank_dtype: str | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `calibrate` did.

    Attributes:
        path: the file that was written.
        file_bytes: its size.
        n_tokens: tokens of the texts that were read.
        errors: for each matrix that was compensated, the squared error of what it computes on
            these tokens, as a part of what plain rounding to the same type makes.
        types: of each tensor, by its name in a ggmf file.
    """

    path: str
    file_bytes: int
    n_tokens: int
    errors: dict[str, float]
    types: dict[str, str]


def calibrate(
    checkpoint: StrPath,
    texts: Sequence[str | bytes],
    out: StrPath,
    *,
    dtype: str | None = None,
    file_bytes: int | None = None,
    bits: float | None = None,
    head_dtype: str | None = None,
    emb_dtype: str | None = None,
    lowrank_dtype: str | None = None,
    token_limit: int | None = None,
    tokenizer: Tokenizer | StrPath | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Quantise a checkpoint by what its matrices multiply when it reads texts.

    The file is as large and as fast as one that rwkv-convert makes with the same types, and is read
    by whatever reads those. The same arguments give the same bytes, whatever the number of threads.
    What is done is kept in the folder `OUT.calibration` until OUT is complete: called again after
    an interruption with the same arguments, it goes on there.

    This needs the package rwkv-convert: `pip install rwkv-py[calibrate]`.

    Args:
        checkpoint: what `rwkv_convert.convert` reads.
        texts: several kinds are better than one; each is read from its beginning. Some random
            tokens are read besides, so that what is of no kind of these texts is not forgotten.
        out: the file to write; GGUF if its name ends in .gguf, else ggmf.
        dtype: type of the layers' matrices; by default q4_0.
        file_bytes: in place of `dtype`, how large the file may be: each tensor then has the type
            that harms least in such a file, by what is measured of each, and the time is a
            multiple.
        bits: the same as bits of the file for each parameter of the model.
        head_dtype: type of `head.weight`.
        emb_dtype: type of `emb.weight`, which is not multiplied by, and so rounded as always.
        lowrank_dtype: type of the low-rank matrices of RWKV-6 and 7.
        token_limit: how many tokens are read, at most, of each text as many as of the others; None:
            32768, and up to 131072 for models of less than 0.3 billion parameters.
        tokenizer: what tokens stand for; by default bytes for 256 tokens, World for 65536.
        threads: how many to use; by default as `Model` does.
        force: replace `out` if it exists.
        progress: called after each step.

    Returns:
        what was written, and by how much the errors are less.

    Raises:
        InvalidArgumentError: there is no text, or an argument is out of range.
        NoTokenizerError: no tokenizer is known for so many tokens.
        ConversionError: the checkpoint cannot be read, or `out` not be written; it is there.
        ImportError: rwkv-convert or threadpoolctl is not installed.
    """
    _check_installed()
    import rwkv_convert

    path = Path(os.fsdecode(as_path(out)))
    if token_limit is not None:
        token_limit = as_count("token_limit", token_limit, at_least=1)
    if threads is not None:
        threads = as_count("threads", threads, at_least=1)
    _check_new(path, force=force)
    asked = {"dtype": dtype, "file_bytes": file_bytes, "bits": bits}
    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) > 1:
        raise InvalidArgumentError(f"dtype: expected one of {', '.join(asked)}, got {given}")
    if file_bytes is not None:
        file_bytes = as_count("file_bytes", file_bytes, at_least=1)
    if bits is not None:
        bits = as_number("bits", bits)
        if not 0 < bits < math.inf:
            raise InvalidArgumentError(f"bits: expected a number above 0, got {bits:g}")
    container: rwkv_convert.Container = "gguf" if path.suffix.lower() == ".gguf" else "ggmf"
    options: _Types = {
        "head_dtype": head_dtype,
        "emb_dtype": emb_dtype,
        "lowrank_dtype": lowrank_dtype,
    }
    try:
        with rwkv_convert.ModelWeights(checkpoint) as weights:
            possible = _Possible(weights, container, options)
            if bits is not None:
                file_bytes = int(bits * possible.n_parameters / 8)
            if file_bytes is not None:
                possible.check(file_bytes)
            else:
                fixed = weights.types(dtype or "q4_0", container=container, **options)
            token_limit = token_limit or default_token_limit(weights)
            tokens = calibration_tokens(texts, weights.n_vocab, tokenizer, token_limit)
            everything = [*tokens, *random_tokens(weights.n_vocab, tokens)]
            settings = {
                "checkpoint": _identity(checkpoint),
                "types": fixed if file_bytes is None else [file_bytes, container, options],
                "tokens": _digest(everything),
            }
            kept = KeptLayers(path.with_name(path.name + ".calibration"), settings)
            with Workers.started(threads or processors()) as workers:

                def rows_of(some: list[Tokens]) -> LayerRows:
                    return LayerRows(weights, some, workers, threads or 0)

                rows = rows_of(everything)
                if file_bytes is None:
                    kept.types = fixed
                elif not kept.types:
                    reading = rows_of(probe_tokens(tokens))
                    effects = measure_effects(rows, reading, possible.types, progress)
                    kept.types = possible.choose(effects, file_bytes)
                types = kept.types
                quantize_layers(rows, types, kept, progress)
        summary = rwkv_convert.convert(
            checkpoint,
            path,
            dtype=_most_used(weights, types) if dtype is None else dtype,
            container=container,
            quality="best",
            types=types,
            blocks=kept.blocks(),
            force=force,
        )
    except rwkv_convert.ConvertError as error:
        raise _ours(error) from None
    kept.remove()
    return Calibration(
        path=str(path),
        file_bytes=summary.file_bytes,
        n_tokens=sum(map(len, tokens)),
        errors=kept.errors,
        types=types,
    )


def importance_matrix(
    checkpoint: StrPath,
    texts: Sequence[str | bytes],
    out: StrPath,
    *,
    names: Sequence[str] = (),
    token_limit: int | None = None,
    tokenizer: Tokenizer | StrPath | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write how large the inputs of each matrix are when a model reads texts, as llama.cpp does.

    The file is GGUF, an importance matrix for llama.cpp's quantiser and for `rwkv-convert
    --imatrix`. The model is read layer by layer, as by `calibrate`, and so needs as little memory.

    Args:
        checkpoint: what `rwkv_convert.convert` reads, RWKV-6 or 7.
        texts: as for `calibrate`.
        out: the file to write.
        names: of the texts, for the file to tell.
        token_limit: as for `calibrate`, and so all that follows.
        tokenizer: what tokens stand for.
        threads: how many to use.
        force: replace `out` if it exists.
        progress: called after each layer.

    Returns:
        how many tokens were read.

    Raises:
        InvalidArgumentError: there is no text, or an argument is out of range.
        NoTokenizerError: no tokenizer is known for so many tokens.
        ConversionError: the checkpoint cannot be read, or `out` not be written; it is there.
        ImportError: rwkv-convert or threadpoolctl is not installed.
    """
    _check_installed()
    import rwkv_convert

    path = Path(os.fsdecode(as_path(out)))
    if token_limit is not None:
        token_limit = as_count("token_limit", token_limit, at_least=1)
    if threads is not None:
        threads = as_count("threads", threads, at_least=1)
    try:
        with rwkv_convert.ModelWeights(checkpoint) as weights:
            if weights.version not in ("6", "7"):
                raise ConversionError(
                    "checkpoint: expected RWKV-6 or 7, whose matrices llama.cpp has names for, got "
                    f"RWKV-{weights.version}"
                )
            _check_new(path, force=force)
            token_limit = token_limit or default_token_limit(weights)
            tokens = calibration_tokens(texts, weights.n_vocab, tokenizer, token_limit)
            with Workers.started(threads or processors()) as workers:
                rows = LayerRows(weights, tokens, workers, threads or 0)
                sums = rows.input_squares(progress)
            n_tokens = sum(map(len, tokens))
            rwkv_convert.write_importance(
                path, sums, version=weights.version, n_tokens=n_tokens, texts=names, force=force
            )
    except rwkv_convert.ConvertError as error:
        raise _ours(error) from None
    return n_tokens


def _check_installed() -> None:
    try:
        import threadpoolctl  # noqa: F401

        import rwkv_convert  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"calibrating needs rwkv-convert and threadpoolctl, {error.name} is not installed. Try "
            "`pip install rwkv-py[calibrate]`"
        ) from None


def _check_new(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise ConversionError(
            f"out: expected a file that is not there, got {str(path)!r}",
            remedy="Try calibrate(..., force=True)",
        )


def _ours(error: rwkv_convert.ConvertError) -> ConversionError:
    # What it advises in Python's words are arguments of its own.
    remedy = "" if "=" in error.remedy else error.remedy
    return ConversionError(error.message, remedy=remedy)


class _Possible:
    """The types that tensors can be written in, and the files that come of them."""

    def __init__(
        self,
        weights: rwkv_convert.ModelWeights,
        container: rwkv_convert.Container,
        options: _Types,
    ) -> None:
        self.types = weights.possible_types(container=container, **options)
        self.n_parameters = sum(math.prod(weights.shape(name)) for name in self.types)
        self._weights = weights
        self._container = container
        self._sizes = {
            name: {type: weights.tensor_bytes(name, type) for type in types}
            for name, types in self.types.items()
            if len(types) > 1
        }

    def file_bytes(self, types: dict[str, str]) -> int:
        """The size of a file."""
        return self._weights.file_bytes(_most_used(self._weights, types), types, self._container)

    def check(self, file_bytes: int) -> None:
        """Make sure that a file can be so small."""
        least = self.file_bytes(
            {name: min(types, key=self._size_in(name)) for name, types in self.types.items()}
        )
        if least > file_bytes:
            raise InvalidArgumentError(
                f"file_bytes: expected at least {least}, what all matrices take in 4 bits, got "
                f"{file_bytes}"
            )

    def choose(self, effects: dict[str, dict[str, float]], file_bytes: int) -> dict[str, str]:
        """The types that harm least in a file of a size at most."""
        fixed = {name: types[0] for name, types in self.types.items()}
        room = file_bytes
        while True:
            chosen = fixed | choose_types(self._sizes, effects, room)
            too_much = self.file_bytes(chosen) - file_bytes
            if too_much <= 0:
                return chosen
            room -= too_much  # headers, and what a container holds twice

    def _size_in(self, name: str) -> Callable[[str], int]:
        return lambda type: self._weights.tensor_bytes(name, type)


def _most_used(weights: rwkv_convert.ModelWeights, types: dict[str, str]) -> str:
    """The type that takes most of a file, which is what the file says of itself."""
    used: Counter[str] = Counter()
    for name, type in types.items():
        used[type] += weights.tensor_bytes(name, type)
    return used.most_common(1)[0][0]


def _digest(tokens: Sequence[Tokens]) -> str:
    return hashlib.sha256(b"|".join(some.tobytes() for some in tokens)).hexdigest()


def _identity(checkpoint: StrPath) -> list[Any]:
    """Tells a checkpoint from another under the same name."""
    name = os.fsdecode(as_path(checkpoint))
    try:
        found = os.stat(name)
    except OSError:  # one on a hub
        return [name]
    return [os.path.abspath(name), found.st_size, found.st_mtime_ns]
