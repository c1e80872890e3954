"""Models by name: found on a hub, fetched once, converted, and kept in a folder.

This needs the package rwkv-convert with its extra `hub`: `pip install rwkv-py[run]`.

>>> from rwkv_py import Session, models
>>> path = models.fetch("model.bin")  # or "g1-0.4b", "hf://OWNER/NAME", a checkpoint
>>> session = Session(path)
"""

from __future__ import annotations

from .cache import CachedModel, UnfinishedModel, cache_folder, cached_models, remove, unfinished
from .finding import fetch, find, find_kept, recognise
from .known import KnownModel, find_known, known_models
from .memory import memory_here
from .preparation import Preparation, Progress

__all__ = [
    "CachedModel",
    "KnownModel",
    "Preparation",
    "Progress",
    "UnfinishedModel",
    "cache_folder",
    "cached_models",
    "fetch",
    "find",
    "find_kept",
    "find_known",
    "known_models",
    "memory_here",
    "recognise",
    "remove",
    "unfinished",
]
