"""The vocabulary that a GGUF file holds, as llama.cpp's tokenizer `rwkv` wants it.

A token is its bytes as Python writes them, without the quotes. In a World
vocabulary token 0 ends a text, and numbers that no token has are filled up with names. Where the
vocabulary has 256 tokens, each is the byte of its number.
"""

from __future__ import annotations

import ast
import os
import warnings
from pathlib import Path

from .errors import CheckpointError, OptionError, quote
from .gguf_values import GgufValue, int32s, string, strings, uint32
from .input_file import InputFile

WORLD_TOKENS = 65536
BYTE_TOKENS = 256
WORLD_FILE = Path(__file__).with_name("rwkv_vocab_v20230424.txt")
"""The build puts it there."""
CHAT_TEMPLATE = "rwkv-world"
"""llama.cpp's name for the format that World models were trained on."""

MAX_FILE_BYTES = 16 << 20
MAX_LINE = 4096

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
_END_OF_TEXT = 0
_END_OF_TURN = b"\n\n"


def vocabulary_values(
    n_vocab: int, tokenizer: str | os.PathLike[str] | None
) -> dict[str, GgufValue]:
    """What a GGUF file says of the vocabulary.

    Args:
        n_vocab: its size.
        tokenizer: a file in the World format; None for the World vocabulary itself where n_vocab
            is 65536, and for bytes where it is 256.

    Raises:
        OptionError: another size, and no file.
        CheckpointError: the file cannot be read, or holds tokens beyond n_vocab.
    """
    if tokenizer is None and n_vocab == BYTE_TOKENS:
        tokens = [_escaped(bytes([i])) for i in range(BYTE_TOKENS)]
        return _values(tokens, [_NORMAL] * BYTE_TOKENS)
    if tokenizer is None and n_vocab != WORLD_TOKENS:
        raise OptionError(
            "tokenizer",
            f"expected a file with the vocabulary of {n_vocab} tokens, in the World format, got "
            f"none: it is known for {WORLD_TOKENS} (World) and {BYTE_TOKENS} (bytes)",
        )
    found = _read(Path(WORLD_FILE if tokenizer is None else tokenizer), n_vocab)
    found.setdefault(_END_OF_TEXT, b"")
    tokens, types = [], []
    for i in range(n_vocab):
        if i == _END_OF_TEXT and not found[i]:
            tokens.append(b"<s>")
            types.append(_CONTROL)
        elif i in found:
            tokens.append(_escaped(found[i]))
            types.append(_NORMAL)
        else:
            tokens.append(f"[PAD{i}]".encode())
            types.append(_UNUSED)
    values = _values(tokens, types)
    end_of_turn = next((i for i, token in found.items() if token == _END_OF_TURN), None)
    if end_of_turn is not None:
        values["tokenizer.ggml.eot_token_id"] = uint32(end_of_turn)
        values["tokenizer.chat_template"] = string(CHAT_TEMPLATE)
    return values


def _values(tokens: list[bytes], types: list[int]) -> dict[str, GgufValue]:
    return {
        "tokenizer.ggml.model": string("rwkv"),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.token_type": int32s(types),
        "tokenizer.ggml.bos_token_id": uint32(_END_OF_TEXT),
        "tokenizer.ggml.eos_token_id": uint32(_END_OF_TEXT),
    }


def _escaped(token: bytes) -> bytes:
    return repr(token)[2:-1].encode()


def _literal(text: str) -> object:
    """The value of a Python literal; an escape that Python only warns of is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value: object = ast.literal_eval(text)
        return value


def _read(path: Path, n_vocab: int) -> dict[int, bytes]:
    """The tokens of a file of lines `ID LITERAL LENGTH`, by number."""
    with InputFile(path) as file:
        if file.size > MAX_FILE_BYTES:
            raise CheckpointError(
                f"{path}: a vocabulary, expected at most {MAX_FILE_BYTES} bytes, got {file.size}"
            )
        data = file.read(0, file.size)
    found: dict[int, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        where = f"{path}: line {number}"
        first, _, rest = line.partition(b" ")
        literal, _, length = rest.rpartition(b" ")
        try:
            if len(line) > MAX_LINE:
                raise ValueError
            token = _literal(literal.strip().decode())
            id, size = int(first), int(length)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise CheckpointError(
                f"{where}, expected ID LITERAL LENGTH, got {quote(line.decode('latin-1'))}"
            ) from None
        token = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
        if not isinstance(token, bytes) or len(token) != size or not token:
            raise CheckpointError(
                f"{where}, expected a token of {size} bytes, got {quote(line.decode('latin-1'))}"
            )
        if not 0 <= id < n_vocab or id in found:
            raise CheckpointError(
                f"{where}, expected each number below {n_vocab} once, got {quote(id)}"
            )
        found[id] = token
    return found
