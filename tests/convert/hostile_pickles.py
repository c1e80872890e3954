"""Pickles that ask for more than a dict of tensors: each is refused, none may run anything.

`hostile_pickles(marker)` gives them by name; those that run code would create the file `marker`.
"""

from pathlib import Path

from convert.checkpoint_writers import ORDERED_DICT, global_, integer, text

PROTO = b"\x80\x02"
PROTO4 = b"\x80\x04"


def _call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def _in_dict(value: bytes) -> bytes:
    return PROTO + b"}" + text("emb.weight") + value + b"s."


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    short = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()  # noqa: E731
    storage = _storage()
    return {
        "os.system": PROTO + _call(global_("os", "system"), text(touch)) + b".",
        "posix.system": PROTO + _call(global_("posix", "system"), text(touch)) + b".",
        "builtins.eval": PROTO + _call(global_("builtins", "eval"), text(code)) + b".",
        "builtins.exec": _in_dict(_call(global_("builtins", "exec"), text(code))),
        "python 2 name of builtins": PROTO
        + _call(global_("__builtin__", "eval"), text(code))
        + b".",
        "subprocess in the hooks": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"),
                storage,
                integer(0),
                b"K\x01\x85",
                b"K\x01\x85",
                b"\x89",
                _call(global_("subprocess", "call"), text(touch)),
            )
        ),
        "stack_global": PROTO4 + short("os") + short("system") + b"\x93" + text(touch) + b"\x85R.",
        "stack_global with a dotted name": PROTO4
        + short("torch")
        + short("serialization.os.system")
        + b"\x93"
        + text(touch)
        + b"\x85R.",
        "dotted name": PROTO + _call(global_("torch", "os.system"), text(touch)) + b".",
        "reduce chain through getattr": PROTO
        + _call(
            _call(global_("builtins", "getattr"), global_("os", "path"), text("system")),
            text(touch),
        )
        + b".",
        "reduce of a value": PROTO + text("not callable") + b")R.",
        "reduce of what a reduce gave": PROTO + ORDERED_DICT + b")R.",
        "calling a storage type": PROTO + global_("torch", "FloatStorage") + b")R.",
        "inst": PROTO + b"(" + text(touch) + b"ios\nsystem\n.",
        "obj": PROTO + b"(" + global_("os", "system") + text(touch) + b"o.",
        "obj without its global": PROTO + b"(o.",
        "newobj": PROTO + global_("collections", "OrderedDict") + b")\x81.",
        "newobj_ex": PROTO4 + global_("collections", "OrderedDict") + b")}\x92.",
        "ext1": PROTO + b"\x82\x01.",
        "ext2": PROTO + b"\x83\x01\x00.",
        "ext4": PROTO + b"\x84\x01\x00\x00\x00.",
        "torch.load in the pickle": PROTO + _call(global_("torch", "load"), text("x")) + b".",
        "torch.hub": PROTO + _call(global_("torch.hub", "load"), text("x"), text("y")) + b".",
        "numpy": PROTO + global_("numpy.core.multiarray", "_reconstruct") + b".",
        "dict of two arguments": PROTO + global_("collections", "OrderedDict") + b")]\x86R.",
        "dict of numbers for items": PROTO
        + global_("collections", "OrderedDict")
        + b"]K\x01a\x85R.",
        "dict of items that are no pairs": PROTO
        + global_("collections", "OrderedDict")
        + b"]K\x01\x85a\x85R.",
        "a class to be built": PROTO + global_("argparse", "Namespace") + b")R}b.",
        "build of a list": PROTO + b"]}b.",
        "build with a state that is no dict": PROTO + b"}" + text("__class__") + b"b.",
        "build of slots": PROTO + b"}N}\x86b.",
        "persistent id in text": PROTO + b"Pos.system\n.",
        "persistent id of no storage": PROTO + text("os.system") + b"Q.",
        "persistent id of a module": PROTO
        + b"("
        + text("module")
        + global_("collections", "OrderedDict")
        + text("source.py")
        + text("code")
        + b"tQ.",
        "persistent id with a global for a key": PROTO
        + b"("
        + text("storage")
        + global_("torch", "FloatStorage")
        + global_("torch", "FloatStorage")
        + text("cpu")
        + integer(1)
        + b"tQ.",
        "persistent id with a type of text": PROTO
        + b"("
        + text("storage")
        + text("FloatStorage")
        + text("0")
        + text("cpu")
        + integer(1)
        + b"tQ.",
        "huge memo": PROTO + b"}r\xff\xff\xff\xff.",
        "huge memo, many entries": PROTO + b"}" + b"\x94" * 3_000_000 + b".",
        "huge number": PROTO + b"\x8a\xff" + b"\xff" * 255 + b".",
        "huge number of four length bytes": PROTO + b"\x8b\xff\xff\xff\x7f",
        "huge text": PROTO + b"X\xff\xff\xff\xff" + b"a" * 100,
        "bytearray of 2^60": PROTO + b"\x96" + (2**60).to_bytes(8, "little"),
        "recursion: open containers": PROTO + b"(" * 100_000 + b".",
        "recursion: nested tuples": PROTO + b")" + b"\x85" * 1_000_000 + b".",
        "recursion: nested tuples as a key": PROTO + b"})" + b"\x85" * 1_000_000 + b"Ns.",
        "recursion: a list in itself": PROTO + b"]q\x00h\x00a.",
        "recursion: nested lists as a shape": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"),
                storage,
                integer(0),
                b"]" * 30_000 + b"a" * 29_999,
                b"K\x01\x85",
            )
        ),
        "stack of a million values": PROTO + b"N" * 1_000_000 + b".",
        "duplicates without end": PROTO + b"]" + b"2" * 100_000 + b".",
        "unhashable key": PROTO + b"}]Ns.",
        "tensor with a shape of text": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"), storage, integer(0), text("11"), b")"
            )
        ),
        "tensor with negative strides": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"),
                storage,
                integer(3),
                b"K\x02\x85",
                b"J\xff\xff\xff\xff\x85",
            )
        ),
        "tensor without arguments": _in_dict(global_("torch._utils", "_rebuild_tensor_v2") + b")R"),
        "tensor with a negative offset": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"),
                storage,
                integer(-1),
                b"K\x02\x85",
                b"K\x01\x85",
            )
        ),
        "tensor past the end of its storage": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"),
                storage,
                integer(1),
                b"K\x04\x85",
                b"K\x01\x85",
            )
        ),
        "tensor that repeats itself 2^60 times": _in_dict(
            _call(
                global_("torch._utils", "_rebuild_tensor_v2"),
                storage,
                integer(0),
                integer(2**60) + b"\x85",
                b"K\x00\x85",
            )
        ),
        "no pickle at all": b"import os; os.system('true')",
        "empty": b"",
        "stop at once": b"\x80\x02.",
        "protocol 0": b"(dp0\n.",
        "protocol 99": b"\x80\x63}.",
        "no stop": PROTO + b"}",
        "pop from below a mark": PROTO + b"}(s.",
        "get of nothing": PROTO + b"h\x07.",
        "a tuple at the top": PROTO + b").",
        "an empty dict": PROTO + b"}.",
        "a dict of numbers": PROTO + b"}" + text("step") + integer(3) + b"s.",
    }


def _storage() -> bytes:
    return (
        b"("
        + text("storage")
        + global_("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + integer(4)
        + b"tQ"
    )
