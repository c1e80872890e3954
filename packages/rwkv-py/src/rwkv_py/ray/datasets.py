"""Datasets through many actors: what is asked for, checked, and laid before Ray Data."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import pyarrow as pa
import ray
import ray.data

from .._arguments import StrPath, as_count, as_integer, as_integers, as_stops
from .._options import takes_options_of
from ..errors import InvalidArgumentError
from ..generation import GenerationOptions
from ..grammar import fit_of
from ..guessers import guessers_of
from ..sampling import Sampler
from ..text_stream import TextBuilder
from ..time_state import TimeState
from .actors import Embedder, Generator, Opening, Scorer
from .cluster import cpus_of_machines, everywhere, threads_of_machine

__all__ = ["ActorOptions", "embed", "generate", "score"]

INDEX = "index"
"""The column of rows' numbers, where the dataset has none."""


class ActorOptions(TypedDict, total=False):
    """The keyword arguments that `generate`, `score` and `embed` share.

    Attributes:
        actors: how many, or at least and at most how many; each loads the model once. None: one for
            each machine that the cluster has now.
        threads: how many CPUs each has, and threads that compute. None: those of the smallest
            machine but one, which is left for reading and writing.
        batch_size: rows that an actor is given at once; it has two batches at a time, so that it is
            never without work, and those are what is done again when it is lost.
        index: the column with each row's own number, for a dataset that has one. None: rows are
            numbered in their order, in a new column `index`, for which the dataset is read first.
        retries: how often a batch is done again whose actor was lost; then the work fails. -1: any
            number of times, also for a row that is what ends its actors.
        max_running: texts that an actor writes or reads at once.
        max_prompt_tokens: of a row; None: any number. Who has more gets an error.
        cache_bytes: what an actor keeps of beginnings that several rows share.
        tokenizer: as for `Session`: a name, or a file that every machine has.
        time_state: as for `Session`.
    """

    actors: int | tuple[int, int] | None
    threads: int | None
    batch_size: int
    index: str | None
    retries: int
    max_running: int
    max_prompt_tokens: int | None
    cache_bytes: int
    tokenizer: StrPath | None
    time_state: TimeState | None


@dataclass(frozen=True, kw_only=True)
class _Actors:
    """`ActorOptions` and their defaults."""

    actors: int | tuple[int, int] | None = None
    threads: int | None = None
    batch_size: int = 128
    index: str | None = None
    retries: int = 3
    max_running: int = 32
    max_prompt_tokens: int | None = None
    cache_bytes: int = 256 << 20
    tokenizer: StrPath | None = None
    time_state: TimeState | None = None

    def __post_init__(self) -> None:
        as_count("batch_size", self.batch_size, at_least=1)
        as_count("max_running", self.max_running, at_least=1)
        as_count("cache_bytes", self.cache_bytes)
        if as_integer("retries", self.retries) != -1:
            as_count("retries", self.retries)
        if self.max_prompt_tokens is not None:
            as_count("max_prompt_tokens", self.max_prompt_tokens, at_least=1)
        if self.threads is not None:
            as_count("threads", self.threads, at_least=1)

    def opening(self, model: StrPath, threads: int) -> Opening:
        """Return what each actor opens."""
        return Opening(
            everywhere(model),
            threads,
            None if self.tokenizer is None else everywhere(self.tokenizer),
            self.time_state,
            self.max_running,
            self.max_prompt_tokens,
            self.cache_bytes,
        )

    def pool(self) -> tuple[int, int, int]:
        """Return at least and at most how many actors there are, and the threads of each.

        Raises:
            InvalidArgumentError: they would leave no CPU for reading and writing, which would then
                wait for ever.
        """
        machines = cpus_of_machines()
        threads = self.threads or threads_of_machine(machines)
        wanted = max(1, len(machines)) if self.actors is None else self.actors
        least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        as_count("actors", least, at_least=1)
        as_count("actors", most, at_least=least)
        if sum(machines) <= least * threads:
            raise InvalidArgumentError(
                f"actors: expected one CPU more than the {least * threads} of {least} x {threads} "
                f"threads, for reading and writing, got {sum(machines)} in the cluster",
                remedy="Try actors= or threads= with less, or ray.init(num_cpus=) with more",
            )
        return least, most, threads


