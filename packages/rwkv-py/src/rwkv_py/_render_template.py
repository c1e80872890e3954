"""A program of its own: renders a chat template that came with a file, which is not trusted.

    python -I _render_template.py < REQUEST > ANSWER

The request is a JSON list: the template, and conversations to render, each a list of messages with
`role` and `content`. The answer is a JSON object: `rendered` (a text for each conversation, or null
for one that the template refuses), or `error`, or `missing` where there is no jinja2, or
`unlimited` on a system that cannot limit a process, where nothing is rendered.

Jinja's sandbox keeps a template from everything but texts and numbers. It does not keep it from
taking for ever, or all memory, which a handful of characters can do; that is what the limits of a
process are for.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, NoReturn

CPU_SECONDS = 2
MEMORY_BYTES = 1 << 30
MAX_RENDERED = 1 << 16


def render(source: str, conversations: list[list[dict[str, str]]]) -> dict[str, Any]:
    """Render conversations, up to where the assistant is to answer."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return {"missing": "jinja2"}

    class Refused(TemplateError):
        """The template says that it cannot write a conversation."""

    def refuse(why: object = "") -> NoReturn:
        raise Refused(str(why))

    # As Hugging Face's library, whose templates these are, sets it up.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    rendered: list[str | None] = []
    try:
        template = environment.from_string(source)
        for messages in conversations:
            try:
                text = template.render(
                    messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
                )
            except Refused:
                rendered.append(None)
                continue
            if len(text) > MAX_RENDERED:
                return {"error": f"{len(text)} characters for {len(messages)} messages"}
            rendered.append(text)
    # Templates make jinja2 raise whatever Python can: TypeError, RecursionError, MemoryError, ...
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    return {"rendered": rendered}


def limit() -> bool:
    """Limit this process; return whether the system can."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return False
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return True


if __name__ == "__main__":
    limited = limit()
    request = json.load(sys.stdin)
    json.dump(render(*request) if limited else {"unlimited": sys.platform}, sys.stdout)
