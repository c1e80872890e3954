"""RWKV language models on an ordinary CPU, from fp32 down to 4 bits.

>>> from rwkv_py import Session
>>> session = Session("model.bin")
>>> text = session.generate("The :mod:`json` module ", max_tokens=40, seed=1)
"""

from importlib.metadata import version

from . import _core

# The extension and the library come from two packages, which can be updated apart.
if _core.abi_version() != _core.ABI_VERSION:
    raise ImportError(
        f"rwkv_py: the native library of rwkv-runtime {_core.runtime_version()}, expected ABI "
        f"{_core.ABI_VERSION}, got {_core.abi_version()}. Try `pip install --upgrade rwkv-py "
        "rwkv-runtime`."
    )

# This is the public API of rwkv_py.
from .chat import Chat, Message, Reply, ReplyPart
from .chat_format import ChatFormat
from .engine import Engine, Request
from .errors import (
    EngineClosedError,
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
from .model import Model, ModelInfo
from .prefix_cache import PrefixCache
from .sampling import Sampler, SamplingOptions
from .session import Session
from .text_stream import TextStream
from .time_state import read_time_state
from .tokenizer import StreamingDecoder, Tokenizer

__all__ = [
    "Chat",
    "ChatFormat",
    "Engine",
    "EngineClosedError",
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
    "Session",
    "StateFileError",
    "StateMismatchError",
    "StreamingDecoder",
    "TextStream",
    "TokenOutOfRangeError",
    "Tokenizer",
    "UnknownOptionError",
    "VocabularyError",
    "__version__",
    "read_time_state",
]

__version__: str = version("rwkv-py")
