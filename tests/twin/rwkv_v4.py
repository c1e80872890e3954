"""RWKV-4 "Dove". Attention as a running weighted mean, one decay per channel.

Symbols: x_t the input of a layer at token t, x_{t-1} that of the token before (in the state),
mu a weight in [0, 1] per channel, (*) the element-wise product.
"""

import numpy as np

from .block_types import Floats
from .layers import LayerState, layer_norm, relu_squared, sigmoid, token_shift
from .weights import Weights


def wkv_shape(w: Weights) -> tuple[int, ...]:
    return (3, w.n_embed)  # aa, bb, pp


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
    # Token shift: each of k, v, r sees its own mixture of this token and the last
    #   x_k = x_t (*) mu_k + x_{t-1} (*) (1 - mu_k)
    last = token_shift(x, state.time_shift)

    def mix(name: str) -> Floats:
        mu = w.vector(f"att.time_mix_{name}")
        return x * mu + last * (1 - mu)

    k = w.matmul("att.key.weight", mix("k"))
    v = w.matmul("att.value.weight", mix("v"))
    r = sigmoid(w.matmul("att.receptance.weight", mix("r")))

    # w = -exp(checkpoint's time_decay), already applied in the file; u = time_first
    #             sum_{i<t} exp((t-1-i) w + k_i) v_i  +  exp(u + k_t) v_t
    #   wkv_t  =  --------------------------------------------------------
    #             sum_{i<t} exp((t-1-i) w + k_i)      +  exp(u + k_t)
    #
    # The sums are kept as aa = exp(-pp) * numerator, bb = exp(-pp) * denominator, where pp is the
    # largest exponent so far: nothing overflows.
    decay, first = w.vector("att.time_decay"), w.vector("att.time_first")
    aa, bb, pp = state.wkv
    wkv = np.empty_like(v)
    for t in range(len(x)):
        p = np.maximum(pp, first + k[t])
        e1, e2 = np.exp(pp - p), np.exp(first + k[t] - p)
        wkv[t] = (e1 * aa + e2 * v[t]) / (e1 * bb + e2)

        p = np.maximum(pp + decay, k[t])
        e1, e2 = np.exp(pp + decay - p), np.exp(k[t] - p)
        aa[:], bb[:], pp[:] = e1 * aa + e2 * v[t], e1 * bb + e2, p

    return w.matmul("att.output.weight", r * wkv)


def channel_mix(w: Weights, x: Floats, state: LayerState) -> Floats:
    """out = sigmoid(R x_r) (*) V relu(K x_k)^2. RWKV-5 is the same."""
    last = token_shift(x, state.channel_shift)

    def mix(name: str) -> Floats:
        mu = w.vector(f"ffn.time_mix_{name}")
        return x * mu + last * (1 - mu)

    k = relu_squared(w.matmul("ffn.key.weight", mix("k")))
    r = sigmoid(w.matmul("ffn.receptance.weight", mix("r")))
    return r * w.matmul("ffn.value.weight", k)
