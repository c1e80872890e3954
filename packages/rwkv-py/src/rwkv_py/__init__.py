"""RWKV language models on an ordinary CPU, from fp32 down to 4 bits.

>>> from rwkv_py import Session
>>> session = Session("model.bin")
>>> text = session.generate("The :mod:`json` module ", max_tokens=40, seed=1)
"""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":  # where an extension does not say in which folder its library is
    from rwkv_runtime import lib_dir

    os.add_dll_directory(str(lib_dir()))

from . import _core

# The extension and the library come from two packages, which can be updated apart.
if _core.abi_version() != _core.ABI_VERSION:
    raise ImportError(
        f"rwkv_py: the native library of rwkv-runtime {_core.runtime_version()}, expected ABI "
        f"{_core.ABI_VERSION}, got {_core.abi_version()}. Try `pip install --upgrade rwkv-py "
        "rwkv-runtime`"
    )

# This is the public API of rwkv_py.
from .answer_reader import AnswerPart, AnswerReader
from .chat import Chat, Message, Reply, ReplyPart
from .chat_format import ChatFormat
from .conversation import Written, write_conversation
from .embedding import embed
from .engine import Engine
from .errors import (
    ConversionError,
    EngineClosedError,
    EngineFullError,
    FetchError,
    InternalError,
    InvalidArgumentError,
    KernelsError,
    ModelFileError,
    ModelOptionError,
    NoTokenizerError,
    OutOfMemoryError,
    RwkvError,
    StateFileError,
    StateMismatchError,
    TokenOutOfRangeError,
    UnknownOptionError,
    VocabularyError,
)
from .generation import GenerationOptions
from .model import Model, ModelInfo
from .prefix_cache import PrefixCache
from .probabilities import TokenProbability
from .request import Request
from .sampling import Sampler, SamplingOptions
from .session import Session
from .state_folder import SavedState, StateFolder
from .text_stream import TextStream
from .time_state import read_time_state
from .tokenizer import StreamingDecoder, Tokenizer
from .tools import Tool, ToolCall

__all__ = [
    "AnswerPart",
    "AnswerReader",
    "Chat",
    "ChatFormat",
    "ConversionError",
    "Engine",
    "EngineClosedError",
    "EngineFullError",
    "FetchError",
    "GenerationOptions",
    "InternalError",
    "InvalidArgumentError",
    "KernelsError",
    "Message",
    "Model",
    "ModelFileError",
    "ModelInfo",
    "ModelOptionError",
    "NoTokenizerError",
    "OutOfMemoryError",
    "PrefixCache",
    "Reply",
    "ReplyPart",
    "Request",
    "RwkvError",
    "Sampler",
    "SamplingOptions",
    "SavedState",
    "Session",
    "StateFileError",
    "StateFolder",
    "StateMismatchError",
    "StreamingDecoder",
    "TextStream",
    "TokenOutOfRangeError",
    "TokenProbability",
    "Tokenizer",
    "Tool",
    "ToolCall",
    "UnknownOptionError",
    "VocabularyError",
    "Written",
    "__version__",
    "embed",
    "read_time_state",
    "write_conversation",
]

__version__: str = version("rwkv-py")

if TYPE_CHECKING:
    from . import calibrate as calibrate
    from . import evaluate as evaluate
    from . import speed as speed

# Public modules that are imported when they are first used: most programs do without them.
_LAZY = ("calibrate", "evaluate", "speed")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