class WritingOptions(ActorOptions, GenerationOptions, total=False):
    """The keyword arguments of `generate`."""


@takes_options_of(_Actors, TextBuilder, fit_of, guessers_of, Sampler)
def generate(
    dataset: ray.data.Dataset,
    model: StrPath,
    *,
    column: str = "prompt",
    **options: Unpack[WritingOptions],
) -> ray.data.Dataset:
    """Continue the prompts of a dataset: a text for each row, in order.

    A row's text is what `Session.generate` would write for its prompt with the seed
    `seed + index` (modulo 2**64), however many actors there are and whatever happens to them.

    Nothing is written before the result is asked for, by `take_all`, `write_parquet` and the like.

    Args:
        dataset: has a column of prompts, texts or lists of tokens; the others are kept.
        model: a model file, at a path where every machine has it; or a name, as for `rwkv run`,
            under which each machine fetches and keeps it.
        column: the prompts.
        **options: see `ActorOptions`; and as for `Session.stream`: max_tokens, stop, temperature,
            speculate, json_schema, ... but no draft. `seed` is that of the row with index 0; None:
            chosen at random, once for the dataset.

    Returns:
        The dataset with the columns `generated_text`, `finish_reason` ("end", "stop" or "length"),
        `n_prompt_tokens` and `n_tokens`, all null where `error` says what is wrong with the row;
        and `index`, if there was none. Its order is the dataset's: `preserve_order` is set in its
        context.

    Raises:
        InvalidArgumentError: there is no such column, or already one of the new ones; or an
            argument is out of range. What only an actor can know, such as that there is no such
            file, ends the work with `ray.exceptions.ActorDiedError`.
    """
    actors, writing = _apart(dict(options))
    return _mapped(dataset, Generator, model, column, actors, options=writing)


@takes_options_of(_Actors)
def score(
    dataset: ray.data.Dataset,
    model: StrPath,
    *,
    column: str = "text",
    **options: Unpack[ActorOptions],
) -> ray.data.Dataset:
    """Tell how well a model predicts the texts of a dataset, each by itself, in order.

    Args:
        dataset: has a column of texts, or lists of tokens; the others are kept.
        model: as for `generate`.
        column: the texts.
        **options: see `ActorOptions`.

    Returns:
        The dataset with the columns `nats` (the sum of -ln p of all tokens but the first, after all
        before each), `n_tokens` (how many those are), `n_bytes` (the bytes that they stand for), as
        in `evaluate.Perplexity`, all null where `error` says what is wrong with the row; and
        `index`, as for `generate`.

    Raises:
        InvalidArgumentError: as `generate`.
    """
    return _mapped(dataset, Scorer, model, column, _Actors(**options))


@takes_options_of(_Actors)
def embed(
    dataset: ray.data.Dataset,
    model: StrPath,
    *,
    column: str = "text",
    pooling: Literal["mean", "last"] = "mean",
    **options: Unpack[ActorOptions],
) -> ray.data.Dataset:
    """Make vectors of the texts of a dataset, in order, as `rwkv_py.embed` does.

    Args:
        dataset: has a column of texts, or lists of tokens; the others are kept.
        model: as for `generate`.
        column: the texts.
        pooling: "mean" over the tokens of a text, or that after its "last" token.
        **options: see `ActorOptions`.

    Returns:
        The dataset with the column `embedding`, float32 (n_embd,), null where `error` says what is
        wrong with the row; and `index`, as for `generate`.

    Raises:
        InvalidArgumentError: as `generate`; or `pooling` is another.
    """
    if pooling not in ("mean", "last"):
        raise InvalidArgumentError(f"pooling: expected 'mean' or 'last', got {pooling!r}")
    return _mapped(dataset, Embedder, model, column, _Actors(**options), pooling=pooling)


