"""What an answer has besides what was asked for: names, a time, how much was not read again."""

from __future__ import annotations

import hashlib
import secrets
import time

__all__ = ["Marks", "RepeatableMarks"]


class Marks:
    """Of an answer that is made once: each name is another, and the time is now."""

    @property
    def created(self) -> int:
        """When the answer is made, in seconds since 1970."""
        return int(time.time())

    def new_id(self, kind: str) -> str:
        """Return a name for something: `kind`, such as "call_", and 24 digits."""
        return kind + secrets.token_hex(12)

    def cached(self, n_tokens: int) -> int:
        """Return how many tokens of a prompt are told not to have been read again."""
        return n_tokens


class RepeatableMarks(Marks):
    """Of an answer that is the same, to the byte, whenever and beside whatever it is made.

    Args:
        key: what tells it from others.
        created: the time that it says.
    """

    def __init__(self, key: bytes, created: int):
        self._key = key
        self._created = created
        self._n_named = 0

    @property
    def created(self) -> int:
        """The time that was given."""
        return self._created

    def new_id(self, kind: str) -> str:
        """Return the next name, which follows from the key and the number of names before it."""
        self._n_named += 1
        number = self._n_named.to_bytes(8, "little")
        return kind + hashlib.blake2b(self._key + number, digest_size=12).hexdigest()

    def cached(self, n_tokens: int) -> int:
        """Return 0: what was spared depends on what else was read."""
        return 0
