"""Quantises a model so that what its matrices compute changes least, on texts like those given.

Layer after layer: the rows that leave the quantised layers before it run through the layer as it
was, and the second moments of what each of its matrices multiplies are summed; by these the
matrices are quantised (`rwkv_convert.quantize_compensated`); then the same rows run through the
layer as it is now. So each layer is fitted to what it will be given. In memory are one layer and
the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import StrPath, Tokens, as_count, as_path, as_tokens
from .errors import ConversionError, InvalidArgumentError, NoTokenizerError
from .moments import Workers, add_moments, mirror
from .prompt import END_OF_DOCUMENT
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import rwkv_convert

__all__ = ["Calibration", "Progress", "calibrate"]

Progress = Callable[[int, int], None]
"""Called with how many steps are done, and of how many."""

Rows = NDArray[np.float32]

# Tokens that follow each other with the state carried through, at most.
_SEQUENCE = 4096

# Rows that run through a layer at once.
_ROWS = 2048

# What 8 bits lose is not worth the time: such matrices are rounded as always.
_FINE = ("q8_0", "fp16", "bf16", "fp32")


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
        n_tokens: tokens that were read.
        errors: for each matrix that was compensated, the squared error of what it computes on
            these tokens, as a part of what plain rounding to the same type makes.
    """

    path: str
    file_bytes: int
    n_tokens: int
    errors: dict[str, float]


