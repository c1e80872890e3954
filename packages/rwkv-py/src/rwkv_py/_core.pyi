"""The native extension: thin, private, and documented by the classes that wrap it."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

ABI_VERSION: int

def abi_version() -> int: ...
def runtime_version() -> str: ...

class _Info(TypedDict):
    version: str
    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    head_size: int
    n_ffn: int
    state_size: int
    data_type: str
    n_parameters: int
    file_bytes: int
    weight_bytes: int
    n_threads: int
    kernels: str
    ln_x_eps: float

class Model:
    def __init__(self, path: bytes, n_threads: int, ln_x_eps: float) -> None: ...
    def info(self) -> _Info: ...

class Session:
    def __init__(self, model: Model) -> None: ...
    def feed(self, tokens: NDArray[np.int32], logits: NDArray[np.float32] | None) -> None: ...
    def reset(self) -> None: ...
    def fork(self) -> Session: ...
    def read_state(self, state: NDArray[np.float32]) -> None: ...
    def write_state(self, state: NDArray[np.float32]) -> None: ...

def step(
    model: Model,
    sessions: Sequence[Session],
    tokens: Sequence[NDArray[np.int32]],
    logits: Sequence[NDArray[np.float32] | None],
) -> None: ...

class Tokenizer:
    @staticmethod
    def open(path: bytes) -> Tokenizer: ...
    @staticmethod
    def create_bytes() -> Tokenizer: ...
    @property
    def n_vocab(self) -> int: ...
    def has(self, token: int) -> bool: ...
    def encode(self, text: bytes, tokens: NDArray[np.int32]) -> int: ...
    def decode(self, tokens: NDArray[np.int32]) -> bytes: ...

class SamplerOptions:
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    mirostat_tau: float
    mirostat_eta: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_decay: float
    seed: int
    def __init__(self) -> None: ...

class Sampler:
    def __init__(self, n_vocab: int, options: SamplerOptions) -> None: ...
    def sample(self, logits: NDArray[np.float32]) -> int: ...
    def accept(self, token: int) -> None: ...
    def reset(self, seed: int) -> None: ...
    def bias(self, token: int, bias: float) -> None: ...
    def weigh(self, token: int, weight: float) -> None: ...
