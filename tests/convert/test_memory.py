"""Memory does not grow with the model, nor with the number of its files."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from twin import synth

SIZES = {"n_layer": 4, "n_embd": 64, "n_vocab": 40, "n_ffn": 256}
LARGER = {64: 2048, 40: 16384, 256: 8192, 1: 1}
MAX_BYTES = 150 << 20
"""Python with numpy takes 30 MiB of it, and each of two threads a few."""


def write_zeros(folder, count):
    """A model of 0.5 GB in shards, which take no room on a file system that has holes."""
    small = synth.checkpoint("4", **SIZES)
    shapes = {name: [LARGER[n] for n in array.shape] for name, array in small.items()}
    names = list(shapes)
    for i in range(count):
        header, at = {}, 0
        for name in names[i * len(names) // count : (i + 1) * len(names) // count]:
            size = 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        with (folder / f"model-{i + 1:05}-of-{count:05}.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + at)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by /proc")
@pytest.mark.parametrize("count", [1, 4])
def test_shards_take_as_much_memory_as_one_file(tmp_path, count):
    write_zeros(tmp_path, count)
    code = (
        "import sys, rwkv_convert\n"
        "rwkv_convert.convert(sys.argv[1], sys.argv[2], dtype='q4_0', threads=2)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, tmp_path / "out.bin"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) * 1024 < MAX_BYTES
