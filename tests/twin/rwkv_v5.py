"""RWKV-5 "Eagle". Heads with a matrix state S (N x N) instead of v4's two vectors.

v5.1: one decay per head, no gate. v5.2: one decay per channel, a gate. Checkpoints with a gate but
one decay per head are written to files as v5.2.

Per head, S has the key's channels as rows and the value's as columns; k^T v is the outer product.
"""

import numpy as np

from .block_types import Floats
from .layers import LayerState, group_norm, layer_norm, silu, token_shift
from .rwkv_v4 import channel_mix
from .weights import Weights


def wkv_shape(w: Weights) -> tuple[int, ...]:
    heads = w.shape("blocks.0.att.time_decay")[0]
    return (heads, w.n_embed // heads, w.n_embed // heads)


def forward(w: Weights, tokens: list[int], state: list[LayerState]) -> Floats:
    """Logits (T, n_vocab) after each of `tokens`; `state` moves on by T tokens."""
    x = w.embedding(tokens)
    x = layer_norm(x, *w.norm("blocks.0.ln0"))
    for i in range(w.n_layer):
        block = w.block(i)
        x = x + time_mix(block, layer_norm(x, *block.norm("ln1")), state[i])
        x = x + channel_mix(block, layer_norm(x, *block.norm("ln2")), state[i])
    return w.matmul("head.weight", layer_norm(x, *w.norm("ln_out")))


def time_mix(w: Weights, x: Floats, state: LayerState) -> Floats:
    """x (T, C) -> (T, C)."""
    S = state.wkv
    heads, N = S.shape[:2]
    last = token_shift(x, state.time_shift)
    has_gate = w.has("att.gate.weight")

    def mix(name: str) -> Floats:
        mu = w.vector(f"att.time_mix_{name}")
        return x * mu + last * (1 - mu)

    r = w.matmul("att.receptance.weight", mix("r")).reshape(-1, heads, N)
    k = w.matmul("att.key.weight", mix("k")).reshape(-1, heads, N)
    v = w.matmul("att.value.weight", mix("v")).reshape(-1, heads, N)

    # decay = exp(-exp(checkpoint's)), in v5.1 also u = exp(checkpoint's), already applied in the
    # file. Both are (heads, 1 or N, 1): they act on S's rows, the key's channels.
    decay = w.array("att.time_decay")
    u = w.array("att.time_faaaa" if has_gate else "att.time_first")

    #   y_t = r_t (u (*) k_t^T v_t + S_{t-1})
    #   S_t = decay (*) S_{t-1} + k_t^T v_t
    y = np.empty_like(r)
    for t in range(len(x)):
        kv = k[t][:, :, None] * v[t][:, None, :]
        y[t] = (r[t][:, None, :] @ (u * kv + S))[:, 0, :]
        S[:] = decay * S + kv

    out = group_norm(y, *w.norm("att.ln_x"), w.ln_x_eps)
    if has_gate:
        out = out * silu(w.matmul("att.gate.weight", mix("g")))
    return w.matmul("att.output.weight", out)
