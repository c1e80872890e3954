"""What a server is told: who may ask, and how much."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from .._arguments import as_count, as_number
from ..chat_format import ChatFormat
from ..errors import InvalidArgumentError
from ..sampling import Sampler, SamplingOptions

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is told.

    Attributes:
        api_keys: keys of which each request must have one; none: everybody may ask.
        cors_origins: the pages that a browser lets ask, such as "http://localhost:3000"; "*": all.
        max_running: how many texts each model writes at once.
        max_waiting: how many more wait in line, for each model.
        max_prompt_tokens: how long a prompt may be.
        max_output_tokens: how long a text may be; who asks for more gets this.
        max_body_bytes: how long a request may be.
        max_seconds: how long writing a text may take; after that it ends where it is. Embeddings
            that take longer are refused.
        max_choices: how many texts one request may ask for.
        max_stored: how many responses are kept for `previous_response_id`.
        cache_bytes: what each model keeps of beginnings that were read.
        exact_cache: find beginnings as tokens alone, see `PrefixCache`: no text depends on what was
            read before.
        state_dir: where states and responses outlive the server; None: nothing does.
        state_disk_bytes: what states may take there. Without `state_dir` those that clients keep
            may take `cache_bytes`, until the server ends.
        state_quota_bytes: what the states may take that one key keeps; without keys, all together.
            None: as much as there is.
        memory: bytes that the loaded models may take; None: any number.
        idle_seconds: after how long a model that nobody uses is unloaded; None: never.
        chat_format: how chats are written; None: what each model file says, else "world".
        sampling: options of `Sampler`, where a client gives none.
        speculate: what guesses how texts go on, likewise: "lookup", "draft", "lookup+draft", None.
        draft: the model file of what guesses as "draft", for models that have the same tokens; it
            is loaded with the first model.
        page: whether there is a page to talk on, at "/".

    Raises:
        InvalidArgumentError: one of them is outside its range.
    """

    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_running: int = 32
    max_waiting: int = 128
    max_prompt_tokens: int = 131072
    max_output_tokens: int = 16384
    max_body_bytes: int = 16 << 20
    max_seconds: float = 600.0
    max_choices: int = 16
    max_stored: int = 1000
    cache_bytes: int = 512 << 20
    exact_cache: bool = False
    state_dir: Path | None = None
    state_disk_bytes: int = 8 << 30
    state_quota_bytes: int | None = None
    memory: int | None = None
    idle_seconds: float | None = None
    chat_format: str | None = None
    sampling: SamplingOptions = field(default_factory=lambda: SamplingOptions())
    speculate: str | None = None
    draft: Path | None = None
    page: bool = True

    def __post_init__(self) -> None:
        for name in ("max_running", "max_prompt_tokens", "max_output_tokens", "max_body_bytes"):
            as_count(name, getattr(self, name), at_least=1)
        for name in ("max_waiting", "max_stored", "cache_bytes", "state_disk_bytes"):
            as_count(name, getattr(self, name))
        as_count("max_choices", self.max_choices, at_least=1)
        for name in ("max_seconds", "idle_seconds"):
            value = getattr(self, name)
            if value is not None and not as_number(name, value) > 0:
                raise InvalidArgumentError(f"{name}: expected a number above 0, got {value!r}")
        for name in ("memory", "state_quota_bytes"):
            if getattr(self, name) is not None:
                as_count(name, getattr(self, name), at_least=1)
        if any(not key or not key.isascii() or key != key.strip() for key in self.api_keys):
            raise InvalidArgumentError(
                "api_keys: expected ASCII characters without space around them, got another"
            )
        if self.chat_format is not None:
            ChatFormat.named(self.chat_format)
        # Which tokens there are, the models know: a request says so if one is none of them.
        of_any_model = {
            name: value
            for name, value in self.sampling.items()
            if name not in ("banned_tokens", "logit_bias")
        }
        Sampler(1, **cast(SamplingOptions, of_any_model))
        guessers = ["lookup"] if self.draft is None else ["lookup", "draft", "lookup+draft"]
        if self.speculate not in (None, *guessers):
            raise InvalidArgumentError(
                f"speculate: expected {', '.join(guessers)} or None, got {self.speculate!r}"
            )
