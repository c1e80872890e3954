"""`POST /v1/completions`: going on with texts."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..generation import GenerationOptions
from ..probabilities import TokenProbability
from ..prompt import BEGIN_OF_DOCUMENT
from ..state_folder import StateFolder
from .context import Context, ContextOf
from .errors import ApiError, error_body
from .fields import Body, OpenAISampling, TokenDetails, seed_of
from .keys import Asker, asker_of
from .openai_logprobs import CompletionLogprobs, CompletionTokens
from .sse import DONE, EventStream, event, while_connected
from .stored_responses import Ending, Stored
from .wire import Json
from .writing import Ask, Writing, begin_writing

__all__ = ["Completion", "CompletionRequest", "answer_completion", "router"]

router = APIRouter()

_PATH = "/v1/completions"
_MAX_TOP = 20
_NAMES = {"text": "prompt", "tokens": "prompt"}  # what our arguments are called here


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool | None = None


class CompletionRequest(OpenAISampling):
    """One or several texts to go on with, as text or as tokens."""

    model: str | None = None
    prompt: str | list[str] | list[int] | list[list[int]] | None = ""
    suffix: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    n: int | None = Field(None, ge=1)
    best_of: int | None = Field(None, ge=1)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=_MAX_TOP)
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Usage(BaseModel):
    """How many tokens there were."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class CompletionChoice(BaseModel):
    """A text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """The texts, or more of them as an event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


@router.post(_PATH, response_model=Completion)
async def complete(ask: CompletionRequest, request: Request, context: ContextOf) -> Response:
    """Go on with texts."""
    asker = asker_of(request.scope)
    if not ask.stream:
        return await while_connected(request, answer_completion(ask, context, asker))
    completing = await _begin(ask, context, asker)
    return EventStream(completing.events(), completing.writing.close)


async def answer_completion(ask: CompletionRequest, context: Context, asker: Asker) -> Json:
    """Return the whole answer.

    Raises:
        ApiError: it is refused, or writing has failed.
    """
    completing = await _begin(ask, context, asker)
    try:
        return await completing.whole()
    finally:
        completing.writing.close()


async def _begin(ask: CompletionRequest, context: Context, asker: Asker) -> _Completing:
    n = ask.n or 1
    if ask.best_of is not None and ask.best_of != n:
        raise ApiError(400, f"best_of: expected the same as n, {n}, got {ask.best_of}")
    if ask.suffix:
        raise ApiError(400, "suffix: expected none, got one")
    prompts = _prompts(ask.prompt)
    if len(prompts) * n > context.settings.max_choices:
        most = context.settings.max_choices
        raise ApiError(400, f"n: expected at most {most} texts in all, got {len(prompts) * n}")
    options: GenerationOptions = {
        "max_tokens": 16 if ask.max_tokens is None else ask.max_tokens,
        **context.settings.sampling,
        **ask.options(),
    }
    for name in ("grammar", "regex"):
        if (fits := getattr(ask, name)) is not None:
            options[name] = fits
    asks = [
        Ask(
            prompt=prompt,
            options={**options, "seed": seed_of(ask.seed, i)},
            logprobs=ask.logprobs,
            prompt_logprobs=ask.logprobs if ask.echo else None,
        )
        for prompt in prompts
        for i in range(n)
    ]
    lease = await context.models.lease(ask.model)
    if ask.state is not None:
        try:
            state = await context.states.find(ask.state, asker.owner)
            session = await context.states.session(state, lease.served)
        except BaseException:
            lease.release()
            raise
        asks = [dataclasses.replace(each, session=session) for each in asks]
    writing = await begin_writing(
        lease, asks, context.settings, context.metrics, asker.share, _NAMES
    )
    return _Completing(ask, asks, writing, context, asker)


def _prompts(
    prompt: str | list[str] | list[int] | list[list[int]] | None,
) -> list[str | list[int]]:
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if not prompt:
        raise ApiError(400, "prompt: expected at least one, got an empty list")
    if all(isinstance(each, int) for each in prompt):
        return [prompt]  # type: ignore[list-item]
    return prompt  # type: ignore[return-value]


