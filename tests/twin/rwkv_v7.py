"""RWKV-7 "Goose". The state is an associative memory that each token edits: a delta rule.

Per head, S (N x N) maps keys to values: rows are the value's channels, columns the key's (the
transpose of v5 and v6). A token lets the memory decay, takes out part of what stands under its
removal key kappa, and writes v under k:

    S_t = S_{t-1} diag(w_t)  -  (S_{t-1} kappa_t) (a_t (*) kappa_t)^T  +  v_t k_t^T
    y_t = S_t r_t

Symbols: x_t the layer's input at token t, x_{t-1} that of the token before (in the state), mu a
weight per channel, (*) the element-wise product, C = heads * N channels.
"""

import numpy as np

from .block_types import Floats
from .layers import LayerState, group_norm, layer_norm, relu_squared, sigmoid, token_shift
from .weights import Weights

# The slowest decay is exp(-0.606531 * 1). It stands for exp(-1/2) = 0.60653066; every inference
# code rounds it to these digits, so the twin does.
DECAY_SCALE = 0.606531


def wkv_shape(w: Weights) -> tuple[int, ...]:
    heads, N = w.shape("blocks.0.att.r_k")
    return (heads, N, N)


def forward(w: Weights, tokens: list[int], state: list[LayerState]) -> Floats:
    """Logits (T, n_vocab) after each of `tokens`; `state` moves on by T tokens."""
    x = w.embedding(tokens)
    x = layer_norm(x, *w.norm("blocks.0.ln0"))
    v_first = None  # layer 0's values, which later layers mix into theirs
    for i in range(w.n_layer):
        block = w.block(i)
        out, v_first = time_mix(block, layer_norm(x, *block.norm("ln1")), state[i], v_first)
        x = x + out
        x = x + channel_mix(block, layer_norm(x, *block.norm("ln2")), state[i])
    return w.matmul("head.weight", layer_norm(x, *w.norm("ln_out")))


def time_mix(
    w: Weights, x: Floats, state: LayerState, v_first: Floats | None
) -> tuple[Floats, Floats]:
    """x (T, C) -> out (T, C), v_first (T, C). v_first is None in layer 0, which makes it."""
    S = state.wkv
    heads, N = S.shape[:2]

    # Token shift:  x_c = x_t + (x_{t-1} - x_t) (*) mu_c,  the six mu stacked in x_rwkvag
    delta = token_shift(x, state.time_shift) - x
    mu = w.array("att.x_rwkvag").reshape(6, -1)
    x_r, x_w, x_k, x_v, x_a, x_g = (x + delta * mu[c] for c in range(6))

    r = w.matmul("att.receptance.weight", x_r)
    k = w.matmul("att.key.weight", x_k)
    v = w.matmul("att.value.weight", x_v)

    # Four small networks, low_rank(x) = W2 f(W1 x):
    #   decay            w = exp(-exp(-1/2) sigmoid(w0 + W2 tanh(W1 x_w)))    in (0.545, 1)
    #   in-context rate  a = sigmoid(a0 + A2 A1 x_a)        how much of the old value is taken out
    #   value mix        nu = sigmoid(v0 + V2 V1 x_v)       how much of layer 0's value comes in
    #   gate             g = G2 sigmoid(G1 x_g)
    w_raw = w.vector("att.w0") + w.matmul("att.w2", np.tanh(w.matmul("att.w1", x_w)))
    decay = np.exp(-x.dtype.type(DECAY_SCALE) * sigmoid(w_raw))
    a = sigmoid(w.vector("att.a0") + w.matmul("att.a2", w.matmul("att.a1", x_a)))
    g = w.matmul("att.g2", sigmoid(w.matmul("att.g1", x_g)))
    if v_first is None:
        v_first = v
    else:
        nu = sigmoid(w.vector("att.v0") + w.matmul("att.v2", w.matmul("att.v1", x_v)))
        v = v + (v_first - v) * nu

    # Removal key, of length 1 per head:  kappa = normalize(k (*) k_k)
    # Key written:                        k <- k (*) (1 + (a - 1) (*) k_a)
    kappa = (k * w.vector("att.k_k")).reshape(-1, heads, N)
    length = np.sqrt((kappa**2).sum(axis=-1, keepdims=True))
    kappa = kappa / np.maximum(length, x.dtype.type(1e-12))
    k = k * (1 + (a - 1) * w.vector("att.k_a"))

    r, k, v, a, decay = (z.reshape(-1, heads, N) for z in (r, k, v, a, decay))
    y = np.empty_like(v)
    for t in range(len(x)):
        removed = S @ kappa[t][:, :, None]  # (heads, N, 1): the value under kappa
        S[:] = (
            S * decay[t][:, None, :]
            - removed * (a[t] * kappa[t])[:, None, :]
            + v[t][:, :, None] * k[t][:, None, :]
        )
        y[t] = (S @ r[t][:, :, None])[:, :, 0]

    # out = O (g (*) (group_norm(y) + bonus)),  bonus = (sum over the head of r (*) k (*) r_k) v
    out = group_norm(y, *w.norm("att.ln_x"), w.ln_x_eps)
    bonus = (r * k * w.array("att.r_k")).sum(axis=-1, keepdims=True) * v
    out = (out + bonus.reshape(len(x), -1)) * g
    return w.matmul("att.output.weight", out), v_first


def channel_mix(w: Weights, x: Floats, state: LayerState) -> Floats:
    """out = V relu(K x_k)^2: v4's without the receptance."""
    delta = token_shift(x, state.channel_shift) - x
    x_k = x + delta * w.vector("ffn.x_k")
    return w.matmul("ffn.value.weight", relu_squared(w.matmul("ffn.key.weight", x_k)))
