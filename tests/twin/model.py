"""Opens a ggmf file and computes its logits: the judge of the engine.

model = load("model.bin")
state = model.new_state()
logits = model.forward([34, 105, 110], state)  # (3, n_vocab); state has moved on
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import ggmf, rwkv_v4, rwkv_v5, rwkv_v6, rwkv_v7
from .block_types import Activations, Floats
from .layers import LayerState, split_state
from .weights import Weights

FORWARD = {"4": rwkv_v4, "5.1": rwkv_v5, "5.2": rwkv_v5, "6": rwkv_v6, "7": rwkv_v7}
LN_X_EPS = 64e-5  # of the group norm; the official models write it as ln_x(x / 8) with 1e-5


class Model:
    """A model file with its forward pass.

    version: "4", "5.1", "5.2", "6" or "7".
    """

    def __init__(
        self,
        file: ggmf.ModelFile,
        *,
        ln_x_eps: float | None = None,
        activations: Activations = "quantized",
        dtype: type[np.floating] = np.float64,
    ) -> None:
        self.version = _version(file)
        if self.version == "4" and ln_x_eps is not None:
            raise ValueError("ln_x_eps: RWKV-4 has no group norm")
        eps = LN_X_EPS if ln_x_eps is None else ln_x_eps
        self._weights = Weights(file, eps, activations, dtype)
        self._wkv_shape = FORWARD[self.version].wkv_shape(self._weights)

    @property
    def n_vocab(self) -> int:
        return self._weights.file.n_vocab

    @property
    def state_size(self) -> int:
        """The number of float32 in a state."""
        file = self._weights.file
        return file.n_layer * (2 * file.n_embed + int(np.prod(self._wkv_shape)))

    def new_state(self) -> NDArray[np.float32]:
        """A fresh state: zeros, but for v4's pp, the largest exponent so far, at -1e30.

        Per layer: channel-mix shift (C), time-mix shift (C), then v4's aa, bb, pp (C each) or the
        heads' matrices (heads, N, N); v5, v6: row = key's channel, v7: row = value's channel.

        A file may say what the heads' matrices begin with, row = value's channel in every version.
        """
        state = np.zeros(self.state_size, dtype=np.float32)
        for i, layer in enumerate(self._split(state)):
            if self.version == "4":
                layer.wkv[2] = -1e30
            elif self._weights.block(i).has("att.time_state"):
                S = self._weights.block(i).array("att.time_state")
                layer.wkv[:] = S if self.version == "7" else S.transpose(0, 2, 1)
        return state

    def forward(self, tokens: Sequence[int], state: NDArray[np.float32] | None = None) -> Floats:
        """Logits (T, n_vocab), row t after tokens[0..t]. A given state is moved on in place.

        Within a call the state is kept in the model's dtype; between calls it is float32.
        """
        given = self.new_state() if state is None else state
        working = given.astype(self._weights.dtype)
        forward = FORWARD[self.version].forward
        logits: Floats = forward(self._weights, list(tokens), self._split(working))
        given[:] = working
        return logits

    def _split(self, state: Floats) -> list[LayerState]:
        file = self._weights.file
        return split_state(state, file.n_layer, file.n_embed, self._wkv_shape)


def load(
    path: Path | str,
    *,
    ln_x_eps: float | None = None,
    activations: Activations = "quantized",
    dtype: type[np.floating] = np.float64,
) -> Model:
    """Opens a ggmf file.

    ln_x_eps: the group norm's epsilon, 64e-5 unless given.
    activations: "quantized" multiplies block types as the engine does; "float" dequantises them and
    multiplies in `dtype`, which separates the activations' rounding from a kernel's errors.
    dtype: of all arithmetic but the exact integer sums, float64 or float32.
    """
    file = ggmf.read(path)
    return Model(file, ln_x_eps=ln_x_eps, activations=activations, dtype=dtype)


def _version(file: ggmf.ModelFile) -> str:
    """The version is not stored; it shows in which tensors exist."""
    att = "blocks.0.att."
    if att + "x_rwkvag" in file.tensors:
        return "7"
    if att + "time_maa_x" in file.tensors:
        return "6"
    if att + "ln_x.weight" not in file.tensors:
        return "4"
    return "5.2" if att + "gate.weight" in file.tensors else "5.1"
