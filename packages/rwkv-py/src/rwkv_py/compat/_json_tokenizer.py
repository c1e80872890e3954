"""A `tokenizer.json`, such as 20B's, as the package tokenizers reads it."""

from __future__ import annotations

from typing import Any

from ..errors import VocabularyError

__all__ = ["open_json"]


def open_json(path: str) -> Any:
    """Return the `tokenizers.Tokenizer` of a file.

    Raises:
        ImportError: the package tokenizers is not installed.
        VocabularyError: the file cannot be read or understood.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            f"{path}: expected the package tokenizers to read it, found none. Try `pip install "
            "rwkv-py[tokenizers]`"
        ) from error
    try:
        return Tokenizer.from_file(path)
    # The package raises a plain Exception for whatever is wrong with a file.
    except Exception as error:
        raise VocabularyError(f"{path}: expected a tokenizer.json, got: {error}") from error
