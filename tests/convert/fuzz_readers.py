"""Damages files of every kind that is read in Python, and gives them to the readers.

    python -m convert.fuzz_readers SECONDS SEED FOLDER

does so for a while, writes what broke a reader into a folder, and ends with exit code 1 if anything
did.
"""

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import rwkv_convert
from convert.checkpoint_writers import views, write_legacy_pth, write_pth, write_safetensors
from convert.mutations import mutate, mutate_gguf
from twin import ggmf, gguf, synth
from twin.block_types import quantize

CHECKPOINT = synth.checkpoint("7", n_layer=1, n_embd=32, head_size=32, n_vocab=8, rank=4)


def _ggmf(path):
    ggmf.write(path, ggmf.convert_reference(CHECKPOINT, "fp16"), "fp16")
    return path


def _gguf(path):
    tensors = {n: quantize(x, "fp32") for n, x in gguf.transform(CHECKPOINT).items()}
    return gguf.write(path, gguf.values(CHECKPOINT, "7", 32), tensors)


KINDS = {
    "zip": lambda path: write_pth(path, views(CHECKPOINT, "bf16")),
    "legacy": lambda path: write_legacy_pth(path, views(CHECKPOINT, "bf16")),
    "safetensors": lambda path: write_safetensors(path, CHECKPOINT, "bf16"),
    "ggmf": _ggmf,
    "gguf": _gguf,
}


class Fuzzer:
    """Damaged files of a kind, one after another.

    Attributes:
        data: the present one.
        refused: how many were, of those before.
    """

    def __init__(self, kind: str, folder: Path, seed: object = "") -> None:
        self._kind = kind
        self._numbers = random.Random(f"{kind}{seed}")
        self._source = folder / "in"
        self._out = folder / "out"
        self._out.mkdir()
        self._good = KINDS[kind](self._source).read_bytes()
        self.data = self._good
        self.refused = 0

    def step(self) -> None:
        """Converts the next one: only a ConvertError may come out, and nothing is left behind."""
        by_structure = self._kind == "gguf" and self._numbers.random() < 0.7
        self.data = (mutate_gguf if by_structure else mutate)(self._good, self._numbers)
        self._source.write_bytes(self.data)
        started = time.process_time()
        try:
            rwkv_convert.convert(
                self._source, self._out / "a.bin", dtype="q4_0", force=True, threads=1
            )
        except rwkv_convert.ConvertError as error:
            self.refused += 1
            assert str(error).isprintable() and len(str(error)) < 2000
            assert all(path.name == "a.bin" for path in self._out.iterdir())
        assert time.process_time() - started < 1


def main(seconds: float, seed: str, findings: Path) -> int:
    end = time.monotonic() + seconds
    executions, broken = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        fuzzers = {}
        for kind in KINDS:
            (Path(folder) / kind).mkdir()
            fuzzers[kind] = Fuzzer(kind, Path(folder) / kind, seed)
        while time.monotonic() < end:
            for kind, fuzzer in fuzzers.items():
                executions += 1
                try:
                    fuzzer.step()
                except Exception as error:
                    broken += 1
                    path = findings / f"python-{kind}-{seed}-{executions}"
                    path.write_bytes(fuzzer.data)
                    print(f"{path}: {type(error).__name__}: {error}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"executions: {executions}, {memory:.1f} MB")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