def _apart(options: dict[str, Any]) -> tuple[_Actors, dict[str, Any]]:
    """Part the options of actors from those of writing, which must be such as can be sent."""
    of_actors = {
        name: options.pop(name) for name in ActorOptions.__annotations__ if name in options
    }
    if options.get("draft") is not None:
        raise InvalidArgumentError(
            "draft: expected none, since a model cannot be sent to actors, got one",
            remedy="Try speculate='lookup'",
        )
    seed = options.get("seed")
    # The same for all actors, also for one that does again what another began.
    options["seed"] = secrets.randbits(64) if seed is None else as_count("seed", seed)
    if "stop" in options:
        options["stop"] = as_stops(options["stop"])
    for name in ("stop_tokens", "banned_tokens"):
        if name in options:
            options[name] = as_integers(name, options[name])
    return _Actors(**of_actors), options


def _mapped(
    dataset: ray.data.Dataset,
    actor: type[Generator | Scorer | Embedder],
    model: StrPath,
    column: str,
    actors: _Actors,
    **more: Any,
) -> ray.data.Dataset:
    """Lay a dataset before actors of a kind, of which each is told `more`."""
    least, most, threads = actors.pool()
    opening = actors.opening(model, threads)
    added = [*actor.columns, "error", *([INDEX] if actors.index is None else [])]
    _check_columns(dataset, [column, *([actors.index] if actors.index else [])], added)
    numbered = _numbered(dataset) if actors.index is None else dataset
    numbered.context.execution_options.preserve_order = True
    restarts = {"max_restarts": -1, "max_task_retries": actors.retries}
    batches = numbered.repartition(target_num_rows_per_block=actors.batch_size, strict=True)
    return batches.map_batches(
        actor,
        batch_size=None,  # a block, which is one batch
        batch_format="pyarrow",
        fn_constructor_kwargs={
            "opening": opening,
            "column": column,
            "index": actors.index or INDEX,
            **more,
        },
        num_cpus=threads,
        compute=ray.data.ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_tasks_in_flight_per_actor=2,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
        udf_modifying_row_count=False,
        ray_remote_args_fn=lambda: restarts,
    )


def _check_columns(dataset: ray.data.Dataset, needed: Iterable[str], added: Iterable[str]) -> None:
    """Refuse a dataset that lacks a column, or has one that is to be added."""
    there = dataset.columns()
    if there is None:  # it has no rows
        return
    for name in needed:
        if name not in there:
            raise InvalidArgumentError(f"column: expected one of {', '.join(there)}, got {name!r}")
    for name in added:
        if name in there:
            raise InvalidArgumentError(
                f"dataset: expected no column {name!r}, which is added, got one",
                remedy="Try dataset.rename_columns()",
            )


def _numbered(dataset: ray.data.Dataset) -> ray.data.Dataset:
    """Read a dataset in order, and number its rows."""
    ordering = dataset.context.execution_options
    was, ordering.preserve_order = ordering.preserve_order, True
    try:
        tables = dataset.to_arrow_refs()
    finally:
        ordering.preserve_order = was
    count, number = ray.remote(_n_rows), ray.remote(_with_numbers)
    sizes = ray.get([count.remote(table) for table in tables])
    begins = itertools.accumulate(sizes, initial=0)
    return ray.data.from_arrow_refs(
        [number.remote(table, begin) for table, begin in zip(tables, begins, strict=False)]
    )


def _n_rows(table: pa.Table) -> int:
    return int(table.num_rows)


def _with_numbers(table: pa.Table, begin: int) -> pa.Table:
    numbers = pa.array(range(begin, begin + table.num_rows), pa.int64())
    return table.append_column(INDEX, numbers)