class _Completing:
    """Texts being gone on with, in OpenAI's form."""

    def __init__(
        self,
        ask: CompletionRequest,
        asks: list[Ask],
        writing: Writing,
        context: Context,
        asker: Asker,
    ):
        self.writing = writing
        self._context = context
        self._asker = asker
        self._ask = ask
        self._asks = asks
        served = writing.lease.served
        self._tokenizer = served.tokenizer
        self._head = {
            "id": asker.marks.new_id("cmpl-"),
            "object": "text_completion",
            "created": asker.marks.created,
            "model": served.name,
        }
        self._tokens = [CompletionTokens(served.tokenizer, ask.logprobs or 0) for _ in asks]
        self._echoed = [not ask.echo] * len(asks)

    async def whole(self) -> Json:
        """Return the response."""
        await self.writing.ended()
        texts = ["" for _ in self._asks]
        logprobs: list[dict[str, Any] | None] = [None for _ in self._asks]
        async for choice in self._choices():
            i = choice["index"]
            texts[i] += choice["text"]
            if (more := choice["logprobs"]) is not None:
                known = logprobs[i]
                if known is None:
                    logprobs[i] = more
                else:
                    for name, values in more.items():
                        if values is not None:
                            known[name] += values
        choices = [
            {
                "index": i,
                "text": texts[i],
                "logprobs": logprobs[i],
                "finish_reason": self.writing.finish_reason(i),
            }
            for i in range(len(texts))
        ]
        return Json({**self._head, "choices": choices, "usage": self._usage()})

    async def events(self) -> AsyncIterator[bytes]:
        """Return the events."""
        with_usage = self._ask.stream_options is not None and self._ask.stream_options.include_usage
        rest = {"usage": None} if with_usage else {}
        try:
            async for choice in self._choices():
                yield event({**self._head, "choices": [choice], **rest})
        except ApiError as error:
            yield event(error_body(_PATH, error))
            return
        if with_usage:
            yield event({**self._head, "choices": [], "usage": self._usage()})
        yield DONE

    async def _choices(self) -> AsyncIterator[dict[str, Any]]:
        """Return all that comes as choices of chunks."""
        n_left = len(self._asks)
        said = [""] * n_left
        async for piece in self.writing.pieces():
            i = piece.number
            text = piece.text
            said[i] += text
            n_left -= piece.ended
            if not n_left:
                self._keep(said)
            tokens: list[tuple[int, TokenProbability | None]] = []
            if not self._echoed[i]:
                self._echoed[i] = True
                text, tokens = self._echo(i)
                text += piece.text
            tokens += [(each.token, each) for each in piece.logprobs]
            request = self.writing.requests[i]
            if piece.ended and request.finish_reason == "end" and request.ending is not None:
                tokens.append((request.ending.token, request.ending))
            if not (text or tokens or piece.ended):
                continue
            yield {
                "index": i,
                "text": text,
                "logprobs": None if self._ask.logprobs is None else self._tokens[i].next(tokens),
                "finish_reason": self.writing.finish_reason(i) if piece.ended else None,
            }

    def _keep(self, said: list[str]) -> None:
        if not self._asker.keeps:
            return
        served = self.writing.lease.served
        read: list[tuple[str | list[int], ...]] = []
        for ask, request, text in zip(self._asks, self.writing.requests, said, strict=True):
            if not isinstance(ask.prompt, str):
                read.append((list(ask.prompt), request.tokens))
            elif ask.prompt or ask.session is not None:
                read.append((ask.prompt + text,))
            else:
                read.append((BEGIN_OF_DOCUMENT.tokens.tolist(), text))
        whose = StateFolder.model_name(served.model)
        ending = Ending(served.name, whose, self._ask.state, None, tuple(read))
        name = str(self._head["id"])
        self._context.endings.keep(Stored(id=name, owner=self._asker.owner, ending=ending))

    def _echo(self, index: int) -> tuple[str, list[tuple[int, TokenProbability | None]]]:
        """Return the prompt as the beginning of the text."""
        prompt = self._asks[index].prompt
        if isinstance(prompt, str):
            text, tokens = prompt, self._tokenizer.encode(prompt)
        else:
            tokens = list(prompt)
            text = self._tokenizer.decode(tokens)
        if self._ask.logprobs is None or not tokens:
            return text, []
        probabilities = self.writing.requests[index].prompt_logprobs
        return text, list(zip(tokens, probabilities, strict=True))

    def _usage(self) -> dict[str, Any]:
        requests = self.writing.requests
        n = self._ask.n or 1
        prompt_tokens = sum(request.n_prompt_tokens for request in requests[::n])
        cached = sum(request.n_cached_tokens for request in requests[::n])
        written = self.writing.n_written_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": written,
            "total_tokens": prompt_tokens + written,
            "prompt_tokens_details": {"cached_tokens": self._asker.marks.cached(cached)},
        }