def calibrate(
    checkpoint: StrPath,
    texts: Sequence[str | bytes],
    out: StrPath,
    *,
    dtype: str = "q4_0",
    head_dtype: str | None = None,
    emb_dtype: str | None = None,
    lowrank_dtype: str | None = None,
    token_limit: int = 32768,
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
        texts: several kinds are better than one; each is read from its beginning.
        out: the file to write; GGUF if its name ends in .gguf, else ggmf.
        dtype: type of the layers' matrices.
        head_dtype: type of `head.weight`.
        emb_dtype: type of `emb.weight`, which is not multiplied by, and so rounded as always.
        lowrank_dtype: type of the low-rank matrices of RWKV-6 and 7.
        token_limit: how many tokens are read, at most, of each text as many as of the others.
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
    try:
        import threadpoolctl  # noqa: F401

        import rwkv_convert
    except ImportError as error:
        raise ImportError(
            f"calibrating needs rwkv-convert and threadpoolctl, {error.name} is not installed. Try "
            "`pip install rwkv-py[calibrate]`"
        ) from None
    path = Path(os.fsdecode(as_path(out)))
    token_limit = as_count("token_limit", token_limit, at_least=1)
    if threads is not None:
        threads = as_count("threads", threads, at_least=1)
    if path.exists() and not force:
        raise ConversionError(
            f"out: expected a file that is not there, got {str(path)!r}",
            remedy="Try calibrate(..., force=True)",
        )
    container: rwkv_convert.Container = "gguf" if path.suffix.lower() == ".gguf" else "ggmf"
    options: _Types = {
        "head_dtype": head_dtype,
        "emb_dtype": emb_dtype,
        "lowrank_dtype": lowrank_dtype,
    }
    try:
        with rwkv_convert.ModelWeights(checkpoint) as weights:
            types = weights.types(dtype, container=container, **options)
            tokens = _tokens_of(texts, _tokenizer_for(weights.n_vocab, tokenizer), token_limit)
            settings = {
                "checkpoint": _identity(checkpoint),
                "types": types,
                "tokens": hashlib.sha256(b"|".join(some.tobytes() for some in tokens)).hexdigest(),
            }
            folder = _Folder(path.with_name(path.name + ".calibration"), settings)
            with Workers.started(threads or len(os.sched_getaffinity(0))) as workers:
                _Job(weights, types, tokens, folder, workers, threads or 0).run(progress)
        summary = rwkv_convert.convert(
            checkpoint,
            path,
            dtype=dtype,
            container=container,
            quality="best",
            blocks=folder.blocks(),
            force=force,
            **options,
        )
    except rwkv_convert.ConvertError as error:
        # What it advises in Python's words are arguments of its own.
        remedy = "" if "=" in error.remedy else error.remedy
        raise ConversionError(error.message, remedy=remedy) from None
    folder.remove()
    return Calibration(
        path=str(path),
        file_bytes=summary.file_bytes,
        n_tokens=sum(map(len, tokens)),
        errors=folder.errors,
    )


def _tokenizer_for(n_vocab: int, tokenizer: Tokenizer | StrPath | None) -> Tokenizer:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if tokenizer is not None:
        return Tokenizer.open(tokenizer)
    if n_vocab == 256:
        return Tokenizer.bytewise()
    if n_vocab == 65536:
        return Tokenizer.world()
    raise NoTokenizerError(
        f"tokenizer: expected one for a vocabulary of {n_vocab}, which is neither World nor bytes, "
        "got none",
        remedy="Try tokenizer= with its vocabulary file",
    )


def _tokens_of(
    texts: Sequence[str | bytes], tokenizer: Tokenizer, token_limit: int
) -> list[Tokens]:
    """Sequences that are read on their own, each after the end of a document."""
    if isinstance(texts, str | bytes):
        raise InvalidArgumentError("texts: expected a list of texts, got one text")
    all_tokens = [as_tokens([END_OF_DOCUMENT, *tokenizer.encode(text)]) for text in texts if text]
    if not all_tokens:
        raise InvalidArgumentError("texts: expected at least one that is not empty, got none")
    sequences = []
    left = token_limit
    by_length = sorted(range(len(all_tokens)), key=lambda i: len(all_tokens[i]))
    taken = {}
    for n_done, i in enumerate(by_length):  # short ones leave more for the others
        taken[i] = min(len(all_tokens[i]), left // (len(by_length) - n_done))
        left -= taken[i]
    for i, tokens in enumerate(all_tokens):
        for begin in range(0, taken[i], _SEQUENCE):
            sequences.append(tokens[begin : min(begin + _SEQUENCE, taken[i])])
    return sequences


def _identity(checkpoint: StrPath) -> list[Any]:
    """Tells a checkpoint from another under the same name."""
    name = os.fsdecode(as_path(checkpoint))
    try:
        found = os.stat(name)
    except OSError:  # one on a hub
        return [name]
    return [os.path.abspath(name), found.st_size, found.st_mtime_ns]


class _Folder:
    """What is kept between layers, for whoever goes on after an interruption."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = json.loads(json.dumps(settings))
        self.n_layers = 0  # that are done
        self.errors: dict[str, float] = {}
        kept = self._read()
        if kept is None and path.exists():
            raise FileExistsError(f"{path}: expected a folder of an earlier call, or none")
        if kept is None or kept["settings"] != self._settings:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            self._note()
            return
        self.n_layers = kept["n_layers"]
        self.errors = kept["errors"]

    def _read(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads((self._path / "progress.json").read_bytes())
        except (OSError, ValueError):
            return None
        return kept

    def rows(self) -> tuple[Rows, Rows]:
        """The rows after the layers that are done, and version 7's `v_first`."""
        with np.load(self._path / f"rows-{self.n_layers}.npz") as kept:
            return kept["x"], kept["v_first"]

    def save(self, x: Rows, v_first: Rows, errors: dict[str, float]) -> None:
        """Note that one more layer is done: `save_blocks` has had its matrices."""
        n_layers = self.n_layers + 1
        np.savez(self._path / f"rows-{n_layers}.npz", x=x, v_first=v_first)
        self.errors |= errors
        self.n_layers = n_layers
        self._note()
        (self._path / f"rows-{n_layers - 1}.npz").unlink(missing_ok=True)

    def _note(self) -> None:
        kept = {"settings": self._settings, "n_layers": self.n_layers, "errors": self.errors}
        new = self._path / "progress.new"
        new.write_text(json.dumps(kept))
        new.replace(self._path / "progress.json")

    def save_blocks(self, name: str, blocks: NDArray[np.uint8]) -> None:
        """Keep a matrix."""
        np.save(self._path / f"{name}.npy", blocks.reshape(-1))

    def blocks(self) -> dict[str, NDArray[np.uint8]]:
        """All matrices, by name; they stay on the disk."""
        return {
            file.name.removesuffix(".npy"): np.load(file, mmap_mode="r")
            for file in self._path.glob("*.npy")
        }

    def remove(self) -> None:
        """Let go of all."""
        shutil.rmtree(self._path, ignore_errors=True)


class _Job:
    """Quantises layer after layer."""

    def __init__(
        self,
        weights: rwkv_convert.ModelWeights,
        types: dict[str, str],
        tokens: list[Tokens],
        folder: _Folder,
        workers: Workers,
        n_threads: int,
    ) -> None:
        self._weights = weights
        self._types = types
        self._tokens = tokens
        self._folder = folder
        self._workers = workers
        self._n_threads = n_threads
        self._reading = threading.Lock()  # weights are for one thread at a time

    def run(self, progress: Progress | None) -> None:
        """Quantise all that are not done."""
        n_layers = self._weights.n_layer
        if self._folder.n_layers:
            x, v_first = self._folder.rows()
        else:
            x = self._embedded()
            v_first = np.zeros_like(x)
        for layer in range(self._folder.n_layers, n_layers):
            moments = self._moments(layer, x, v_first)
            quantized, errors = self._quantize(moments)
            del moments
            changed = self._layer(layer, quantized)
            for rows in self._pieces():
                if rows.start in self._begins:
                    changed.reset()
                changed.run(x[rows], v_first[rows], None)
            self._folder.save(x, v_first, errors)
            if progress is not None:
                progress(layer + 1, n_layers)

    def _embedded(self) -> Rows:
        """What the first layer is given."""
        embedding = self._weights.read("emb.weight")
        weight, bias = (self._weights.read(f"blocks.0.ln0.{part}") for part in ("weight", "bias"))
        x = embedding[np.concatenate(self._tokens)].astype(np.float64)
        x -= x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)
        return (x * weight + bias).astype(np.float32)

    def _layer(self, layer: int, others: dict[str, NDArray[np.float32]] | None = None) -> Any:
        file = self._weights.layer_file(layer, others)
        return _core.Layers(file, layer, 1, self._n_threads, 0.0)

    @property
    def _begins(self) -> set[int]:
        """At which rows sequences begin."""
        ends = np.cumsum([len(some) for some in self._tokens])
        return {0, *map(int, ends[:-1])}

    def _pieces(self) -> Iterator[slice]:
        """Rows of one sequence each, in order."""
        first = 0
        for some in self._tokens:
            for begin in range(0, len(some), _ROWS):
                yield slice(first + begin, first + min(begin + _ROWS, len(some)))
            first += len(some)

    def _moments(self, layer: int, x: Rows, v_first: Rows) -> dict[str, list[Rows]]:
        """The second moments of each matrix's inputs, by tensor: one or, where stacked, several."""
        model = self._layer(layer)
        tapped = []
        moments: dict[str, list[Rows]] = {}
        for name, _, n_in in model.matrices():
            tensor = name.partition("[")[0]
            wanted = self._types[tensor] not in _FINE
            tapped.append(n_in if wanted else None)
            if wanted:
                moments.setdefault(tensor, []).append(np.zeros((n_in, n_in), np.float32))
        if not moments:
            return moments
        flat = [one for several in moments.values() for one in several]
        for rows in self._pieces():
            if rows.start in self._begins:
                model.reset()
            n_rows = rows.stop - rows.start
            inputs = [None if n is None else np.empty((n_rows, n), np.float32) for n in tapped]
            model.run(x[rows].copy(), v_first[rows].copy(), inputs)
            read = [some for some in inputs if some is not None]
            self._workers.run(
                task
                for one, some in zip(flat, read, strict=True)
                for task in add_moments(one, some)
            )
        for one in flat:
            mirror(one)
        return moments

    def _quantize(
        self, moments: dict[str, list[Rows]]
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """Quantise a layer's tensors; what they now stand for, and their errors."""

        def task(name: str) -> Callable[[], tuple[NDArray[np.float32], float]]:
            return lambda: self._quantize_tensor(name, moments[name])

        # The largest first: threads that are done early would wait for it.
        names = sorted(moments, key=lambda name: -moments[name][0].size)
        done = self._workers.run(map(task, names))
        return (
            {name: values for name, (values, _) in zip(names, done, strict=True)},
            {name: error for name, (_, error) in zip(names, done, strict=True)},
        )

    def _quantize_tensor(self, name: str, moments: list[Rows]) -> tuple[NDArray[np.float32], float]:
        import rwkv_convert

        values = self._weights_of(name)
        parts = []
        error = plain = 0.0
        for matrix, h in zip(
            values.reshape(len(moments), -1, values.shape[-1]), moments, strict=True
        ):
            found = rwkv_convert.quantize_compensated(matrix, h, self._types[name])
            parts.append(found.blocks)
            error += found.error
            plain += found.plain_error
            matrix[...] = found.values
        self._folder.save_blocks(name, np.concatenate(parts))
        return values, error / plain if plain else 1.0

    def _weights_of(self, name: str) -> NDArray[np.float32]:
        with self._reading:
            return self._weights.read(name)
