"""The exceptions of this package: every one is a `RwkvError`."""

from __future__ import annotations

import re

__all__ = [
    "ConversionError",
    "EngineClosedError",
    "EngineFullError",
    "FetchError",
    "InternalError",
    "InvalidArgumentError",
    "KernelsError",
    "ModelFileError",
    "ModelOptionError",
    "NoTokenizerError",
    "OutOfMemoryError",
    "RwkvError",
    "StateFileError",
    "StateMismatchError",
    "TokenOutOfRangeError",
    "UnknownOptionError",
    "VocabularyError",
]


class RwkvError(Exception):
    """The root of the hierarchy; its text says where, what was expected, and what was found.

    Attributes:
        message: the facts: where, what, expected, got. No full stop at its end.
        remedy: what to do about it in Python, a sentence such as "Try Session(..., tokenizer=)";
            "" where there is nothing to advise. A command that shows the error says instead what
            to do on the command line.
    """

    def __init__(self, message: str, *, remedy: str = ""):
        super().__init__(f"{message}. {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class InvalidArgumentError(RwkvError, ValueError):
    """An argument breaks the contract of the function that was called."""


class UnknownOptionError(InvalidArgumentError, TypeError):
    """A keyword argument has a name that the function does not know; the nearest is in `remedy`."""


class TokenOutOfRangeError(RwkvError, IndexError):
    """A token is not one of the model's, the sampler's or the tokenizer's."""


class NoTokenizerError(InvalidArgumentError):
    """Text was given or asked for, and the session has no tokenizer."""


class StateMismatchError(InvalidArgumentError):
    """A state belongs to another model."""


class StateFileError(RwkvError):
    """A state file, or the file of a chat, cannot be read, understood or written."""


class ModelOptionError(InvalidArgumentError):
    """An option does not apply to the model that was opened with it."""


class ModelFileError(RwkvError):
    """A model file cannot be opened: it is missing, truncated, or not a model of a known kind.

    Attributes:
        path: the file, as it was given.
        tensor: the name of the tensor at fault, or None where it is not about one.
    """

    def __init__(
        self, message: str, path: str = "", tensor: str | None = None, *, remedy: str = ""
    ):
        super().__init__(message, remedy=remedy)
        self.path = path
        self.tensor = tensor


class ConversionError(RwkvError):
    """A checkpoint cannot be read, or a model file not be written."""


class VocabularyError(RwkvError):
    """A vocabulary cannot be read or understood."""


class KernelsError(RwkvError, RuntimeError):
    """`RWKV_KERNELS` names an instruction-set level that is unknown or not supported here."""


class EngineClosedError(RwkvError, RuntimeError):
    """An engine was used that is closed, or that was made before the process was forked."""


class EngineFullError(RwkvError, RuntimeError):
    """As many requests wait in line as the engine's `max_waiting` allows, or allows one client.

    Attributes:
        retry_seconds: after how long there may be a place, as it was lately.
    """

    def __init__(self, message: str, *, remedy: str = "", retry_seconds: float = 0.0):
        super().__init__(message, remedy=remedy)
        self.retry_seconds = retry_seconds


class FetchError(RwkvError):
    """A model is not known by its name, or cannot be fetched, converted or kept."""


class OutOfMemoryError(RwkvError, MemoryError):
    """The native library could not get the memory it needs."""


class InternalError(RwkvError, RuntimeError):
    """A fault of the native library: please report it."""


# By the numbers of rwkv_status in rwkv.h, which are fixed for ever.
_BY_STATUS: dict[int, type[RwkvError]] = {
    1: InvalidArgumentError,
    2: OutOfMemoryError,
    3: TokenOutOfRangeError,
    34: ModelOptionError,
    40: KernelsError,
    41: KernelsError,
    50: StateMismatchError,
    51: StateFileError,
    52: StateFileError,
    53: StateFileError,
    54: StateFileError,
    60: VocabularyError,
}
_FILE_STATUSES = range(20, 34)

# How the library's messages name a tensor.
_TENSOR = re.compile(r"\btensor '([^']*)'")


def error_of(status: int, message: str, remedy: str = "") -> RwkvError:
    """Return the exception for a status of the native library; `_core` raises it."""
    if status in _FILE_STATUSES:
        tensor = _TENSOR.search(message)
        return ModelFileError(message, tensor=tensor[1] if tensor else None, remedy=remedy)
    return _BY_STATUS.get(status, InternalError)(message, remedy=remedy)
