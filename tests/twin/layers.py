"""What every RWKV version is made of: norms, activations, the token shift, the flat state."""

from dataclasses import dataclass

import numpy as np

from .block_types import Floats

LAYER_NORM_EPS = 1e-5


def layer_norm(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Each row of x (T, C) to mean 0 and variance 1, then scaled and moved."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    normal: Floats = (x - mean) / np.sqrt(variance + x.dtype.type(LAYER_NORM_EPS))
    return normal * weight + bias


def group_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Each head of x (T, heads, N) on its own to mean 0 and variance 1 -> (T, heads * N)."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    x = (x - mean) / np.sqrt(variance + x.dtype.type(eps))
    return x.reshape(len(x), -1) * weight + bias


def sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))  # 1 / (1 + exp(-x)) without overflow


def silu(x: Floats) -> Floats:
    return x * sigmoid(x)


def relu_squared(x: Floats) -> Floats:
    return np.maximum(x, 0) ** 2


def token_shift(x: Floats, previous: Floats) -> Floats:
    """Row t is x of the token before t; `previous` (C,), in the state, becomes x of the last."""
    shifted = np.concatenate([previous[None], x[:-1]])
    previous[:] = x[-1]
    return shifted


@dataclass(frozen=True)
class LayerState:
    """One layer's part of the flat state buffer, as views into it, in the buffer's order."""

    channel_shift: Floats  # (C,) the channel mix's input of the last token
    time_shift: Floats  # (C,) the time mix's input of the last token
    wkv: Floats  # v4: (3, C) aa, bb, pp; v5..v7: (heads, N, N)


def split_state(
    state: Floats, n_layer: int, n_embed: int, wkv: tuple[int, ...]
) -> list[LayerState]:
    """`state` cut into layers; `wkv` is the shape of a layer's wkv part."""
    layers = state.reshape(n_layer, -1)
    c = n_embed
    return [LayerState(s[:c], s[c : 2 * c], s[2 * c :].reshape(wkv)) for s in layers]
