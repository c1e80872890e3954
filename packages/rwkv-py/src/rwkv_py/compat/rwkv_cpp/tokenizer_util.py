"""`tokenizer_util` of rwkv.cpp."""

from __future__ import annotations

import argparse
import os
import sys

from ...errors import InvalidArgumentError, VocabularyError
from ...tokenizer import Tokenizer
from .._json_tokenizer import open_json
from .rwkv_world_tokenizer import Decode, Encode, WorldTokenizer

__all__ = ["add_tokenizer_argument", "get_tokenizer"]

_BY_N_VOCAB = {50277: "20B", 65536: "world", 256: "bytes"}
_FILE_OF_20B = "20B_tokenizer.json"


def add_tokenizer_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument `tokenizer`, which may be left out, to a parser."""
    parser.add_argument(
        "tokenizer",
        nargs="?",
        default="auto",
        help="auto (by the number of tokens), world, 20B, bytes, or a vocabulary file",
    )


def get_tokenizer(tokenizer_name: str, n_vocab: int) -> tuple[Decode, Encode]:
    """Return two functions, to decode and to encode.

    Args:
        tokenizer_name: "world"; "20B", whose file 20B_tokenizer.json is looked for in the working
            folder and the script's (needs the package tokenizers); "bytes"; the path of a
            vocabulary, see `Tokenizer.open`; or "auto".
        n_vocab: how many tokens the model has, for "auto".

    Raises:
        ValueError: "auto", and the number of tokens tells nothing.
        VocabularyError: the file cannot be found, read or understood.
        ImportError: the package tokenizers is not installed.
    """
    if tokenizer_name == "auto":
        if n_vocab not in _BY_N_VOCAB:
            known = ", ".join(f"{n} ({name})" for n, name in _BY_N_VOCAB.items())
            raise InvalidArgumentError(
                f"tokenizer_name: auto, expected {known} tokens, got {n_vocab}"
            )
        tokenizer_name = _BY_N_VOCAB[n_vocab]
    if tokenizer_name == "20B":
        tokenizer = open_json(_path_of_20b())
        return tokenizer.decode, lambda text: list(tokenizer.encode(text).ids)
    opened = WorldTokenizer(Tokenizer.named(tokenizer_name))
    return opened.decode, opened.encode


def _path_of_20b() -> str:
    folders = [os.curdir, os.path.dirname(os.path.abspath(sys.argv[0]))]
    for folder in folders:
        path = os.path.join(folder, _FILE_OF_20B)
        if os.path.isfile(path):
            return path
    raise VocabularyError(
        f"20B: expected the file {_FILE_OF_20B} in {' or '.join(map(os.path.abspath, folders))}, "
        "found none",
        remedy="Try copying rwkv.cpp's own there",
    )
