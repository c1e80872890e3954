"""RWKV checkpoints to ggmf model files, in one step, in little memory, without torch.

    import rwkv_convert

    rwkv_convert.convert("model.pth", "model.bin", dtype="q4_0")
    print(rwkv_convert.info("model.bin").version)

Every failure is a `ConvertError`.
"""

from importlib.metadata import version as _version

from .convert import Layout, Progress, Summary, convert
from .errors import (
    CheckpointError,
    ConvertError,
    ModelError,
    OptionError,
    OutputError,
    UnsafePickleError,
)
from .model_info import ModelInfo, TypeUse, info
from .time_state import read_time_state

__all__ = [
    "CheckpointError",
    "ConvertError",
    "Layout",
    "ModelError",
    "ModelInfo",
    "OptionError",
    "OutputError",
    "Progress",
    "Summary",
    "TypeUse",
    "UnsafePickleError",
    "convert",
    "info",
    "read_time_state",
]

__version__ = _version("rwkv-convert")
