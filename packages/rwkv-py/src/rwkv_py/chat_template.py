"""The chat template of a model file, a program in jinja: what it writes, as a `ChatFormat`.

The template is run once, with placeholders for what is said. What it writes around them is the
format, so a chat reads each turn once whatever the template is, and nothing that anybody says ever
gets into the template.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .chat_format import CHAT_FORMATS, ChatFormat
from .errors import InvalidArgumentError
from .model import Model

__all__ = ["format_for", "format_of_template"]

MAX_TEMPLATE_BYTES = 1 << 18
SECONDS = 20
"""How long the program has; it uses a tenth of a second."""

_REMEDY = "Try Chat(..., format=) with the name of a format"
_SYSTEM, _FIRST, _ANSWER, _SECOND = "zq0sYstEm0qz", "zq1uSeR1qz", "zq2aNsWeR2qz", "zq3uSeR3qz"


def format_for(choice: ChatFormat | str | None, model: Model) -> ChatFormat:
    """Return a format that is given, or named, or the one that the model file tells.

    Raises:
        InvalidArgumentError: there is none of that name; and what `format_of_template` raises.
    """
    if isinstance(choice, ChatFormat):
        return choice
    if choice is None and model.info.chat_template:
        return format_of_template(model.info.chat_template, model.path)
    return ChatFormat.named("world" if choice is None else choice)


def format_of_template(template: str, path: str) -> ChatFormat:
    """Return the format in which a model file says that chats are written.

    llama.cpp's templates for World models are known; running another one needs the package jinja2:
    `pip install rwkv-py[templates]`. It runs in a process of its own, whose time and memory are
    limited.

    Args:
        template: the template, or the name of one of ours, or "rwkv-world".
        path: the file that it comes from, for messages.

    Raises:
        InvalidArgumentError: the template makes no sense or does not come to an end, or does not
            write every turn alike; or jinja2 is not installed.
    """
    if template in CHAT_FORMATS:
        return CHAT_FORMATS[template]
    # By these llama.cpp knows it, too.
    if "rwkv-world" in template or "{{- 'User: ' + message['content']|trim" in template:
        return CHAT_FORMATS["world"]
    where = f"format: the chat template of {path}"
    if (size := len(template.encode("utf-8", "replace"))) > MAX_TEMPLATE_BYTES:
        raise InvalidArgumentError(
            f"{where}: expected at most {MAX_TEMPLATE_BYTES} bytes, got {size}", remedy=_REMEDY
        )
    said = [("user", _FIRST), ("assistant", _ANSWER), ("user", _SECOND)]
    plain, with_system = _render(where, template, [said, [("system", _SYSTEM), *said]])
    found = _derive(where, plain, with_system)
    for known in CHAT_FORMATS.values():
        if _texts(known) == _texts(found):
            return known
    return found


def _texts(chat_format: ChatFormat) -> tuple[str, ...]:
    """What a model reads in a format."""
    f = chat_format
    return f.begin, f.system, f.user, f.opening, f.lead, f.end


def _render(
    where: str, template: str, conversations: list[list[tuple[str, str]]]
) -> list[str | None]:
    """Render conversations, each of pairs of role and text, in another process."""
    program = Path(__file__).with_name("_render_template.py")
    messages = [[{"role": r, "content": text} for r, text in said] for said in conversations]
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(program)],
            input=json.dumps([template, messages]),
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except OSError as error:
        raise InvalidArgumentError(
            f"{where}: expected Python to run it, got: {error}", remedy=_REMEDY
        ) from None
    except (subprocess.TimeoutExpired, ValueError):  # stopped by a limit, it answers nothing
        raise InvalidArgumentError(
            f"{where}: expected one that comes to an end, got one that does not", remedy=_REMEDY
        ) from None
    if "missing" in answer:
        raise InvalidArgumentError(
            f"{where.removeprefix('format: ')}: expected the package jinja2 to run it, got none",
            remedy="Try `pip install rwkv-py[templates]`, or the format world by its name",
        )
    if "unlimited" in answer:
        raise InvalidArgumentError(
            f"{where}: expected a system that limits what a program may take, "
            f"got {answer['unlimited']}",
            remedy=_REMEDY,
        )
    if "error" in answer:
        raise InvalidArgumentError(
            f"{where}: expected one that writes a chat, got {ascii(answer['error'])[1:-1]}",
            remedy=_REMEDY,
        )
    rendered: list[str | None] = answer["rendered"]
    return rendered


def _derive(where: str, plain: str | None, with_system: str | None) -> ChatFormat:
    """Make a format of what a template wrote of the placeholders.

    Args:
        where: for messages.
        plain: a turn, and the question of the next.
        with_system: the same after a system prompt; None if the template takes none.
    """
    before, after_first, between, after_second = _split(where, plain, _FIRST, _ANSWER, _SECOND)
    # The history has `lead` where the answer to be written has `opening`.
    name = _same_beginning(after_first, after_second)
    lead, opening = after_first[len(name) :], after_second[len(name) :]
    starts = [before, between]
    system_before = system_after = ""
    if with_system is not None:
        system_before, system_after, *rest = _split(
            where, with_system, _SYSTEM, _FIRST, _ANSWER, _SECOND
        )
        starts.append(system_after)
        if rest != [after_first, between, after_second]:
            raise _not_alike(where)
    # What is the same before every user's text: a turn begins there.
    user = _same_beginning(*(text[::-1] for text in starts))[::-1]
    rests = [text[: len(text) - len(user)] for text in starts]
    return ChatFormat(
        name="template",
        begin=rests[0],
        system=_braced(system_before) + "{}" + _braced(rests[2]) if len(rests) > 2 else "",
        user=_braced(user) + "{}" + _braced(name),
        opening=opening,
        lead=lead,
        end=rests[1],
        stop=_stop(between),
    )


def _split(where: str, text: str | None, *marks: str) -> list[str]:
    """Return what stands before, between and after placeholders."""
    parts = []
    for mark in marks:
        part, found, text = (text or "").partition(mark)
        if not found:
            raise _not_alike(where)
        parts.append(part)
    if any(mark in part for mark in marks for part in [*parts, text or ""]):
        raise _not_alike(where)
    return [*parts, text or ""]


def _not_alike(where: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{where}: expected one that writes all that is said once, in order, and every turn alike, "
        "got another",
        remedy=_REMEDY,
    )


def _stop(between: str) -> tuple[str, ...]:
    """By what one sees that an answer has ended: the beginning of what would follow it."""
    match = re.match(r"\s*[^\n]*", between)
    begin = match[0].rstrip() if match else ""
    return (begin or between,) if between else ()


def _same_beginning(*texts: str) -> str:
    first, last = min(texts), max(texts)
    differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differ, len(first))]


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
