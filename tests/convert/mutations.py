"""Changes of files for fuzzing: of bytes anywhere, and of a GGUF file where its structure is."""

import random
import struct

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, *b"().N}]qrhRQbuse\x85\x86\x93\x94\x8a"]
NUMBERS = [0, 1, 2, 7, 31, 32, 33, 255, 4096, 2**20, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1]


def mutate(data: bytes, numbers: random.Random) -> bytes:
    """A few random changes, most of them where the structure is: near the ends."""
    changed = bytearray(data)
    for _ in range(numbers.randint(1, 8)):
        if not changed:
            break
        near = numbers.choice([len(changed), 4000, 300])
        at = numbers.randrange(min(len(changed), near))
        if numbers.random() < 0.3:
            at = len(changed) - 1 - at
        action = numbers.randrange(6)
        if action < 3:
            changed[at] = numbers.choice([*INTERESTING, numbers.randrange(256)])
        elif action == 3:
            changed[at : at + 4] = numbers.choice([b"\xff" * 4, bytes(4), b"\0\0\0\x80"])
        elif action == 4:
            del changed[at : at + numbers.choice([1, 2, 8, 100])]
        else:
            start = numbers.randrange(len(changed))
            changed[at:at] = changed[start : start + numbers.choice([1, 4, 30])]
    if numbers.random() < 0.1:
        del changed[numbers.randrange(len(changed) + 1) :]
    return bytes(changed)


# --------------------------------------------------------------------------------------------------
# GGUF: keys with values, then a table of tensors, then their data

_FORMATS = "BbHhIif?__QqdN"  # by the type's number; 8 is a string, 9 an array
_STRING, _ARRAY = 8, 9
_KEYS = [
    *(f"general.{name}" for name in ("architecture", "alignment", "name")),
    *(f"split.{name}" for name in ("no", "count", "tensors.count")),
    *(
        f"rwkv{version}.{name}"
        for version in (6, 7)
        for name in ("embedding_length", "block_count", "wkv.head_size", "rescale_every_n_layers")
    ),
    *(f"tokenizer.ggml.{name}" for name in ("model", "tokens", "token_type", "eos_token_id")),
    "tokenizer.chat_template",
]
_TEXTS = [b"", b"rwkv", b"rwkv7", b"rwkv6", b"gpt2", b"\\x", b"\\xe4\\xb8", b"\xff\xfe", b"\x1b[2J"]


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) < count:
            raise ValueError("the file ends")
        self.at += count
        return piece

    def number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0])

    def text(self) -> bytes:
        return self.take(self.number("Q"))

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.text()
        elif kind == _ARRAY:
            each, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip_value(each)
        else:
            self.take(struct.calcsize(f"<{_FORMATS[kind]}"))


def _value(kind: int, numbers: random.Random, depth: int = 0) -> bytes:
    """A value of a type, of few bytes."""
    if kind == _STRING:
        text = numbers.choice(_TEXTS)
        return struct.pack("<Q", len(text)) + text
    if kind == _ARRAY and depth < 3:
        each, count = numbers.randrange(14), numbers.randrange(12)
        values = b"".join(_value(each, numbers, depth + 1) for _ in range(count))
        return struct.pack("<IQ", each, count) + values
    size = struct.calcsize(f"<{_FORMATS[kind]}") if kind not in (_STRING, _ARRAY, 13) else 1
    return struct.pack("<Q", numbers.choice(NUMBERS))[:size]


def mutate_gguf(data: bytes, numbers: random.Random) -> bytes:
    """Changes keys, values and tensors, and writes a file whose other parts are right."""
    cursor = _Cursor(data)
    cursor.take(4)
    version, n_tensors, n_keys = (cursor.number(kind) for kind in "IQQ")
    keys = []
    for _ in range(n_keys):
        name, begin = cursor.text(), cursor.at
        cursor.skip_value(cursor.number("I"))
        keys.append([name, data[begin : cursor.at]])
    tensors = []
    for _ in range(n_tensors):
        name, n_dims = cursor.text(), cursor.number("I")
        shape = [cursor.number("Q") for _ in range(n_dims)]
        tensors.append([name, shape, cursor.number("I"), cursor.number("Q")])
    payload = data[(cursor.at + 31) // 32 * 32 :]

    for _ in range(numbers.randint(1, 3)):
        action = numbers.randrange(10)
        key, tensor, other = (numbers.choice(x) for x in (keys, tensors, tensors))
        if action <= 2:
            kind = numbers.randrange(14)
            changed = struct.pack("<I", kind) + _value(kind, numbers)
            name = numbers.choice(_KEYS).encode()
            keys = [k for k in keys if k[0] != name] + [[name, changed]]
        elif action == 3 and len(keys) > 1:
            keys.remove(key)
        elif action == 4:
            keys.append(list(key))
        elif action == 5:
            tensor[1] = [*tensor[1]]
            tensor[1][numbers.randrange(len(tensor[1]))] = numbers.choice(NUMBERS)
        elif action == 6:
            tensor[2] = numbers.randrange(42)
        elif action == 7:
            tensor[0], other[0] = other[0], tensor[0]
        elif action == 8:
            tensor[3] = numbers.choice([*NUMBERS, other[3]])
        elif len(tensors) > 1:
            tensors.remove(tensor)

    table = struct.pack("<IQQ", version, len(tensors), len(keys))
    for name, value in keys:
        table += struct.pack("<Q", len(name)) + name + value
    for name, shape, kind, offset in tensors:
        table += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
        table += struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)
    table = b"GGUF" + table
    return table + bytes(-len(table) % 32) + payload
