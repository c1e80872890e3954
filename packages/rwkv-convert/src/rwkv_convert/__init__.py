"""RWKV checkpoints to ggmf and GGUF model files, in one step, in little memory, without torch.

    import rwkv_convert

    rwkv_convert.convert("model.pth", "model.bin", dtype="q4_0")
    print(rwkv_convert.info("model.bin").version)

Every failure is a `ConvertError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# What is used is imported when it is used: numpy takes a tenth of a second, in which the command
# would not be ready for Ctrl-C.
if TYPE_CHECKING:
    from .compensate import Compensated, InputMoments, quantize_compensated, rounded
    from .conversion import Layout, Progress, Quality, Summary, convert
    from .errors import (
        CheckpointError,
        ConvertError,
        ModelError,
        OptionError,
        OutputError,
        UnsafePickleError,
    )
    from .hub_fetch import HubFiles, fetch_hub_files, find_hub_files
    from .initial_state import read_time_state
    from .model_info import ModelInfo, TypeUse, info
    from .model_size import model_file_bytes
    from .weight_types import Container, container_for, parse_dtype
    from .weights import ModelWeights
    from .write_imatrix import write_importance

    __version__: str

__all__ = [
    "CheckpointError",
    "Compensated",
    "Container",
    "ConvertError",
    "HubFiles",
    "InputMoments",
    "Layout",
    "ModelError",
    "ModelInfo",
    "ModelWeights",
    "OptionError",
    "OutputError",
    "Progress",
    "Quality",
    "Summary",
    "TypeUse",
    "UnsafePickleError",
    "container_for",
    "convert",
    "fetch_hub_files",
    "find_hub_files",
    "info",
    "model_file_bytes",
    "parse_dtype",
    "quantize_compensated",
    "read_time_state",
    "rounded",
    "write_importance",
]

_MODULES = {
    "compensate": ("Compensated", "InputMoments", "quantize_compensated", "rounded"),
    "conversion": ("Layout", "Progress", "Quality", "Summary", "convert"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "hub_fetch": ("HubFiles", "fetch_hub_files", "find_hub_files"),
    "initial_state": ("read_time_state",),
    "model_info": ("ModelInfo", "TypeUse", "info"),
    "model_size": ("model_file_bytes",),
    "weight_types": ("Container", "container_for", "parse_dtype"),
    "weights": ("ModelWeights",),
    "write_imatrix": ("write_importance",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("rwkv-convert")
    elif name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
