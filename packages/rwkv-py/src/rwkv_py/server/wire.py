"""JSON as it goes over the wire."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

__all__ = ["Json", "finite", "to_json"]


def to_json(value: Any) -> bytes:
    """Write JSON in UTF-8; a lone surrogate, which a client may have sent, becomes "?"."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def finite(logprob: float) -> float:
    """Return a logarithm of a probability as JSON can write it: of 0 it is -9999."""
    return logprob if math.isfinite(logprob) else -9999.0


class Json(Response):
    """A response of JSON.

    Attributes:
        content: what the body says.
    """

    media_type = "application/json"
    content: Any

    def render(self, content: Any) -> bytes:
        """Write the body."""
        self.content = content
        return to_json(content)
