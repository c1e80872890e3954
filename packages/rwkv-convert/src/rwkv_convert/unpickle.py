"""A reader of pickles that executes nothing.

A pickle is a program for a small stack machine; Python's own machine imports and calls whatever the
program names. This one knows the opcodes that a dict of tensors needs, with what trainers keep
beside them, and instead of calling a global it looks its name up in a table of constructors given
by the caller. Anything else is refused by name. Time and memory are bounded by the number of
opcodes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import CheckpointError, UnsafePickleError, quote

MAX_OPCODES: Final = 500_000
"""Enough for 8 000 tensors of about 60 opcodes; a model of 100 layers has 3 500 tensors. An opcode
of one byte may cost 100 bytes of memory."""
MAX_STACK: Final = 50_000
"""Pickles of dicts hold up to 2 000 items on the stack."""
MAX_MARKS: Final = 64
"""Containers that are open at the same time."""
MAX_INT_BYTES: Final = 16

Constructor = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Global:
    """A global that a pickle names: never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Stands for a value that nobody needs: it was not made."""

    kind: str


class RebuildError(Exception):
    """A constructor was given what it cannot use; the message says what."""


class Unpickler:
    """Reads one pickle of a byte string.

    Attributes:
        position: where the pickle ends, after `load`.
    """

    def __init__(
        self,
        data: bytes,
        position: int,
        where: str,
        *,
        constants: Mapping[Global, Any],
        constructors: Mapping[Global, Constructor],
        load_persistent: Callable[[Any], Any],
    ) -> None:
        """Prepares to read.

        Args:
            data: what holds the pickle.
            position: where it begins.
            where: the beginning of every error message.
            constants: globals that stand for a value.
            constructors: globals that may be called, and what is called in their place.
            load_persistent: gives the value of a persistent id.
        """
        self.position = position
        self._data = data
        self._where = where
        self._constants = constants
        self._constructors = constructors
        self._load_persistent = load_persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Runs the program up to STOP and returns its value.

        Raises:
            UnsafePickleError: it needs an opcode or a global that a dict of tensors does not.
            CheckpointError: it is damaged.
        """
        for _ in range(MAX_OPCODES):
            at = self.position
            opcode = self._take(1)
            if opcode == b".":
                return self._pop()
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                name = _REFUSED.get(opcode, f"0x{opcode.hex()}")
                raise UnsafePickleError(
                    f"{self._where}: pickle opcode {name} at byte {at} is refused, "
                    "a checkpoint of tensors needs none"
                )
            operation(self)
            if len(self._stack) > MAX_STACK:
                raise UnsafePickleError(
                    f"{self._where}: pickle holds more than {MAX_STACK} values on its stack"
                )
        raise UnsafePickleError(f"{self._where}: pickle has more than {MAX_OPCODES} opcodes")

    # -- the machine ------------------------------------------------------------------------------

    def _damaged(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self._where}: damaged pickle, {problem} at byte {self.position}")

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise self._damaged(
                f"expected {count} more bytes, got {len(self._data) - self.position}"
            )
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _number(self, format: str) -> int:
        value: int = struct.unpack("<" + format, self._take(struct.calcsize(format)))[0]
        return value

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self._damaged("expected text in UTF-8, got other bytes") from None

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + 1000)
        if end < 0:
            raise self._damaged("expected the end of a line")
        text = self._text(end - self.position)
        self.position += 1
        return text

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        # A value below the innermost mark belongs to a container that is still open.
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._damaged("expected a value on the stack, got none")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise self._damaged("expected an open container, got none")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _top(self, kind: type) -> Any:
        value = self._pop()
        if not isinstance(value, kind):
            raise self._damaged(f"expected a {kind.__name__}, got a {type(value).__name__}")
        self._stack.append(value)
        return value

    # -- opcodes ----------------------------------------------------------------------------------

    def _proto(self) -> None:
        version = self._number("B")
        if not 2 <= version <= 5:
            raise self._damaged(f"expected protocol 2 to 5, got {version}")

    def _frame(self) -> None:
        self._take(8)  # the frame's length: a hint for buffering

    def _mark(self) -> None:
        if len(self._marks) == MAX_MARKS:
            raise UnsafePickleError(f"{self._where}: pickle nests more than {MAX_MARKS} containers")
        self._marks.append(len(self._stack))

    def _long(self) -> None:
        length = self._number("B")
        if length > MAX_INT_BYTES:
            raise self._damaged(f"expected an integer of at most {MAX_INT_BYTES} bytes")
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    def _float(self) -> None:
        self._push(struct.unpack(">d", self._take(8))[0])

    def _bytes(self, length: int) -> None:
        self._take(length)
        self._push(PassedOver("bytes"))

    def _tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._push(tuple(reversed(values)))

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self) -> None:
        values = self._pop_mark()
        self._top(list).extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._top(dict)
        if len(pairs) % 2:
            raise self._damaged("expected keys and values in pairs")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int):  # a nested tuple's hash would recurse
                raise self._damaged(f"expected a dict key of text, got a {type(key).__name__}")
            target[key] = value

    def _set_item(self) -> None:
        value = self._pop()
        key = self._pop()
        self._set([key, value])

    def _set_items(self) -> None:
        self._set(self._pop_mark())

    def _put(self, index: int) -> None:
        # A pickler numbers its values as it meets them, so an index is smaller than the pickle.
        if index >= len(self._data):
            raise UnsafePickleError(
                f"{self._where}: pickle memo index {index} is larger than the pickle"
            )
        self._push(value := self._pop())
        self._memo[index] = value

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise self._damaged(f"expected memo entry {index} to exist")
        self._push(self._memo[index])

    def _global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._damaged("expected the name of a global")
        found = Global(module, name)
        if found in self._constants:
            self._push(self._constants[found])
        elif found in self._constructors:
            self._push(found)
        else:
            raise UnsafePickleError(
                f"{self._where}: pickle names the global {quote(found)}, which is refused, a "
                "checkpoint of tensors needs none; nothing was executed",
                remedy="Try to save the model's state_dict alone",
            )

    def _stack_global(self) -> None:
        name = self._pop()
        self._global(self._pop(), name)

    def _reduce(self) -> None:
        arguments = self._pop()
        function = self._pop()
        if not isinstance(function, Global):
            raise UnsafePickleError(
                f"{self._where}: pickle calls a {type(function).__name__}, which is refused"
            )
        if not isinstance(arguments, tuple):
            raise self._damaged(f"expected arguments of {function} in a tuple")
        try:
            self._push(self._constructors[function](*arguments))
        except (RebuildError, TypeError) as error:
            problem = str(error) if isinstance(error, RebuildError) else "wrong arguments"
            raise self._damaged(f"{function}: {problem}") from None

    def _build(self) -> None:
        # A state_dict is an OrderedDict with an attribute `_metadata`: of no use to us.
        state = self._pop()
        if self._stack and isinstance(self._stack[-1], PassedOver):
            return
        if not isinstance(state, dict) or not isinstance(self._top(dict), dict):
            raise self._damaged("expected attributes of a dict")

    def _persistent(self) -> None:
        try:
            self._push(self._load_persistent(self._pop()))
        except RebuildError as error:
            raise self._damaged(str(error)) from None


