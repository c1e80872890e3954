"""From what a user names to a vocabulary: a file of any kind, or the folder of a model."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _core
from ._arguments import StrPath, as_path
from ._files import kind_of
from .added_tokens import added_tokens_of, with_added_tokens
from .character_vocabulary import character_vocabulary, is_character_table
from .errors import ModelFileError, VocabularyError
from .json_vocabulary import json_vocabulary
from .vocabulary import Vocabulary, native_vocabulary

__all__ = ["ACCEPTED", "open_vocabulary"]

ACCEPTED = (
    "a vocabulary in the World format (rwkv_vocab_v20230424.txt), a tokenizer.json, a vocab.json "
    "of RWKV-LM's character mode, or a folder with one of them"
)
BUILT_IN = "Try 'world' or 'bytes' for the tokenizers that are built in"

_MAX_JSON_BYTES = 64 << 20
_HEAD_BYTES = 256

_WORLD_LINE = re.compile(rb"(\xef\xbb\xbf)?\d+ +b?['\"]")

# What people have in the place of a vocabulary, by its beginning; the first that matches is named.
_OTHERS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\Z"), "an empty file"),
    (re.compile(rb"\s*<(!doctype|!--|html|\?xml|head)", re.IGNORECASE), "a web page"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer"),
    (re.compile(rb"#version"), "a list of merges"),
    (re.compile(rb"\n.\n.<unk>", re.DOTALL), "a SentencePiece model"),
    (re.compile(rb"GGUF|fmgg|tjgg|lmgg"), "a model file"),
    (re.compile(rb"PK\x03\x04|\x80"), "a checkpoint or an archive"),
    (re.compile(rb".{7}\0\{", re.DOTALL), "a checkpoint"),
)  # fmt: skip


def open_vocabulary(path: StrPath) -> Vocabulary:
    """Read the vocabulary that a path leads to; `Tokenizer.open` says of what kinds.

    Raises:
        VocabularyError: there is none, or it cannot be understood.
        ImportError: the package `tokenizers` is needed, and not installed.
    """
    encoded = as_path(path)
    name = os.fsdecode(encoded)
    try:
        mode = os.stat(encoded).st_mode
        if stat.S_ISDIR(mode):
            return _of_folder(Path(name))
        if stat.S_ISREG(mode):  # opening a named pipe would wait for its writer
            return _of_file(name, encoded)
    except OSError as error:
        raise VocabularyError(
            f"{name or repr(name)}: cannot be opened: {error.strerror}, expected {ACCEPTED}",
            remedy=BUILT_IN,
        ) from None
    raise VocabularyError(f"{name}: expected {ACCEPTED}, got {kind_of(mode)}", remedy=BUILT_IN)


def _of_file(name: str, encoded: bytes) -> Vocabulary:
    with open(encoded, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if _WORLD_LINE.match(head):
        return _world_file(encoded)
    if _text_of(head, "replace").lstrip()[:1] == "{":
        return _of_json(name, *_read_json(name, encoded))
    got = f"a file that begins with {head[:16].decode('latin-1')!a}"
    for pattern, kind in _OTHERS:
        if pattern.match(head):
            got = kind
            break
    raise VocabularyError(
        f"{name}: not a vocabulary, expected {ACCEPTED}, got {got}", remedy=BUILT_IN
    )


def _world_file(encoded: bytes) -> Vocabulary:
    try:
        return native_vocabulary(_core.Tokenizer.open(encoded))
    except ModelFileError as error:
        raise VocabularyError(error.message, remedy=error.remedy) from None


def _of_json(name: str, text: str, table: dict[str, Any]) -> Vocabulary:
    if isinstance(table.get("model"), dict):
        return json_vocabulary(name, text, table)
    if is_character_table(table):
        return character_vocabulary(name, table)
    got = "a JSON object of another kind"
    if table and all(isinstance(value, int) for value in table.values()):
        got = "numbers by text, as beside a tokenizer.json"
    elif "added_tokens_decoder" in table or "tokenizer_class" in table:
        got = "the settings of a tokenizer, which its folder may hold"
    raise VocabularyError(
        f"{name}: not a vocabulary, expected {ACCEPTED}, got {got}", remedy=BUILT_IN
    )


def _of_folder(folder: Path) -> Vocabulary:
    """Return the vocabulary of a folder, as transformers saves it, with the tokens added to it."""
    names = sorted(os.listdir(folder))
    for pattern in (r"tokenizer\.json", _WORLD_NAME, r"vocab\.json"):
        found = [name for name in names if re.fullmatch(pattern, name)]
        if len(found) == 1:
            vocabulary = open_vocabulary(folder / found[0])
            takes_more = pattern is _WORLD_NAME and vocabulary.is_context_free
            return _with_added(folder, names, vocabulary) if takes_more else vocabulary
    shown = ", ".join(ascii(name) for name in names[:6]) or "nothing"
    raise VocabularyError(
        f"{folder}: expected a folder with a tokenizer.json, a rwkv_vocab_v20230424.txt or a "
        f"vocab.json, got {shown}{' and more' if len(names) > 6 else ''}",
        remedy=BUILT_IN,
    )


_WORLD_NAME = r"rwkv_vocab\w*\.txt|vocab\.txt"


def _with_added(folder: Path, names: list[str], vocabulary: Vocabulary) -> Vocabulary:
    added: dict[int, str] = {}
    for name, described_in in _ADDED.items():
        if name in names:
            where = str(folder / name)
            _, table = _read_json(where, os.fsencode(where))
            for token, text in added_tokens_of(where, described_in(table)).items():
                if added.setdefault(token, text) != text:
                    raise VocabularyError(
                        f"{where}: added token {token}, expected {added[token][:40]!a} as in "
                        f"tokenizer_config.json, got {text[:40]!a}"
                    )
    return with_added_tokens(str(folder), vocabulary, added) if added else vocabulary


# The files beside a vocabulary that tell of added tokens, and how: objects by number, or numbers by
# text.
_ADDED: dict[str, Callable[[dict[str, Any]], object]] = {
    "tokenizer_config.json": lambda table: table.get("added_tokens_decoder", {}),
    "added_tokens.json": lambda table: {
        str(token): {"content": text} for text, token in table.items()
    },
}


def _read_json(name: str, encoded: bytes) -> tuple[str, dict[str, Any]]:
    """Return a JSON object, as text and parsed; UTF-8, or UTF-16 with its mark."""
    with open(encoded, "rb") as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise VocabularyError(f"{name}: expected at most {_MAX_JSON_BYTES} bytes of JSON, got more")
    try:
        text = _text_of(data)
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{name}: expected JSON, got something else: {error}") from None
    if not isinstance(value, dict):
        raise VocabularyError(f"{name}: expected a JSON object, got another value")
    return text, value


def _text_of(data: bytes, errors: str = "strict") -> str:
    """Return text in UTF-8 or UTF-16, with or without the mark at its beginning."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors)
    if b"\0" in data[:2]:  # a brace or a space, and a zero beside it
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors)
    return data.decode("utf-8-sig", errors)
