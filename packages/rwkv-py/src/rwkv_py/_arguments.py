"""What callers may give, checked at the door and turned into what `_core` takes."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsFloat, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidArgumentError, StateMismatchError, TokenOutOfRangeError

StrPath: TypeAlias = str | os.PathLike[str]
TokenSequence: TypeAlias = Sequence[int] | NDArray[np.integer]
# Tokens inside this package: int32 (n_tokens,), made by `as_tokens`, read-only and our own.
Tokens: TypeAlias = NDArray[np.int32]

_T = TypeVar("_T")

_INT32 = np.iinfo(np.int32)


def as_path(path: StrPath) -> bytes:
    """Encode a path as the operating system wants it; one of bytes is taken as it is."""
    try:
        encoded = os.fsencode(path)
    except TypeError:
        raise InvalidArgumentError(
            f"path: expected str or os.PathLike, got {type(path).__name__}: {reprlib.repr(path)}"
        ) from None
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            f"path: expected characters that a file's name can have here, got {path!r}"
        ) from None
    if b"\0" in encoded:
        raise InvalidArgumentError(f"path: expected no zero character, got {os.fspath(path)!r}")
    return encoded


def as_integer(name: str, value: int) -> int:
    """Check that the argument `name` is an integer: True and False are none here."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name}: expected a whole number, got {value!r}") from None


def as_iterable(name: str, values: Iterable[_T], of: str = "several") -> Iterator[_T]:
    """Check that the argument `name` can be iterated over: that it is several of something."""
    try:
        return iter(values)
    except TypeError:
        raise InvalidArgumentError(f"{name}: expected {of}, got {values!r}") from None


def as_integers(name: str, values: Iterable[int]) -> list[int]:
    """Check that the argument `name` can be iterated over and gives integers."""
    return [as_integer(name, value) for value in as_iterable(name, values, "whole numbers")]


def as_bytes(name: str, text: str | bytes) -> bytes:
    """Encode text in UTF-8."""
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"{name}: expected Unicode characters, got the lone surrogate "
                f"{text[error.start]!r} at {error.start}",
                remedy="Try giving bytes",
            ) from None
    if isinstance(text, bytes):
        return text
    raise InvalidArgumentError(
        f"{name}: expected str or bytes, got {type(text).__name__}: {reprlib.repr(text)}"
    )


def as_text(name: str, value: str) -> str:
    """Check that the argument `name` is a text that a tokenizer can take."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name}: expected str, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{name}: expected Unicode characters, got the lone surrogate {value[error.start]!r} "
            f"at {error.start}"
        ) from None
    return value


def as_stops(stop: str | bytes | Iterable[str | bytes]) -> list[bytes]:
    """Make the stop strings of `stop`, one or several, bytes: none of them empty."""
    if isinstance(stop, str | bytes):
        stop = [stop]
    several = as_iterable("stop", stop, "text, bytes or a list of them")
    stops = [as_bytes("stop", each) for each in several]
    if not all(stops):
        raise InvalidArgumentError("stop: expected no empty string, got one")
    return stops


def as_count(name: str, value: int, *, at_least: int = 0, at_most: int | None = None) -> int:
    """Check that the argument `name` is an integer, `at_least` or more, and `at_most`, if given."""
    count = as_integer(name, value)
    if count < at_least or (at_most is not None and count > at_most):
        expected = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"
        raise InvalidArgumentError(f"{name}: expected {expected}, got {count}")
    return count


def as_number(name: str, value: float) -> float:
    """Check that the argument `name` is a number; its range is checked where it is used."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):  # float() would take text
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
        raise TokenOutOfRangeError(f"token: expected 0 or more, less than n_vocab, got {value}")
    return value


def as_tokens(tokens: TokenSequence, n_vocab: int = _INT32.max + 1) -> Tokens:
    """Return the tokens, each below `n_vocab`, as an array that nobody else can write."""
    try:
        # First the copy: what is checked is then what is used, whatever the caller does meanwhile.
        array = np.array(tokens)
    except (ValueError, TypeError, OverflowError):  # lists of different lengths in a list
        array = np.array(None)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"tokens: expected a flat sequence of integers, got {_described(tokens, array)}"
        )
    outside = (array < 0) | (array >= n_vocab)
    if outside.any():
        place = int(outside.argmax())
        expected = (
            "0 or more" if n_vocab > _INT32.max else f"one of the vocabulary, 0 to {n_vocab - 1}"
        )
        raise TokenOutOfRangeError(f"tokens[{place}]: expected {expected}, got {array[place]}")
    owned = array.astype(np.int32, order="C", copy=False)
    owned.flags.writeable = False
    return owned


def one_token(token: int) -> Tokens:
    """Return a token that is known to be right as such an array: sooner than `as_tokens` does."""
    array = np.array((token,), np.int32)
    array.flags.writeable = False
    return array


def _described(value: object, array: NDArray[Any]) -> str:
    if array.ndim == 0 or array.dtype.kind == "O":
        return f"{type(value).__name__}: {reprlib.repr(value)}"
    return f"{array.dtype} of shape {array.shape}"


def as_floats(where: str, values: object) -> NDArray[np.float32]:
    """Return numbers of a state as an array of our own."""
    try:
        return np.array(values, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise StateMismatchError(
            f"{where}: expected numbers, in layers of one shape, got others: {error}"
        ) from None
