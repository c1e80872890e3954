"""What callers may give, checked at the door and turned into what `_core` takes."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from typing import SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidArgumentError, TokenOutOfRangeError

StrPath: TypeAlias = str | os.PathLike[str]
TokenSequence: TypeAlias = Sequence[int] | NDArray[np.integer]

_INT32 = np.iinfo(np.int32)


def as_path(path: StrPath) -> bytes:
    """Encode a path as the operating system wants it."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise InvalidArgumentError(f"path: expected no zero character, got {os.fspath(path)!r}")
    return encoded


def as_integer(name: str, value: int) -> int:
    """Check that the argument `name` is an integer."""
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name}: expected a whole number, got {value!r}") from None


def as_integers(name: str, values: Iterable[int]) -> list[int]:
    """Check that the argument `name` can be iterated over and gives integers."""
    try:
        iterator = iter(values)
    except TypeError:
        raise InvalidArgumentError(f"{name}: expected whole numbers, got {values!r}") from None
    return [as_integer(name, value) for value in iterator]


def as_bytes(name: str, text: str | bytes) -> bytes:
    """Encode text in UTF-8."""
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"{name}: expected Unicode characters, got the lone surrogate "
                f"{text[error.start]!r} at {error.start}. Try giving bytes."
            ) from None
    if isinstance(text, bytes):
        return text
    raise InvalidArgumentError(f"{name}: expected str or bytes, got {type(text).__name__}")


def as_stops(stop: str | bytes | Iterable[str | bytes]) -> list[bytes]:
    """Make the stop strings of `stop`, one or several, bytes: none of them empty."""
    if isinstance(stop, str | bytes):
        stop = [stop]
    try:
        iterator = iter(stop)
    except TypeError:
        raise InvalidArgumentError(
            f"stop: expected text, bytes or a list of them, got {stop!r}"
        ) from None
    stops = [as_bytes("stop", each) for each in iterator]
    if not all(stops):
        raise InvalidArgumentError("stop: expected no empty string, got one")
    return stops


def as_count(name: str, value: int, *, at_least: int = 0) -> int:
    """Check that the argument `name` is an integer, `at_least` or more."""
    count = as_integer(name, value)
    if count < at_least:
        raise InvalidArgumentError(f"{name}: expected {at_least} or more, got {count}")
    return count


def as_number(name: str, value: float) -> float:
    """Check that the argument `name` is a number; its range is checked where it is used."""
    if not isinstance(value, SupportsFloat):  # float() would take text
        raise InvalidArgumentError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):  # an array of several numbers
        raise InvalidArgumentError(f"{name}: expected a number, got {value!r}") from None
    except OverflowError:
        raise InvalidArgumentError(
            f"{name}: expected a number in the range of a double, got one outside it"
        ) from None


def as_token(token: int) -> int:
    """Check that `token` is an integer of 32 bits."""
    value = as_integer("token", token)
    if not 0 <= value <= _INT32.max:
        raise TokenOutOfRangeError(f"token {value}, expected 0 or more, and less than n_vocab")
    return value


def as_tokens(tokens: TokenSequence) -> NDArray[np.int32]:
    """Return the tokens as a contiguous int32 array (n_tokens,)."""
    array = np.asarray(tokens)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"tokens: expected a flat sequence of integers, got {array.dtype} of shape "
            f"{array.shape}"
        )
    if array.size and not (array.min() >= 0 and array.max() <= _INT32.max):
        bad = array[(array < 0) | (array > _INT32.max)][0]
        raise TokenOutOfRangeError(f"token {bad}, expected 0 or more, and less than n_vocab")
    return np.ascontiguousarray(array, np.int32)
