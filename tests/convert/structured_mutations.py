"""Changes where a file's structure is: opcodes of pickles, entries of zip tables, values of JSON.

What is around them stays right, so that the change is what the reader meets.
"""

import functools
import json
import pickletools
import random
import struct
from collections.abc import Callable
from typing import Any

from convert.checkpoint_writers import global_, integer, text
from convert.mutations import NUMBERS, mutate, mutate_gguf

Numbers = random.Random
TEXTS = [
    "",
    "storage",
    "cpu",
    "0",
    "blocks.0.att.r_k",
    "blocks.1.ln1.weight",
    "model.layers.0.attn.x_x",
    "emb.weight",
    "..",
    "../a",
    "a\0b",
    "\x1b[2J",
    "é" * 40,
    "x" * 5000,
    "module." * 60,
]
FLOATS = [0.0, -1.5, 1e-5, 1e308, float("inf"), float("nan")]

# --------------------------------------------------------------------------------------------------
# Pickles

GLOBALS = [
    global_(*name.rsplit(".", 1))
    for name in (
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch.FloatStorage",
        "torch.storage.UntypedStorage",
        "torch.float8_e5m2",
        "torch.Size",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.deque",
        "argparse.Namespace",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "builtins.set",
        "builtins.list",
        "builtins.eval",
        "os.system",
    )
]
ONE_BYTE = [
    bytes([opcode]) for opcode in b"().N\x88\x89)t\x85\x86\x87]ae}su\x94\x93Rb\x81Q\x8f\x90\x91"
]


@functools.cache
def _operations(pickle: bytes) -> tuple[bytes, ...]:
    """The opcodes with their arguments; what is after the pickle is the last."""
    starts = [at for _, _, at in pickletools.genops(pickle)]
    ends = [*starts[1:], starts[-1] + 1]
    pieces = [pickle[a:b] for a, b in zip(starts, ends, strict=True)]
    return (*pieces, pickle[ends[-1] :])


def _new_operation(numbers: Numbers) -> bytes:
    kind = numbers.randrange(5)
    if kind == 0:
        return numbers.choice(GLOBALS)
    if kind == 1:
        return integer(numbers.choice([*NUMBERS, -1, -(2**63)]))
    if kind == 2:
        return text(numbers.choice(TEXTS))
    if kind == 3:
        return numbers.choice([b"h", b"q"]) + bytes([numbers.choice([0, 1, 2, 7, 255])])
    return numbers.choice(ONE_BYTE)


def mutate_pickle(pickle: bytes, numbers: Numbers) -> bytes:
    """Drops, repeats, moves, replaces and adds a few opcodes of the first pickle in `pickle`."""
    *operations, rest = _operations(pickle)
    for _ in range(numbers.choice([1, 1, 1, 2, 4])):
        if len(operations) < 2:
            break
        at, other = (numbers.randrange(len(operations)) for _ in range(2))
        count = numbers.choice([1, 1, 1, 2, 9, 60])
        action = numbers.randrange(7)
        if action == 0:
            del operations[at : at + count]
        elif action == 1:
            operations[at:at] = operations[other : other + count]
        elif action == 2:
            operations[at], operations[other] = operations[other], operations[at]
        elif action == 3:
            operations[at] = _new_operation(numbers)
        elif action == 4:
            operations[at:at] = [_new_operation(numbers) for _ in range(count % 7)]
        elif action == 5:
            alike = [i for i, o in enumerate(operations) if o[:1] == operations[at][:1]]
            operations[at] = operations[numbers.choice(alike)]
        else:
            values = [i for i, o in enumerate(operations) if o[:1] in b"KJM\x8aX"]
            if values:
                operations[numbers.choice(values)] = _new_operation(numbers)
    return b"".join(operations) + rest


@functools.cache
def _legacy_starts(data: bytes) -> tuple[int, ...]:
    """Where the five pickles begin, and where the last ends."""
    starts = [0]
    for _ in range(5):
        starts.append(starts[-1] + sum(map(len, _operations(data[starts[-1] :])[:-1])))
    return tuple(starts)


def mutate_legacy_pth(data: bytes, numbers: Numbers) -> bytes:
    """Changes one of the five pickles, or the numbers after them."""
    *starts, at = _legacy_starts(data)
    if numbers.random() < 0.1:
        count = struct.pack("<q", numbers.choice([*(n for n in NUMBERS if n < 2**63), -1]))
        return data[:at] + count + data[at + 8 :]
    start = numbers.choice([*starts, *[starts[3]] * 8])
    return data[:start] + mutate_pickle(data[start:], numbers)


# --------------------------------------------------------------------------------------------------
# Zip archives, nothing compressed


@functools.cache
def _zip_members(data: bytes) -> tuple[dict[str, Any], ...]:
    """What the table of contents says, in its order."""
    end = data.rfind(b"PK\5\6")
    count, _, at = struct.unpack_from("<HII", data, end + 10)
    members = []
    for _ in range(count):
        method, size, name_bytes, extra_bytes, offset = (
            struct.unpack_from(kind, data, at + where)[0]
            for kind, where in (("<H", 10), ("<I", 24), ("<H", 28), ("<H", 30), ("<I", 42))
        )
        name = data[at + 46 : at + 46 + name_bytes]
        at += 46 + name_bytes + extra_bytes
        begin = offset + 30 + sum(struct.unpack_from("<HH", data, offset + 26))
        content = data[begin : begin + size]
        members.append({"name": name, "data": content, "method": method, "extra": b""})
    return tuple(members)


