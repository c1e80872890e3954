"""What tests of writing begin with: a prompt, a request without an end, the first of its text."""

from __future__ import annotations

from typing import Any

from rwkv_py import Request

PROMPT = "The :mod:`json` module "
ENDLESS: dict[str, Any] = {"max_tokens": 1_000_000, "banned_tokens": [0]}


def first_piece(request: Request) -> str:
    return next(iter(request))
