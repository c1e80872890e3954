"""Keyword arguments that many functions share are shown, and refused, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from rwkv_py import Engine, InvalidArgumentError, Model, Sampler, Session, UnknownOptionError
from rwkv_py._options import takes_options_of


@pytest.mark.parametrize("function", [Session.generate, Session.stream, Engine.submit])
def test_signatures_name_every_option_of_sampling(function: Callable[..., Any]) -> None:
    shown = inspect.signature(function).parameters
    for name, parameter in inspect.signature(Sampler).parameters.items():
        if name != "n_vocab":
            assert shown[name].default == parameter.default
            assert shown[name].kind is parameter.KEYWORD_ONLY
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in shown.values())


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("temprature", "temperature"),
        ("max_new_tokens", "max_tokens"),
        ("topp", "top_p"),
        ("stop_token", "stop_tokens"),
    ],
)
def test_the_nearest_option_is_named(session: Session, wrong: str, right: str) -> None:
    message = rf"^Session\.generate: expected an argument that it has, got '{wrong}'\. Try {right}$"
    for kind in (TypeError, ValueError, InvalidArgumentError):
        with pytest.raises(kind, match=message):
            session.generate("a", **{wrong: 1})
    with pytest.raises(UnknownOptionError, match=rf"Session\.stream: .* Try {right}$"):
        session.stream("a", **{wrong: 1})


def test_without_anything_near_all_options_are_named(trained: Model) -> None:
    with Engine(trained) as engine, pytest.raises(UnknownOptionError) as caught:
        engine.submit("a", xyzzy=1)  # type: ignore[call-arg]
    assert caught.value.message == "Engine.submit: expected an argument that it has, got 'xyzzy'"
    assert caught.value.remedy.startswith("It has prompt, opening, session, ")
    assert "self" not in caught.value.remedy


def test_defaults_that_are_decided_elsewhere() -> None:
    @takes_options_of(Sampler, default="<the chat's>")
    def ask(text: str, **options: Any) -> None: ...

    assert "top_p: 'float' = <the chat's>" in str(inspect.signature(ask))
