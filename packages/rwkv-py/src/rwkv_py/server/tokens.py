"""`/tokenize`, `/detokenize` and `/tokenizer_info`: text and tokens, as vLLM has it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from ..errors import TokenOutOfRangeError
from ..prompt import END_OF_DOCUMENT
from ..tokenizer import Tokenizer
from .context import Context, ContextOf
from .fields import Body
from .models import Lease
from .openai_logprobs import token_bytes, token_text
from .openai_messages import ChatMessage, messages_of
from .turn import Turn
from .wire import Json

__all__ = ["router"]

router = APIRouter()

# What stands for the end of a document where the vocabulary has no text for it. As a whole prompt
# it is that token, so that programs which ask for its number get it; within a text it is text.
_END = "<|endoftext|>"


class TokenizeRequest(Body):
    """A text, or a conversation as the model reads it."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    return_token_strs: bool | None = None


class Tokens(BaseModel):
    """The tokens."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Body):
    """Tokens."""

    model: str | None = None
    tokens: list[int]


class Text(BaseModel):
    """The text that tokens stand for."""

    prompt: str


class TokenizerInfo(BaseModel):
    """What a vocabulary is."""

    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    eos_token: str
    bos_token: str
    chat_template: str


@router.post("/tokenize", response_model=Tokens)
async def tokenize(ask: TokenizeRequest, context: ContextOf) -> Response:
    """Return the tokens of a text or of a conversation."""
    lease = await _lease(ask.model, context)
    try:
        tokenizer = lease.served.tokenizer
        if ask.messages is not None:
            written, _ = Turn(messages=messages_of(ask.messages)).written(lease.served, None)
            tokens = [
                *tokenizer.encode("".join(written.parts)),
                *tokenizer.encode(written.opening),
            ]
        elif ask.prompt == _end_of(tokenizer):
            tokens = [END_OF_DOCUMENT]
        else:
            tokens = tokenizer.encode(ask.prompt or "")
        facts: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": context.settings.max_prompt_tokens,
            "tokens": tokens,
            "token_strs": None,
        }
        if ask.return_token_strs:
            facts["token_strs"] = [token_text(token_bytes(tokenizer, token)) for token in tokens]
        return Json(facts)
    finally:
        lease.release()


@router.post("/detokenize", response_model=Text)
async def detokenize(ask: DetokenizeRequest, context: ContextOf) -> Response:
    """Return the text that tokens stand for."""
    lease = await _lease(ask.model, context)
    try:
        tokenizer = lease.served.tokenizer
        end = _end_of(tokenizer).encode()
        data = b"".join(
            end if token == END_OF_DOCUMENT else tokenizer.decode_bytes([token])
            for token in ask.tokens
        )
        return Json({"prompt": data.decode("utf-8", "replace")})
    finally:
        lease.release()


@router.get("/tokenizer_info", response_model=TokenizerInfo)
async def tokenizer_info(
    context: ContextOf, model: str | None = Query(None, description="Which model's.")
) -> Response:
    """Tell what a vocabulary is: of the first model, if none is named."""
    return Json(await _info(context, model))


async def _lease(model: str | None, context: Context) -> Lease:
    """Lease a model: the first, if none is named, as programs that score texts do not name one."""
    return await context.models.lease(model or next(iter(context.models.files)))


async def _info(context: Context, model: str | None) -> dict[str, Any]:
    lease = await _lease(model, context)
    try:
        served = lease.served
        end = _end_of(served.tokenizer)
        return {
            "tokenizer_class": "RWKV",
            "vocab_size": served.model.n_vocab,
            "model_max_length": context.settings.max_prompt_tokens,
            "eos_token": end,
            "bos_token": end,  # a document begins after the end of another
            "chat_template": served.model.info.chat_template,
        }
    finally:
        lease.release()


def _end_of(tokenizer: Tokenizer) -> str:
    try:
        return tokenizer.decode([END_OF_DOCUMENT]) or _END
    except TokenOutOfRangeError:
        return _END
