"""The reference: what the PyPI package `rwkv` computes for a checkpoint, in fp32 on the CPU.

From a test:

    from oracle.reference_rwkv import reference
    logits, state = reference(checkpoint, tokens)["one"]

As a command, which the function runs in a process of its own, because the package reads its
settings from the environment when it is imported, and has a class of its own for RWKV-7:

    python reference_rwkv.py MODEL.pth TOKENS.npy OUT.npz

A model may hold an initial state, tensors `blocks.N.att.time_state`. The package begins with it in
RWKV-5 and 6, transposing it; for RWKV-7 it is put into the list of states here, as it is.

OUT.npz then holds, for each mode, "one" (token by token) and "seq" (all tokens in one call):
logits_<mode>, float32 (T, n_vocab), row t after tokens[0..t]; state_<mode>, float32, the state
after the last token, in the flat layout of `twin.model`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODES = ("one", "seq")

Floats = NDArray[np.float32]


def reference(
    checkpoint: Mapping[str, NDArray[np.floating]] | Path, tokens: Sequence[int]
) -> dict[str, tuple[Floats, Floats]]:
    """Logits (T, n_vocab) and final flat state for each of MODES.

    checkpoint: arrays with the official names, or the path of a .pth.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        if isinstance(checkpoint, Path):
            model = checkpoint
        else:
            model = Path(folder) / "model.pth"
            torch.save(
                {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in checkpoint.items()}, model
            )
        tokens_file, out = Path(folder) / "tokens.npy", Path(folder) / "out.npz"
        np.save(tokens_file, np.asarray(tokens))
        command = [sys.executable, __file__, str(model), str(tokens_file), str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        with np.load(out) as results:
            return {mode: (results[f"logits_{mode}"], results[f"state_{mode}"]) for mode in MODES}


def flat_state(state: Sequence[Any], is_v4: bool) -> Floats:
    """The package's list of tensors as one buffer: per layer, the channel mix's shift comes first.

    Its order is time shift, aa, bb, pp, channel shift (v4) or time shift, heads, channel shift.
    """
    size = 5 if is_v4 else 3
    parts = []
    for i in range(0, len(state), size):
        *time_mix, channel_shift = state[i : i + size]
        parts += [channel_shift, *time_mix]
    return np.concatenate([part.numpy().reshape(-1) for part in parts])


def fresh_state(model: Any, model_file: str) -> list[Any] | None:
    """What to begin with where the package does not find it out for itself."""
    import torch

    tensors = torch.load(model_file, map_location="cpu", mmap=True, weights_only=True)
    if os.environ["RWKV_V7_ON"] != "1" or "blocks.0.att.time_state" not in tensors:
        return None
    state: list[Any] = model.generate_zero_state()
    for i in range(len(state) // 3):  # time shift, heads, channel shift
        state[3 * i + 1] = tensors[f"blocks.{i}.att.time_state"].float().clone()
    return state


def main(model_file: str, tokens_file: str, out_file: str) -> None:
    import torch

    keys = torch.load(model_file, map_location="cpu", mmap=True, weights_only=True).keys()
    os.environ["RWKV_V7_ON"] = "1" if "blocks.0.att.r_k" in keys else "0"
    os.environ["RWKV_JIT_ON"] = "0"
    os.environ["RWKV_CUDA_ON"] = "0"
    from rwkv.model import RWKV  # reads the environment

    torch.set_num_threads(1)
    model = RWKV(model=model_file.removesuffix(".pth"), strategy="cpu fp32")
    tokens = np.load(tokens_file).tolist()
    is_v4 = "blocks.0.att.ln_x.weight" not in keys
    results: dict[str, Floats] = {}
    with torch.no_grad():
        rows, state = [], fresh_state(model, model_file)
        for token in tokens:
            logits, state = model.forward([token], state)
            rows.append(logits.reshape(-1).float().numpy().copy())
        results["logits_one"] = np.stack(rows)
        results["state_one"] = flat_state(state, is_v4)

        logits, state = model.forward(tokens, fresh_state(model, model_file), full_output=True)
        results["logits_seq"] = logits.float().numpy().reshape(len(tokens), -1)
        results["state_seq"] = flat_state(state, is_v4)
    np.savez(out_file, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
