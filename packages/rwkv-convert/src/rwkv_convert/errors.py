"""What can go wrong, as a hierarchy rooted at `ConvertError`.

Every message has one form: where: what, expected, got. What to do about it stands apart, because
the command has other words for it than Python.
"""

from __future__ import annotations


class ConvertError(Exception):
    """Anything that this package refuses; `str(error)` is one sentence for the user.

    Attributes:
        message: the facts: where, what, expected, got.
        remedy: what to do about it, a sentence such as "Try to download it again"; "" where there
            is nothing to advise. It names options as Python's arguments, `force=True`.
    """

    def __init__(self, message: str, *, remedy: str = ""):
        super().__init__(f"{message}. {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class OptionError(ConvertError, ValueError):
    """The caller asked for something that does not exist or contradicts itself.

    Attributes:
        option: the argument at fault.
        problem: what is wrong with it.
    """

    def __init__(self, option: str, problem: str):
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class CheckpointError(ConvertError):
    """The input cannot be read as any container we know, or it is damaged."""


class UnsafePickleError(CheckpointError):
    """The pickle in a `.pth` asks for more than a dict of tensors needs; nothing was executed."""


class ModelError(ConvertError):
    """The input is readable, but its tensors do not make up an RWKV version that we know."""


class OutputError(ConvertError):
    """The output cannot be written: it exists, its folder is not writable, the disk is full."""


DOWNLOAD_AGAIN = "Try to download it again"
"""The remedy for a file that is shorter than it says."""


def reason(error: Exception) -> str:
    """The system's words for an error, without Python's decoration."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def quote(text: object, limit: int = 100) -> str:
    """Text from a file, made safe for one line of an error message.

    Control characters are escaped, so that a file cannot forge lines or colours on a terminal.
    """
    try:
        shown = ascii(text) if isinstance(text, str) else str(text)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        shown = f"a {type(text).__name__}"
    shown = shown if shown.isascii() and shown.isprintable() else ascii(shown)
    return shown if len(shown) <= limit else shown[: limit - 4] + "...'"


def listing(names: list[str], limit: int = 6) -> str:
    """`'a', 'b', 'c' and 39 more`: names for an error message, however many there are."""
    if not names:
        return "nothing"
    shown = ", ".join(quote(name) for name in names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown
