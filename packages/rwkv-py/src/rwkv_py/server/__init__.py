"""A server for the protocols that language model clients speak; `rwkv serve` runs it.

Needs the extra `rwkv-py[server]`. A request becomes a value at the door: a module for each protocol
(`openai_chat`, `openai_completions`, `openai_responses`, `anthropic_messages`, ...) reads it, and
writes the answer in its form. Inside there are `turn` (a conversation to go on with), `writing`
(texts being written) and `models` (what is loaded).
"""

from __future__ import annotations

try:
    import fastapi as _fastapi  # noqa: F401
    import prometheus_client as _prometheus_client  # noqa: F401
    import python_multipart as _python_multipart  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"rwkv_py.server: expected the package {error.name}, found none. Try "
        "`pip install rwkv-py[server]`"
    ) from error

from .app import create_app
from .settings import Settings

__all__ = ["Settings", "create_app"]
