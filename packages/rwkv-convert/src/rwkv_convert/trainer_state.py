"""What trainers save beside a model, by the names of its classes: passed over, never made.

Each name stands for a constructor that keeps nothing. What such a value would be does not matter,
only that the pickle machine can go on behind it.
"""

from __future__ import annotations

from typing import Any

from .unpickle import Constructor, Global, PassedOver


def _passed_over(name: str) -> Constructor:
    value = PassedOver(name)
    return lambda *_: value


def _dict(*_: Any) -> dict[str | int, Any]:
    """A dict of another class: its items are looked at, as there may be a model among them."""
    return {}


def _list(*_: Any) -> list[Any]:
    return []


_VALUES: dict[str, tuple[str, ...]] = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),
    "builtins": ("set", "frozenset", "bytearray", "complex", "slice", "range"),
    "__builtin__": ("set", "frozenset", "bytearray", "complex", "slice", "xrange"),
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "torch": ("Size", "device"),
    "deepspeed.runtime.fp16.loss_scaler": ("LossScaler", "DynamicLossScaler"),
    "deepspeed.runtime.zero.config": ("ZeroStageEnum",),
    "deepspeed.utils.tensor_fragment": ("fragment_address",),
}

_DICTS: dict[str, tuple[str, ...]] = {
    "collections": ("defaultdict", "Counter"),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
    "lightning.pytorch.utilities.parsing": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
}

_LISTS: dict[str, tuple[str, ...]] = {"collections": ("deque",)}

_TYPES = ("int", "float", "str", "bool", "bytes", "list", "dict", "tuple")
"""As arguments: `defaultdict(dict)`."""

TRAINER_STATE: dict[Global, Constructor] = {
    **{
        Global(module, name): _passed_over(f"{module}.{name}")
        for table in (_VALUES, {"builtins": _TYPES, "__builtin__": _TYPES})
        for module, names in table.items()
        for name in names
    },
    **{Global(module, name): _dict for module, names in _DICTS.items() for name in names},
    **{Global(module, name): _list for module, names in _LISTS.items() for name in names},
}
