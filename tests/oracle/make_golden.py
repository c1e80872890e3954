"""Makes tests/golden/*.npz: the reference's logits, so that comparing with it needs no torch.

    PYTHONPATH=tests python tests/oracle/make_golden.py

rwkv-<version>-<heads>x<head size>.npz, one per version and head count, of random weights. Keys:

    version    str, one of twin.synth.VERSIONS
    n_layer, n_embd, head_size, n_vocab, seed
               int, the other arguments of twin.synth.checkpoint; all else is its defaults
    tokens     int64 (64,), fed to a fresh state
    logits     float32 (64, n_vocab), row t after tokens[0..t]: PyPI rwkv 0.8.32, "cpu fp32", token
               by token, RWKV-5 with its group-norm epsilon of 64e-5
    state      float32, the flat state after the last token; only in the files of the narrower
               models, to keep the folder small

rwkv7-pydoc.npz, of the trained checkpoint in examples/. Keys: tokens int64 (64,), the first bytes
of heldout_a.txt; logits float32 (64, 256), as above.

In a test:

    from twin.golden import GOLDEN, load_golden
    golden = load_golden("rwkv-7-2x64")
    ggmf.write(path, ggmf.convert_reference(golden.checkpoint()))
"""

from pathlib import Path

import numpy as np

from oracle.reference_rwkv import reference
from twin.synth import VERSIONS, checkpoint

TESTS = Path(__file__).resolve().parent.parent
FOLDER = TESTS / "golden"
EXAMPLES = TESTS.parent / "examples"
N_TOKENS = 64
N_VOCAB = 64
HEADS = ((2, 64), (3, 32))  # number of heads, head size; v4 has the same widths, without heads


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for version in VERSIONS:
        for seed, (heads, head_size) in enumerate(HEADS, start=1):
            config = {
                "n_layer": 3,
                "n_embd": heads * head_size,
                "head_size": head_size,
                "n_vocab": N_VOCAB,
                "seed": seed,
            }
            tokens = np.random.RandomState(seed).randint(0, N_VOCAB, N_TOKENS)
            results = reference(checkpoint(version, **config), tokens)
            logits, state = results["one"]
            arrays = {"tokens": tokens, "logits": logits}
            if (heads, head_size) == HEADS[-1]:
                arrays["state"] = state
            path = FOLDER / f"rwkv-{version}-{heads}x{head_size}.npz"
            np.savez_compressed(path, version=version, **config, **arrays)
            difference = np.abs(logits - results["seq"][0]).max()
            print(f"{path.name}: {path.stat().st_size} bytes, modes differ by {difference:.1e}")

    tokens = list((EXAMPLES / "heldout_a.txt").read_bytes()[:N_TOKENS])
    logits, _ = reference(EXAMPLES / "rwkv7-pydoc-L6-D256.pth", tokens)["one"]
    np.savez_compressed(FOLDER / "rwkv7-pydoc.npz", tokens=tokens, logits=logits)


if __name__ == "__main__":
    main()
