"""What an actor does: it has the model, and makes columns of rows, a batch at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from .._arguments import TokenSequence, as_integer
from ..embedding import embed
from ..engine import Engine
from ..errors import InvalidArgumentError, RwkvError
from ..generation import Plan
from ..model import Model
from ..models import fetch
from ..prefix_cache import PrefixCache
from ..time_state import TimeState

__all__ = ["Embedder", "Generator", "Opening", "Scorer"]

_Prompt: TypeAlias = str | bytes | TokenSequence


class Opening(NamedTuple):
    """How an actor opens its model, and for what.

    Attributes:
        model: a file, or a name by which `rwkv_py.models.fetch` finds one.
        threads: that compute.
        tokenizer: a name or a file; None: the model's own.
        time_state: what to begin with; None: the model's.
        max_running: texts at once.
        max_prompt_tokens: of a row; None: any number.
        cache_bytes: of states after beginnings that rows share.
    """

    model: str
    threads: int
    tokenizer: str | None
    time_state: TimeState | None
    max_running: int
    max_prompt_tokens: int | None
    cache_bytes: int


class _Actor:
    """A model that is loaded, and what asks it. Several threads may call it at once.

    Args:
        opening: how to open it.
        column: what to read.
        index: the column of rows' numbers.
    """

    def __init__(self, opening: Opening, column: str, index: str):
        self._column = column
        self._index = index
        self._opening = opening
        model = Model(fetch(opening.model), threads=opening.threads)
        self.engine = Engine(
            model,
            max_running=opening.max_running,
            max_prompt_tokens=opening.max_prompt_tokens,
            tokenizer=opening.tokenizer,
            time_state=opening.time_state,
            # By tokens only: what a row gets is not to depend on the rows before it.
            cache=PrefixCache(model, budget=opening.cache_bytes, exact=True),
        )

    def prompts(self, table: pa.Table) -> list[Any]:
        """Return the column with what is to be read."""
        prompts: list[Any] = table.column(self._column).to_pylist()
        return prompts

    def tokens(self, name: str, prompt: Any) -> TokenSequence:
        """Return the tokens of what a row has.

        Raises:
            RwkvError: it has none, or too many.
        """
        if prompt is None:
            raise InvalidArgumentError(f"{name}: expected text or tokens, got null")
        tokens = self.engine._beginning.prompt(prompt).tokens
        most = self._opening.max_prompt_tokens
        if most is not None and tokens.size > most:
            raise InvalidArgumentError(f"{name}: expected at most {most} tokens, got {tokens.size}")
        return tokens


class _Rows:
    """What has become of the rows of a batch: the values of each, or what is wrong with it."""

    def __init__(self, n_rows: int):
        self.values: list[tuple[Any, ...] | None] = [None] * n_rows
        self.errors: list[str | None] = [None] * n_rows

    @contextlib.contextmanager
    def blamed(self, row: int) -> Iterator[None]:
        """Let what fails here fail this row alone."""
        try:
            yield
        except RwkvError as error:
            self.errors[row] = error.message

    def added_to(self, table: pa.Table, columns: Sequence[tuple[str, pa.DataType]]) -> pa.Table:
        """Return a table with the columns of the values, and that of the errors."""
        for i, (name, kind) in enumerate(columns):
            of_rows = [None if values is None else values[i] for values in self.values]
            table = table.append_column(name, pa.array(of_rows, kind))
        return table.append_column("error", pa.array(self.errors, pa.string()))


class Generator(_Actor):
    """Goes on with prompts."""

    columns = ("generated_text", "finish_reason", "n_prompt_tokens", "n_tokens")

    def __init__(self, opening: Opening, column: str, index: str, options: dict[str, Any]):
        super().__init__(opening, column, index)
        self._options = options
        self._seed: int = options["seed"]
        # What is wrong with the options is not the rows' fault.
        model = self.engine.model
        Plan.of(self.engine.tokenizer, model.n_vocab, model.end_tokens, **options)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with texts."""
        prompts = self.prompts(table)
        numbers = table.column(self._index).to_pylist()
        rows = _Rows(len(prompts))
        requests = {}
        # Those that begin alike one after the other, so that the beginning is still kept.
        for row in sorted(range(len(prompts)), key=lambda row: _likeness(prompts[row])):
            with rows.blamed(row):
                if prompts[row] is None:
                    raise InvalidArgumentError("prompt: expected text or tokens, got null")
                seed = (self._seed + as_integer("index", numbers[row])) % 2**64
                requests[row] = self.engine.submit(prompts[row], **{**self._options, "seed": seed})
        for row, request in requests.items():
            with rows.blamed(row):
                text = request.result()
                reason = request.finish_reason
                rows.values[row] = (text, reason, request.n_prompt_tokens, request.n_tokens)
        kinds = (pa.string(), pa.string(), pa.int64(), pa.int64())
        return rows.added_to(table, list(zip(self.columns, kinds, strict=True)))


class Scorer(_Actor):
    """Reads texts, and tells how well the model predicts them."""

    columns = ("nats", "n_tokens", "n_bytes")

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with what each text would be compressed to."""
        texts = self.prompts(table)
        rows = _Rows(len(texts))
        requests = {}
        for row, text in enumerate(texts):
            with rows.blamed(row):
                tokens = self.tokens("text", text)
                if len(tokens) < 2:
                    raise InvalidArgumentError(
                        f"text: expected at least 2 tokens, got {len(tokens)}"
                    )
                request = self.engine.submit(tokens, max_tokens=0, prompt_logprobs=0)
                requests[row] = (tokens, request)
        for row, (tokens, request) in requests.items():
            with rows.blamed(row):
                request.result()
                told = [one.logprob for one in request.prompt_logprobs if one is not None]
                n_bytes = len(self.engine.tokenizer.decode_bytes(tokens[1:]))
                rows.values[row] = (-sum(told), len(told), n_bytes)
        kinds = (pa.float64(), pa.int64(), pa.int64())
        return rows.added_to(table, list(zip(self.columns, kinds, strict=True)))


class Embedder(_Actor):
    """Makes vectors of texts."""

    columns = ("embedding",)

    def __init__(self, opening: Opening, column: str, index: str, pooling: str):
        super().__init__(opening, column, index)
        self._pooling: Any = pooling

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with vectors."""
        texts = self.prompts(table)
        rows = _Rows(len(texts))
        read: dict[int, TokenSequence] = {}
        for row, text in enumerate(texts):
            with rows.blamed(row):
                tokens = self.tokens("text", text)
                if not len(tokens):
                    raise InvalidArgumentError("text: expected at least one token, got none")
                read[row] = tokens
        model = self.engine.model
        vectors = embed(
            model,
            list(read.values()),
            pooling=self._pooling,
            time_state=self._opening.time_state,
        )
        for row, vector in zip(read, vectors, strict=True):
            rows.values[row] = (vector,)
        kind = pa.list_(pa.float32(), model.info.n_embd)
        return rows.added_to(table, [(self.columns[0], kind)])


def _likeness(prompt: Any) -> tuple[str, str | bytes]:
    """Return what brings prompts together that begin alike, whatever they are."""
    if isinstance(prompt, str | bytes):
        return type(prompt).__name__, prompt
    if isinstance(prompt, np.ndarray):
        prompt = prompt.tolist()
    return type(prompt).__name__, repr(prompt)
