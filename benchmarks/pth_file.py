"""Half-precision checkpoints as torch.save writes them, with the standard library alone."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_pth(path: Path, tensors: Mapping[str, NDArray[np.float16]]) -> None:
    """Writes tensors as the zip file of a pickled dict, each with a storage of its own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with _torch() as torch:
            archive.writestr("archive/data.pkl", _pickled(tensors, torch))
        archive.writestr("archive/byteorder", b"little")
        for i, tensor in enumerate(tensors.values()):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as file:
                for begin in range(0, len(tensor), 4096):
                    file.write(np.ascontiguousarray(tensor[begin : begin + 4096]).tobytes())
        archive.writestr("archive/version", b"3\n")


@contextmanager
def _torch() -> Iterator[ModuleType]:
    """The names that such a pickle has, for as long as it is written: pickle looks them up."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")

    def _rebuild_tensor_v2() -> None:
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = utils.__name__
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    torch.HalfStorage = type("HalfStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]
    torch._utils = utils  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield torch
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Tensor:
    """Pickled as a tensor."""

    def __init__(self, storage: int, array: NDArray[np.float16], torch: ModuleType):
        self.storage, self.array, self.torch = storage, array, torch

    def __reduce__(self) -> tuple[Any, ...]:
        strides = tuple(n // self.array.itemsize for n in self.array.strides)
        storage = _Stored(self.storage, self.array.size, self.torch)
        # storage, offset, shape, strides, requires_grad, backward_hooks
        hooks: OrderedDict[str, None] = OrderedDict()
        arguments = (storage, 0, self.array.shape, strides, False, hooks)
        return self.torch._utils._rebuild_tensor_v2, arguments


class _Stored:
    """Pickled as what names a storage."""

    def __init__(self, number: int, size: int, torch: ModuleType):
        self.id = ("storage", torch.HalfStorage, str(number), "cpu", size)


def _pickled(tensors: Mapping[str, NDArray[np.float16]], torch: ModuleType) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> Any:
            return obj.id if isinstance(obj, _Stored) else None

    out = io.BytesIO()
    content = {name: _Tensor(i, array, torch) for i, (name, array) in enumerate(tensors.items())}
    Pickler(out, protocol=2).dump(content)
    return out.getvalue()
