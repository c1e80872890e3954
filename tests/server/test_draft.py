"""A server with a draft model: the same texts, whatever guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from rwkv_py import InvalidArgumentError, Model, Session
from rwkv_py.server import Settings
from rwkv_py.speculation import Pass, Speculation
from server.serving import Serve
from twin import ggmf, synth

PROMPT = "The :mod:`json` module "


def written(client: httpx.Client, model: str = "pydoc", **fields: Any) -> httpx.Response:
    ask = {"model": model, "prompt": PROMPT, "max_tokens": 60, "seed": 2}
    return client.post("/v1/completions", json={**ask, **fields})


def want_three(self: Pass, offers: list[Any]) -> None:
    for offer in offers:
        offer.n_wanted = min(3, offer.limit)


def text(found: httpx.Response) -> str:
    assert found.status_code == 200, found.text
    return str(found.json()["choices"][0]["text"])


def test_a_draft_guesses_unless_a_client_says_otherwise(
    serve: Serve, pydoc: Model, pydoc_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Session(pydoc).generate(PROMPT, max_tokens=60, seed=2)
    with serve({"pydoc": pydoc_file}, speculate="draft", draft=pydoc_file) as client:
        assert text(written(client)) == alone
        (served,) = client.app.state.context.models.loaded  # type: ignore[attr-defined]
        draft = served.draft
        # It is as large as what it guesses for: no guess would be worth it.
        monkeypatch.setattr(Pass, "_choose", want_three)
        monkeypatch.setattr(Speculation, "_may_lose", lambda self: True)
        steps: list[Model] = []
        step = Model.step
        monkeypatch.setattr(Model, "step", lambda m, *rest: steps.append(m) or step(m, *rest))
        for asked in ("draft", "lookup+draft", None):
            steps.clear()
            assert text(written(client, speculate=asked)) == alone
            assert draft in steps
        for asked in ("lookup", "none"):
            steps.clear()
            assert text(written(client, speculate=asked)) == alone
            assert draft not in steps
    assert draft.closed


def test_without_a_draft_a_client_cannot_have_one(serve: Serve, pydoc_file: Path) -> None:
    with serve({"pydoc": pydoc_file}, speculate="lookup") as client:
        refused = written(client, speculate="lookup+draft")
        assert refused.status_code == 400
        message = refused.json()["error"]["message"]
        assert message == (
            "speculate: expected lookup or none for pydoc, got lookup+draft: no draft"
        )
    with pytest.raises(InvalidArgumentError, match="speculate: expected lookup or None, got 'dr"):
        Settings(speculate="draft")


def test_a_model_with_other_tokens_has_no_draft(
    serve: Serve, pydoc: Model, pydoc_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.bin"
    ggmf.write(other, ggmf.convert_reference(synth.checkpoint("7", n_layer=2, n_vocab=64)))
    alone = Session(pydoc).generate(PROMPT, max_tokens=60, seed=2)
    with serve({"pydoc": pydoc_file}, speculate="lookup+draft", draft=other) as client:
        assert text(written(client)) == alone
        refused = written(client, speculate="draft")
        assert refused.status_code == 400


def test_a_draft_that_cannot_be_opened_is_an_outage(serve: Serve, pydoc_file: Path) -> None:
    missing = pydoc_file.parent / "no such draft.bin"
    files = {"pydoc": pydoc_file, "other": pydoc_file}  # none of several is loaded at first
    with serve(files, speculate="draft", draft=missing) as client:
        assert written(client).status_code == 503
