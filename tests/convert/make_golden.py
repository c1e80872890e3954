"""Writes golden.json: the sha256 of what the converter makes of small checkpoints, by version.

Run `python tests/convert/make_golden.py` only when the format is to change; the tests compare.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import rwkv_convert  # noqa: E402
from convert.checkpoint_writers import views, write_pth  # noqa: E402
from twin import synth  # noqa: E402

GOLDEN = HERE / "golden.json"
DTYPES = ("fp32", "fp16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
LAYOUTS = ("default", "rwkv.cpp")


def golden_checkpoint(version: str) -> dict[str, synth.Array]:
    """The checkpoint that the digests belong to: 2 layers, 2 heads of 32, vocabulary 96."""
    return synth.checkpoint(version, n_layer=2, n_embd=64, head_size=32, n_vocab=96, seed=7)


def digests(version: str, folder: Path) -> dict[str, str]:
    """`layout/dtype` -> sha256 of the model file, from a `.pth` in fp32."""
    source = write_pth(folder / "in.pth", views(golden_checkpoint(version), "fp32"))
    result = {}
    for layout in LAYOUTS:
        for dtype in DTYPES:
            output = folder / "out.bin"
            rwkv_convert.convert(source, output, dtype=dtype, layout=layout, force=True)
            result[f"{layout}/{dtype}"] = hashlib.sha256(output.read_bytes()).hexdigest()
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {version: digests(version, Path(folder)) for version in synth.VERSIONS}
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
