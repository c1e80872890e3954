"""Random checkpoints of every RWKV version, with the official names, shapes and order.

The weights are scaled so that each term of the equations matters: decays from "forgets at once" to
"keeps for hundreds of tokens", low-rank parts that move what they are added to, group norms whose
epsilon shows in the logits, logits of order 1 to 10.

The numbers are the same on every machine and for every numpy: `RandomState`'s stream is frozen by
numpy's policy, and only additions and multiplications are applied to it (no libm). Golden files
therefore need to store the seed only.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Checkpoint = dict[str, Array]

VERSIONS = ("4", "5.1", "5.1-gate", "5.2", "6", "7")
"""rwkv.cpp's names. "5.1-gate" has a gate but one decay per head (PyPI `rwkv` calls it 5.1); the
converter writes it as 5.2."""


class _Random:
    """Exactly reproducible random float32 arrays."""

    def __init__(self, seed: int) -> None:
        self._stream = np.random.RandomState(seed)

    def uniform(self, *shape: int, low: float, high: float) -> Array:
        fractions: NDArray[np.float64] = self._stream.random_sample(shape)
        return np.asarray(low + (high - low) * fractions, dtype=np.float32)

    def bell(self, *shape: int, std: float) -> Array:
        """Bell-shaped around 0: the sum of four uniform numbers (variance 4/12)."""
        parts: NDArray[np.float64] = self._stream.random_sample((4, *shape))
        total = ((parts[0] + parts[1]) + (parts[2] + parts[3])) - 2.0
        return np.asarray(total * (std * math.sqrt(3.0)), dtype=np.float32)


def checkpoint(
    version: str,
    *,
    n_layer: int = 3,
    n_embd: int = 128,
    head_size: int = 64,
    n_vocab: int = 64,
    n_ffn: int | None = None,
    rank: int = 32,
    rank_wide: int = 64,
    layer0_v: bool = False,
    seed: int = 0,
) -> Checkpoint:
    """A random checkpoint as a flat dict of float32 arrays, in the order of the official files.

    version: one of VERSIONS. n_ffn: width of the channel mix; by default the official ratio
    (4 for v4 and v7, 3.5 rounded down to a multiple of 32 for v5 and v6).
    rank: the low-rank width of v7's w, a, v and of v6's token shift; rank_wide: of v7's g and v6's
    decay. layer0_v: give layer 0 of a v7 model the v0 v1 v2 that some releases carry, unused.
    """
    if version not in VERSIONS:
        raise ValueError(f"checkpoint: version, expected one of {VERSIONS}, got {version!r}")
    if n_embd % head_size:
        raise ValueError(f"checkpoint: n_embd {n_embd} is no multiple of head_size {head_size}")
    if n_ffn is None:
        n_ffn = 4 * n_embd if version in ("4", "7") else int(3.5 * n_embd) // 32 * 32

    random = _Random(seed)
    w: Checkpoint = {}

    def vector(name: str, low: float, high: float, *shape: int) -> None:
        w[name] = random.uniform(*(shape or (n_embd,)), low=low, high=high)

    def matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        """PyTorch's Linear: y = W x; keeps the variance of x when gain is 1."""
        w[name] = random.bell(rows, columns, std=gain / math.sqrt(columns))

    def layer_norm(name: str) -> None:
        vector(f"{name}.weight", 0.7, 1.3)
        w[f"{name}.bias"] = random.bell(n_embd, std=0.1)

    time_mix: Callable[[str, int], None]
    channel_mix: Callable[[str], None]

    def time_mix_v4(att: str, layer: int) -> None:
        vector(att + "time_decay", -6.0, 1.5)
        vector(att + "time_first", -1.0, 1.5)
        for name in "kvr":
            vector(att + f"time_mix_{name}", 0.0, 1.0, 1, 1, n_embd)
        for name in ("key", "value", "receptance", "output"):
            matrix(att + f"{name}.weight", n_embd, n_embd)

    def projections(att: str, *, gate: bool) -> None:
        # Small r, k, v: the variance inside a head stays within the group norm's epsilon's reach.
        matrix(att + "receptance.weight", n_embd, n_embd, gain=0.25)
        matrix(att + "key.weight", n_embd, n_embd, gain=0.25)
        matrix(att + "value.weight", n_embd, n_embd, gain=0.25)
        matrix(att + "output.weight", n_embd, n_embd)
        if gate:
            matrix(att + "gate.weight", n_embd, n_embd)
        layer_norm(att + "ln_x")

    def time_mix_v5(att: str, layer: int) -> None:
        heads = n_embd // head_size
        gate = version != "5.1"
        for name in "kvrg" if gate else "kvr":
            vector(att + f"time_mix_{name}", 0.0, 1.0, 1, 1, n_embd)
        if version == "5.2":
            vector(att + "time_decay", -6.0, 1.5, heads, head_size)
            vector(att + "time_faaaa", -1.0, 1.5, heads, head_size)
        else:
            # With two heads, chance alone would not cover the range: one slow head, one fast. Not
            # faster: a head that holds one token has y = (r k) v, and where r k happens to be near
            # 0 the group norm blows its rounding error up to beyond any useful tolerance.
            w[att + "time_decay"] = np.linspace(-5.0, -0.5, heads, dtype=np.float32)
            w[att + "time_decay"] += random.uniform(heads, low=-0.5, high=0.5)
            vector(att + "time_first", -1.5, 1.0, heads)
        projections(att, gate=gate)

    def time_mix_v6(att: str, layer: int) -> None:
        heads = n_embd // head_size
        for name in "xwkvrg":
            vector(att + f"time_maa_{name}", 0.0, 1.0, 1, 1, n_embd)
        w[att + "time_maa_w1"] = random.bell(n_embd, 5 * rank, std=1 / math.sqrt(n_embd))
        w[att + "time_maa_w2"] = random.bell(5, rank, n_embd, std=0.5 / math.sqrt(rank))
        vector(att + "time_decay", -6.0, 1.0, 1, 1, n_embd)
        w[att + "time_decay_w1"] = random.bell(n_embd, rank_wide, std=1 / math.sqrt(n_embd))
        w[att + "time_decay_w2"] = random.bell(rank_wide, n_embd, std=1 / math.sqrt(rank_wide))
        vector(att + "time_faaaa", -1.0, 1.5, heads, head_size)
        projections(att, gate=True)

    def time_mix_v7(att: str, layer: int) -> None:
        heads = n_embd // head_size
        for name in "rwkvag":
            vector(att + f"x_{name}", 0.0, 1.0, 1, 1, n_embd)

        def low_rank(name: str, width: int, low: float, high: float) -> None:
            w[att + f"{name}1"] = random.bell(n_embd, width, std=1 / math.sqrt(n_embd))
            w[att + f"{name}2"] = random.bell(width, n_embd, std=1 / math.sqrt(width))
            if low < high:
                vector(att + f"{name}0", low, high, 1, 1, n_embd)

        low_rank("w", rank, -7.0, 3.0)
        low_rank("a", rank, -1.5, 1.5)
        if layer > 0 or layer0_v:
            low_rank("v", rank, -1.0, 1.0)
        low_rank("g", rank_wide, 0.0, 0.0)  # the gate has no g0
        vector(att + "k_k", 0.4, 1.2, 1, 1, n_embd)
        vector(att + "k_a", 0.5, 1.3, 1, 1, n_embd)
        w[att + "r_k"] = random.bell(heads, head_size, std=0.3)
        projections(att, gate=False)

    def channel_mix_v4_to_v6(ffn: str) -> None:
        mix = "time_maa" if version == "6" else "time_mix"
        for name in "kr":
            vector(ffn + f"{mix}_{name}", 0.0, 1.0, 1, 1, n_embd)
        matrix(ffn + "key.weight", n_ffn, n_embd)
        matrix(ffn + "receptance.weight", n_embd, n_embd)
        matrix(ffn + "value.weight", n_embd, n_ffn)

    def channel_mix_v7(ffn: str) -> None:
        vector(ffn + "x_k", 0.0, 1.0, 1, 1, n_embd)
        matrix(ffn + "key.weight", n_ffn, n_embd)
        matrix(ffn + "value.weight", n_embd, n_ffn)

    time_mix = {"4": time_mix_v4, "6": time_mix_v6, "7": time_mix_v7}.get(version, time_mix_v5)
    channel_mix = channel_mix_v7 if version == "7" else channel_mix_v4_to_v6

    w["emb.weight"] = random.bell(n_vocab, n_embd, std=0.3)
    for layer in range(n_layer):
        block = f"blocks.{layer}."
        layer_norm(block + "ln1")
        layer_norm(block + "ln2")
        if layer == 0:
            layer_norm(block + "ln0")
        time_mix(block + "att.", layer)
        channel_mix(block + "ffn.")
    layer_norm("ln_out")
    matrix("head.weight", n_vocab, n_embd, gain=2.5)
    return w


def time_state(
    *,
    n_layer: int = 3,
    n_embd: int = 128,
    head_size: int = 64,
    std: float = 0.2,
    seed: int = 0,
) -> Checkpoint:
    """A random initial state for a checkpoint of these sizes, as state tuning saves one.

    For each layer `blocks.N.att.time_state`, (heads, N, N), row = value's channel.
    """
    random = _Random(seed)
    shape = (n_embd // head_size, head_size, head_size)
    names = (f"blocks.{layer}.att.time_state" for layer in range(n_layer))
    return {name: random.bell(*shape, std=std) for name in names}
