"""The PyPI package `rwkv`, computed by rwkv_py: `RWKV`, `PIPELINE`, `PIPELINE_ARGS`.

Its modules have the names of the package's, so that a script changes two lines: from
`rwkv_py.compat.rwkv.model` import `RWKV`, from `rwkv_py.compat.rwkv.utils` the rest.
"""

from .model import RWKV
from .rwkv_tokenizer import TRIE_TOKENIZER
from .utils import PIPELINE, PIPELINE_ARGS

__all__ = ["PIPELINE", "PIPELINE_ARGS", "RWKV", "TRIE_TOKENIZER"]
