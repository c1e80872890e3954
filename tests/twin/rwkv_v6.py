"""RWKV-6 "Finch". v5.2 whose token shift and decay depend on the data, through low-rank matrices.

Per head, the state S (N x N) has the key's channels as rows and the value's as columns.
"""

import numpy as np

from .block_types import Floats
from .layers import LayerState, group_norm, layer_norm, relu_squared, sigmoid, silu, token_shift
from .weights import Weights


def wkv_shape(w: Weights) -> tuple[int, ...]:
    heads, N, _ = w.shape("blocks.0.att.time_faaaa")
    return (heads, N, N)


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

    # Data-dependent token shift. From one mixture for all, five low-rank corrections m:
    #   x_x = x_t + (x_{t-1} - x_t) (*) mu_x
    #   m_c = W2_c tanh(W1_c x_x)                        for c in w, k, v, r, g
    #   x_c = x_t + (x_{t-1} - x_t) (*) (mu_c + m_c)
    # The file's time_maa_w1 (5 * rank, C) stacks the five W1; time_maa_w2 is (5, C, rank).
    delta = token_shift(x, state.time_shift) - x
    inner = np.tanh(w.matmul("att.time_maa_w1", x + delta * w.vector("att.time_maa_x")))
    inner = inner.reshape(len(x), 5, -1)

    def mix(c: str) -> Floats:
        index = "wkvrg".index(c)
        m = w.matmul("att.time_maa_w2", inner[:, index], index=index)
        return x + delta * (w.vector(f"att.time_maa_{c}") + m)

    r = w.matmul("att.receptance.weight", mix("r")).reshape(-1, heads, N)
    k = w.matmul("att.key.weight", mix("k")).reshape(-1, heads, N)
    v = w.matmul("att.value.weight", mix("v")).reshape(-1, heads, N)
    g = silu(w.matmul("att.gate.weight", mix("g")))

    # Data-dependent decay:  decay_t = exp(-exp(w0 + D2 tanh(D1 x_w)))
    low_rank = w.matmul("att.time_decay_w2", np.tanh(w.matmul("att.time_decay_w1", mix("w"))))
    decay = np.exp(-np.exp(w.vector("att.time_decay") + low_rank)).reshape(-1, heads, N, 1)
    u = w.array("att.time_faaaa")  # (heads, N, 1)

    #   y_t = r_t (u (*) k_t^T v_t + S_{t-1})
    #   S_t = decay_t (*) S_{t-1} + k_t^T v_t             decay_t acts on the rows
    y = np.empty_like(r)
    for t in range(len(x)):
        kv = k[t][:, :, None] * v[t][:, None, :]
        y[t] = (r[t][:, None, :] @ (u * kv + S))[:, 0, :]
        S[:] = decay[t] * S + kv

    out = group_norm(y, *w.norm("att.ln_x"), w.ln_x_eps)
    return w.matmul("att.output.weight", out * g)


def channel_mix(w: Weights, x: Floats, state: LayerState) -> Floats:
    """out = sigmoid(R x_r) (*) V relu(K x_k)^2, with x_c = x_t + (x_{t-1} - x_t) (*) mu_c."""
    delta = token_shift(x, state.channel_shift) - x
    x_k = x + delta * w.vector("ffn.time_maa_k")
    x_r = x + delta * w.vector("ffn.time_maa_r")
    k = relu_squared(w.matmul("ffn.key.weight", x_k))
    return sigmoid(w.matmul("ffn.receptance.weight", x_r)) * w.matmul("ffn.value.weight", k)