def _zip_bytes(members: list[dict[str, Any]], count: int | None = None) -> bytes:
    """An archive; a member may say otherwise than it is: size, stored_size, offset, flags."""
    body, table = bytearray(), bytearray()
    for member in members:
        name, content = member["name"], member["data"]
        offset = member.get("offset", len(body))
        size = member.get("size", len(content))
        stored = member.get("stored_size", size)
        flags, method, extra = member.get("flags", 0), member["method"], member["extra"]
        lengths = struct.pack("<2I2H", len(content), len(content), len(name), 0)
        body += struct.pack("<4s5HI", b"PK\3\4", 20, 0, 0, 0, 0, 0) + lengths + name + content
        table += struct.pack("<4s6HI", b"PK\1\2", 20, 20, flags, method, 0, 0, 0)
        table += struct.pack("<2I5H2I", stored, size, len(name), len(extra), 0, 0, 0, 0, offset)
        table += name + extra
    n = len(members) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, len(table), len(body), 0)
    return bytes(body + table + end)


def mutate_zip_pth(data: bytes, numbers: Numbers) -> bytes:
    """Changes the pickle in it, or the table of contents."""
    members = [dict(member) for member in _zip_members(data)]
    pickle = next(m for m in members if m["name"].endswith(b"/data.pkl"))
    count = None
    if numbers.random() < 0.8:
        pickle["data"] = mutate_pickle(pickle["data"], numbers)
        return _zip_bytes(members)
    for _ in range(numbers.choice([1, 1, 2, 3])):
        member, other = (numbers.choice(members) for _ in range(2))
        action = numbers.randrange(8)
        if action <= 2:
            key = ("size", "stored_size", "offset")[action]
            member[key] = numbers.choice(NUMBERS) & 0xFFFFFFFF
        elif action == 3:
            member["flags"] = numbers.choice([1, 8, 0xFFFF])
        elif action == 4:
            member["method"] = numbers.choice([8, 12, 99])
        elif action == 5:
            wide = struct.pack("<3Q", *(numbers.choice(NUMBERS) for _ in range(3)))
            extra = struct.pack("<2H", 1, numbers.choice([0, 8, 16, 24, 0xFFFF])) + wide
            member |= {"extra": extra, numbers.choice(["size", "offset"]): 0xFFFFFFFF}
        elif action == 6:
            member["name"] = numbers.choice([other["name"], b"", b"a/b/data.pkl", b"\xff" * 900])
        else:
            count = numbers.choice([0, 1, len(members) + 1, 0xFFFF])
    return _zip_bytes(members, count)


# --------------------------------------------------------------------------------------------------
# JSON


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with a key or index of it."""
    found = []
    open_ = [value]
    while open_:
        container = open_.pop()
        if isinstance(container, dict | list):
            keys = container if isinstance(container, dict) else range(len(container))
            for key in keys:
                found.append((container, key))
                open_.append(container[key])
    return found


def _new_value(numbers: Numbers, places: list[tuple[Any, Any]]) -> Any:
    kind = numbers.randrange(8)
    if kind == 0:
        return numbers.choice([*NUMBERS, -1, 10**400])
    if kind == 1:
        return numbers.choice(TEXTS)
    if kind == 2:
        return numbers.choice(FLOATS)
    if kind == 3:
        return numbers.choice([None, True, False])
    if kind == 4:
        return numbers.choice([[], {}, [[]], [0, 1], [-1, 8], [2**40, 2**40], [0.5, 1]])
    if kind == 5:
        nested: Any = []
        for _ in range(numbers.choice([3, 200])):
            nested = [nested]
        return nested
    container, key = numbers.choice(places)
    return json.loads(json.dumps(container[key]))


def mutate_json(data: bytes, numbers: Numbers) -> bytes:
    """Changes values, keys and their number."""
    value = json.loads(data)
    for _ in range(numbers.choice([1, 1, 2, 3])):
        places = _places(value)
        if not places:
            break
        # Names of tensors are many; the few other places are to have their turn too.
        container, key = numbers.choice(numbers.choice([places, places[:8]]))
        action = numbers.randrange(6)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[numbers.choice([*TEXTS, *map(str, list(container)[:9])])] = container.pop(key)
        elif action == 2 and isinstance(container, dict):
            container[numbers.choice(TEXTS)] = _new_value(numbers, places)
        else:
            container[key] = _new_value(numbers, places)
    changed = json.dumps(value).encode()
    if numbers.random() < 0.1:
        at = numbers.randrange(len(changed))
        odd = numbers.choice([b"", b"{", b'"', b",", b"\\ud800", b"9" * 5000, b"[" * 90_000])
        changed = changed[:at] + odd + changed[at:]
    return changed


def mutate_safetensors(data: bytes, numbers: Numbers) -> bytes:
    """Changes the header's JSON; its length is right."""
    length = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + length], numbers)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mutate_structure(data: bytes, numbers: Numbers) -> bytes:
    """Changes a good file where its structure is, whichever of our formats it has."""
    heads: list[tuple[bytes, Callable[[bytes, Numbers], bytes]]] = [
        (b"PK\3\4", mutate_zip_pth),
        (b"\x80", mutate_legacy_pth),
        (b"GGUF", mutate_gguf),
        (b"{", mutate_json),
    ]
    for head, change in heads:
        if data.startswith(head):
            return change(data, numbers)
    return mutate_safetensors(data, numbers) if data[8:9] == b"{" else mutate(data, numbers)
