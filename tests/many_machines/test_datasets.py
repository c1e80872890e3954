"""Datasets through actors: what each row gets, in which order, whatever becomes of the actors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rwkv_py
from rwkv_py import Engine, InvalidArgumentError, Model, UnknownOptionError
from rwkv_py.evaluate import perplexity

pytest.importorskip("ray", reason="only in `hatch run ray:test`")
import pyarrow as pa
import ray
import ray.data

from rwkv_py.ray import embed, generate, score
from rwkv_py.ray.actors import Generator, Opening

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

TWO = {"actors": 2, "threads": 1, "batch_size": 8}
BEGINNING = "The functions of this module, and what they return, are described below. " * 5
SEED = 2**64 - 20  # so that the seeds of later rows begin anew at 0
WRITTEN = {"max_tokens": 40, "temperature": 0.9, "seed": SEED}

Row = dict[str, Any]


def rows_of_all_kinds() -> list[Row]:
    """Rows in an order that is not that of their texts; 5 and 17 are too long, 30 has none."""
    names = ["re", "os", "io", "abc", "json", "csv"]
    rows: list[Row] = [
        {
            "prompt": (BEGINNING if i % 3 == 0 else "") + f"The :mod:`{names[i % 6]}` module, {i}",
            "of": {"book": i // 7},
            "name": f"row {i}",
        }
        for i in range(50)
    ]
    rows[5]["prompt"] = rows[17]["prompt"] = "long " * 200
    rows[30]["prompt"] = None
    return rows


BAD = {
    5: "prompt: expected at most 600 tokens, got 1000",
    17: "prompt: expected at most 600 tokens, got 1000",
    30: "prompt: expected text or tokens, got null",
}


def single(model: Model, rows: list[Row], **options: Any) -> dict[int, str]:
    """What one process writes for the good rows."""
    good = [i for i in range(len(rows)) if i not in BAD]
    seed = options.pop("seed")
    with Engine(model) as engine:
        texts = engine.generate_batch(
            [rows[i]["prompt"] for i in good],
            seeds=[(seed + i) % 2**64 for i in good],
            **options,
        )
    return dict(zip(good, texts, strict=True))


def test_rows_are_what_one_process_writes(pydoc: Model, pydoc_file: Path) -> None:
    rows = rows_of_all_kinds()
    dataset = ray.data.from_items(rows, override_num_blocks=7)
    made = generate(dataset, pydoc_file, max_prompt_tokens=600, **TWO, **WRITTEN).take_all()

    assert [row["index"] for row in made] == list(range(50))
    expected = single(pydoc, rows, **WRITTEN)
    for i, (given, got) in enumerate(zip(rows, made, strict=True)):
        assert {name: got[name] for name in given} == given
        assert got["generated_text"] == expected.get(i)
        assert got["error"] == BAD.get(i)
        n_tokens = None if i in BAD else 40
        assert got["n_tokens"] == n_tokens
        assert got["finish_reason"] == (None if i in BAD else "length")
        assert got["n_prompt_tokens"] == (None if i in BAD else len(given["prompt"]))
    assert dataset.context.execution_options.preserve_order is False  # the caller's own stays


def test_rows_that_have_numbers_and_tokens(pydoc: Model, pydoc_file: Path) -> None:
    """A row's seed is its number's, wherever it stands; prompts may be tokens."""
    numbers = [7, 1, 100, 4]
    items = [{"prompt": [*b"import ", *str(i).encode()], "n": i} for i in numbers]
    options = {"index": "n", "actors": 1, "threads": 1, "max_tokens": 20, "seed": 3}
    made = generate(ray.data.from_items(items), pydoc_file, **options).take_all()
    assert "index" not in made[0]
    with Engine(pydoc) as engine:
        for row in made:
            request = engine.submit(f"import {row['n']}", max_tokens=20, seed=3 + row["n"])
            assert row["generated_text"] == request.result()
    assert [row["n"] for row in made] == numbers


def test_scores_and_vectors(pydoc: Model, pydoc_file: Path) -> None:
    texts = [f"{BEGINNING[: 40 * i]} is number {i}." for i in range(12)] + ["x", ""]
    dataset = ray.data.from_items([{"text": text} for text in texts])
    scored = score(dataset, pydoc_file, **TWO).take_all()
    for text, row in zip(texts[:-2], scored, strict=False):
        expected = perplexity(pydoc, text)
        assert (row["n_tokens"], row["n_bytes"]) == (expected.n_tokens, expected.n_bytes)
        assert row["nats"] == pytest.approx(expected.nats, rel=1e-9)
        assert row["error"] is None
    assert [row["error"] for row in scored[-2:]] == [
        "text: expected at least 2 tokens, got 1",
        "text: expected at least 2 tokens, got 0",
    ]
    assert scored[-1]["nats"] is None

    made = embed(dataset, pydoc_file, pooling="last", actors=1, threads=1).take_all()
    vectors = rwkv_py.embed(pydoc, texts[:-1], pooling="last")
    for row, vector in zip(made, vectors, strict=False):
        assert np.array_equal(np.array(row["embedding"], np.float32), vector)
    assert made[-1]["embedding"] is None
    assert made[-1]["error"] == "text: expected at least one token, got none"


def test_a_lost_actor_costs_no_row(
    pydoc: Model, pydoc_file: Path, kill: Callable[[str], int]
) -> None:
    """Both actors are killed while rows are being written, one after the other."""
    rows = [{"prompt": f"The :mod:`{i}` module"} for i in range(96)]
    options = {"max_tokens": 150, "seed": 1, "stop_tokens": []}
    made = []
    written = generate(ray.data.from_items(rows), pydoc_file, **TWO, **options)
    for row in written.iter_rows():
        made.append(row)
        if len(made) in (1, 25):
            kill("MapWorker(MapBatches(Generator))")
    assert [row["index"] for row in made] == list(range(96))
    expected = single(pydoc, rows, **options)
    for i, row in enumerate(made):
        assert row["error"] is None or i in BAD
        assert row["generated_text"] == expected[i] if i not in BAD else True


def test_retries_have_an_end(pydoc_file: Path, kill: Callable[[str], int]) -> None:
    """Where a row is what ends its actors, the work is not done again for ever."""
    dataset = ray.data.from_items([{"prompt": f"The :mod:`{i}` module"} for i in range(64)])
    alone = {**TWO, "actors": 1}  # so that the one which is killed has been given rows
    options = {"max_tokens": 150, "stop_tokens": [], "retries": 0}
    rows = iter(generate(dataset, pydoc_file, **alone, **options).iter_rows())
    next(rows)
    kill("MapWorker(MapBatches(Generator))")
    with pytest.raises(ray.exceptions.RayActorError):
        list(rows)


def test_what_is_refused_before_anything_begins(pydoc_file: Path) -> None:
    dataset = ray.data.from_items([{"prompt": "x", "error": 1}])
    good = dataset.drop_columns(["error"])
    for message, wrong, options in [
        ("column: expected one of prompt, error, got 'text'", dataset, {"column": "text"}),
        ("dataset: expected no column 'error', which is added, got one", dataset, {}),
        ("column: expected one of prompt, got 'n'", good, {"index": "n"}),
        ("retries: expected 0 or more, got -2", good, {"retries": -2}),
        ("batch_size: expected 1 or more, got 0", good, {"batch_size": 0}),
        (
            "draft: expected none, since a model cannot be sent to actors, got one",
            good,
            {"draft": 1},
        ),
        ("actors: expected 2 or more, got 1", good, {"actors": (2, 1)}),
        (
            "actors: expected one CPU more than the 4 of 2 x 2 threads, for reading and writing, "
            "got 4 in the cluster",
            good,
            {"actors": 2, "threads": 2},
        ),
    ]:  # fmt: skip
        with pytest.raises(InvalidArgumentError) as told:
            generate(wrong, pydoc_file, **options)
        assert told.value.message == message
    with pytest.raises(UnknownOptionError, match="Try temperature"):
        generate(good, pydoc_file, temprature=1)
    with pytest.raises(InvalidArgumentError, match="pooling: expected 'mean' or 'last', got 'max'"):
        embed(good, pydoc_file, column="prompt", pooling="max")


def test_what_only_an_actor_knows_ends_the_work(pydoc_file: Path) -> None:
    dataset = ray.data.from_items([{"prompt": "x"}])
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"missing\.bin: cannot be opened"):
        generate(dataset, "missing.bin", actors=1, threads=1).take_all()
    opening = Opening(str(pydoc_file), 1, None, None, 4, None, 0)
    with pytest.raises(InvalidArgumentError, match="top_p: expected"):
        Generator(opening, "prompt", "index", {"seed": 1, "top_p": 2.0})


@pytest.mark.parametrize("kind", [list, np.array, "".join, bytes])
def test_prompts_of_every_kind(pydoc: Model, pydoc_file: Path, kind: Any) -> None:
    """As Ray Data hands them over: arrays of equal length as tensors."""
    texts = ["import re", "import os"]
    made = [kind(text if kind == "".join else list(text.encode())) for text in texts]
    rows = [{"prompt": prompt, "n": i} for i, prompt in enumerate(made)]
    (table,) = ray.get(ray.data.from_items(rows, override_num_blocks=1).to_arrow_refs())
    opening = Opening(str(pydoc_file), 1, None, None, 4, None, 0)
    written = Generator(opening, "prompt", "n", {"seed": 0, "max_tokens": 9})(table).to_pylist()
    with Engine(pydoc) as engine:
        expected = engine.generate_batch(texts, seeds=[0, 1], max_tokens=9)
    assert [row["generated_text"] for row in written] == expected


def test_rows_of_no_number_or_of_nonsense(pydoc_file: Path) -> None:
    opening = Opening(str(pydoc_file), 1, None, None, 4, None, 0)
    options = {"seed": 0, "max_tokens": 3}
    table = pa.table({"prompt": ["a", "b"], "n": [None, 3]})
    (bad, good) = Generator(opening, "prompt", "n", options)(table).to_pylist()
    assert bad["error"] == "index: expected a whole number, got None"
    assert (good["error"], good["n_tokens"]) == (None, 3)
    table = pa.table({"prompt": [[1, 999], [-1, 5]], "n": [1, 2]})
    for row in Generator(opening, "prompt", "n", options)(table).to_pylist():
        assert row["error"].startswith("tokens[") and row["generated_text"] is None


def test_no_rows(pydoc_file: Path) -> None:
    nothing = ray.data.from_items([{"prompt": "x"}]).limit(0)
    assert generate(nothing, pydoc_file, actors=1, threads=1).take_all() == []
