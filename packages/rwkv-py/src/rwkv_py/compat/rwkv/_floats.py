"""Numpy arrays that answer to what scripts ask of a tensor before they use numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Floats"]


class Floats(np.ndarray[Any, np.dtype[np.float32]]):
    """A float32 array; `detach`, `cpu` and `float` return it, as torch does for such a tensor."""

    def detach(self) -> Floats:
        """Return itself."""
        return self

    def cpu(self) -> Floats:
        """Return itself."""
        return self

    def float(self) -> Floats:
        """Return itself."""
        return self

    def numpy(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a plain numpy array over the same memory."""
        return self.view(np.ndarray)

    def clone(self) -> Floats:
        """Return a copy."""
        return self.copy()
