"""More than one machine, on Ray: datasets through many actors, a server of many replicas.

Needs the extra `rwkv-py[ray]`. `generate`, `score` and `embed` take a dataset of Ray Data and
return one, with what their actors made of each row; `app` is the server of `rwkv serve` as an
application of Ray Serve.
"""

from __future__ import annotations

try:
    import pyarrow as _pyarrow  # noqa: F401
    import ray.data as _ray_data  # noqa: F401
    import ray.serve as _ray_serve  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"rwkv_py.ray: expected the package {error.name}, found none. Try "
        "`pip install rwkv-py[ray]`"
    ) from error

from .datasets import ActorOptions, embed, generate, score
from .serving import app, build

__all__ = ["ActorOptions", "app", "build", "embed", "generate", "score"]