_OPERATIONS: dict[bytes, Callable[[Unpickler], None]] = {
    b"\x80": lambda m: m._proto(),
    b"\x95": lambda m: m._frame(),
    b"(": lambda m: m._mark(),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"J": lambda m: m._push(m._number("i")),
    b"K": lambda m: m._push(m._number("B")),
    b"M": lambda m: m._push(m._number("H")),
    b"\x8a": lambda m: m._long(),
    b"G": lambda m: m._float(),
    b"X": lambda m: m._push(m._text(m._number("I"))),
    b"\x8c": lambda m: m._push(m._text(m._number("B"))),
    b"U": lambda m: m._push(m._text(m._number("B"))),  # Python 2's str
    b")": lambda m: m._push(()),
    b"t": lambda m: m._push(tuple(m._pop_mark())),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"B": lambda m: m._bytes(m._number("I")),
    b"C": lambda m: m._bytes(m._number("B")),
    b"]": lambda m: m._push([]),
    b"\x8f": lambda m: m._push([]),  # a set, of which nobody asks what is in it
    b"\x90": lambda m: m._appends(),
    b"\x91": lambda m: m._push(tuple(m._pop_mark())),
    b"a": lambda m: m._append(),
    b"e": lambda m: m._appends(),
    b"}": lambda m: m._push({}),
    b"s": lambda m: m._set_item(),
    b"u": lambda m: m._set_items(),
    b"q": lambda m: m._put(m._number("B")),
    b"r": lambda m: m._put(m._number("I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"h": lambda m: m._get(m._number("B")),
    b"j": lambda m: m._get(m._number("I")),
    b"c": lambda m: m._global(m._line(), m._line()),
    b"\x93": lambda m: m._stack_global(),
    b"R": lambda m: m._reduce(),
    b"\x81": lambda m: m._reduce(),  # a class takes the place of a function
    b"b": lambda m: m._build(),
    b"Q": lambda m: m._persistent(),
}
"""What the machine knows."""

_REFUSED = {
    b"0": "POP",
    b"1": "POP_MARK",
    b"2": "DUP",
    b"F": "FLOAT",
    b"I": "INT",
    b"L": "LONG",
    b"P": "PERSID",
    b"S": "STRING",
    b"T": "BINSTRING",
    b"V": "UNICODE",
    b"d": "DICT",
    b"g": "GET",
    b"i": "INST",
    b"l": "LIST",
    b"o": "OBJ",
    b"p": "PUT",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"\x8b": "LONG4",
    b"\x8d": "BINUNICODE8",
    b"\x8e": "BINBYTES8",
    b"\x92": "NEWOBJ_EX",
    b"\x96": "BYTEARRAY8",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}
"""Opcodes that we leave out, for the message."""
