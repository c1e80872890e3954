"""What requests of several protocols have in common: fields, and the values made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidArgumentError
from ..generation import GenerationOptions

__all__ = ["Body", "OpenAISampling", "Sampling", "TokenDetails", "seed_of", "stops_of"]


class Body(BaseModel):
    """A request, or a part of one: unknown fields are ignored, values are of the kind said."""

    model_config = ConfigDict(extra="ignore", strict=True)


def _range(least: float, most: float | None = None) -> dict[str, Any]:
    """Return what the OpenAPI file says of a number's range; `Sampler` is what checks it."""
    return {"minimum": least} if most is None else {"minimum": least, "maximum": most}


class Sampling(Body):
    """How to choose tokens: what every protocol of ours takes besides its own."""

    temperature: float | None = Field(None, json_schema_extra=_range(0))
    top_p: float | None = Field(None, json_schema_extra=_range(0, 1))
    top_k: int | None = Field(None, json_schema_extra=_range(0))
    min_p: float | None = Field(None, json_schema_extra=_range(0, 1))
    typical_p: float | None = Field(None, json_schema_extra=_range(0, 1))
    mirostat_tau: float | None = Field(None, json_schema_extra=_range(0))
    mirostat_eta: float | None = Field(None, json_schema_extra=_range(0))
    repetition_penalty: float | None = Field(None, json_schema_extra={"exclusiveMinimum": 0})
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    penalty_decay: float | None = Field(None, json_schema_extra=_range(0, 1))
    banned_tokens: list[int] | None = None
    grammar: str | None = Field(None, description="What the text must fit: Lark or GBNF.")
    regex: str | None = Field(None, description="What the text must fit: a regular expression.")
    state: str | None = Field(None, description="The state to begin at, by its id.")
    speculate: Literal["lookup", "draft", "lookup+draft", "none"] | None = Field(
        None,
        description="What guesses how the text goes on: the same text, in fewer passes. `draft` "
        "needs a server with a draft model of the same tokens.",
    )

    def given(self) -> dict[str, Any]:
        """Return the options of `Sampler` that the client gave, and what guesses."""
        names = set(Sampling.model_fields) - {"grammar", "regex", "state", "speculate"}
        found = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in found.items() if value is not None}
        if self.speculate is not None:
            given["speculate"] = None if self.speculate == "none" else self.speculate
        return given


class OpenAISampling(Sampling):
    """The same with the names that OpenAI has for more of it."""

    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None

    def options(self) -> GenerationOptions:
        """Return all that was given, but for the seed.

        Raises:
            InvalidArgumentError: a token of `logit_bias` is no number.
        """
        options = self.given()
        options["stop"] = stops_of(self.stop)
        if self.logit_bias:
            options["logit_bias"] = _biases(self.logit_bias)
        return cast(GenerationOptions, options)


class TokenDetails(BaseModel):
    """How many tokens of a prompt were not read again."""

    cached_tokens: int = 0


def stops_of(stop: str | list[str] | None) -> list[str]:
    """Return stop strings as a list."""
    return [stop] if isinstance(stop, str) else list(stop or ())


def seed_of(seed: int | None, index: int) -> int | None:
    """Return the seed of one of several texts: with a seed they differ, and come again."""
    return None if seed is None else (seed + index) % 2**64


def _biases(biases: Mapping[str, float]) -> dict[int, float]:
    found = {}
    for token, bias in biases.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise InvalidArgumentError(
                f"logit_bias: expected numbers of tokens, got {token[:40]!r}"
            )
        found[int(token)] = bias
    return found
