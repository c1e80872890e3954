"""Damages files of every kind that is read in Python, and gives them to the readers.

    python -m convert.fuzz_readers SECONDS SEED FOLDER

does so for a while, writes what broke a reader into a folder, and ends with exit code 1 if anything
did. An input breaks a reader if anything but a ConvertError comes out, if it takes more than 1 s of
processor time, if it takes more memory than twice the file and 64 MB, or if something is left
behind in the output's folder.
"""

import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import rwkv_convert
from convert.checkpoint_writers import (
    dictionary,
    global_,
    integer,
    text,
    views,
    write_legacy_pth,
    write_pth,
    write_safetensors,
)
from convert.layout_writers import fla_6, fla_7_stacked, transformers
from convert.mutations import mutate
from convert.structured_mutations import mutate_structure
from twin import ggmf, gguf, synth
from twin.block_types import quantize

SIZES = {"n_layer": 1, "n_embd": 32, "head_size": 32, "n_vocab": 8, "rank": 4}
CHECKPOINT = synth.checkpoint("7", **SIZES)
CPU_SECONDS = 1
FREE_BYTES = 64 << 20
STACK_BYTES = 8 << 20


@dataclass(frozen=True)
class Kind:
    """Something that is given to the converter.

    Attributes:
        write: writes it into a folder; every file of the folder is damaged in turn.
        source: what of the folder the converter is given; "" is the folder.
        options: for the converter; those that are of type Path are files of the folder.
    """

    write: Callable[[Path], object]
    source: str = "in"
    options: dict[str, object] = field(default_factory=dict)


def _ggmf(folder: Path) -> None:
    ggmf.write(folder / "in", ggmf.convert_reference(CHECKPOINT, "fp16"), "fp16")


def _gguf(folder: Path) -> None:
    tensors = {n: quantize(x, "fp32") for n, x in gguf.transform(CHECKPOINT).items()}
    gguf.write(folder / "in", gguf.values(CHECKPOINT, "7", 32), tensors)


def _nested(writer: Callable[..., Path]) -> Callable[[Path], object]:
    """A model in a dict, beside what trainers keep."""

    def write(folder: Path) -> None:
        tensors = views(CHECKPOINT, "fp16")
        state = dictionary(tensors, ordered=True, legacy=writer is write_legacy_pth)[2:-1]
        beside = {
            "hyper": global_("argparse", "Namespace") + b")\x81}" + text("lr") + b"Nsb",
            "groups": global_("collections", "defaultdict")
            + global_("__builtin__", "list")
            + b"\x85R(" + text("a") + b"]u",
            "shape": global_("torch", "Size") + b"(K\x01K\x02t\x85R",
            "epoch": integer(3),
        }  # fmt: skip
        items = b"".join(text(name) + value for name, value in beside.items())
        pickle = b"\x80\x02}(" + items + text("model") + b"}" + text("module") + state + b"su."
        writer(folder / "in", tensors, pickle=pickle)

    return write


def _shards(writer: Callable[[Path, dict], object], name: str) -> Callable[[Path], object]:
    """A folder with a model in two shards, their index, and a config.json."""

    def write(folder: Path) -> None:
        theirs = list(fla_7_stacked(CHECKPOINT).items())
        stem, end = name.split("-{}")
        places = {}
        for number, some in enumerate((theirs[:20], theirs[20:]), start=1):
            path = folder / name.format(f"{number:05}-of-00002")
            writer(path, dict(some))
            places |= {tensor: path.name for tensor, _ in some}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / f"{stem}{end}.index.json").write_text(json.dumps(index))
        config = {
            "model_type": "rwkv7",
            "architectures": ["RWKV7ForCausalLM"],
            "num_hidden_layers": 1,
            "norm_eps": 1e-5,
            "embedding_layer_norm_fused": False,
            "tie_word_embeddings": False,
        }
        (folder / "config.json").write_text(json.dumps(config))

    return write


def _fine_tuning(folder: Path) -> None:
    """A model, and what LoRA adds to two of its matrices."""
    write_safetensors(folder / "in", CHECKPOINT, "bf16")
    factors = {}
    for name in ("blocks.0.att.key", "blocks.0.ffn.value"):
        rows, columns = CHECKPOINT[f"{name}.weight"].shape
        factors[f"{name}.lora_A"] = CHECKPOINT["emb.weight"].reshape(-1)[: 2 * columns]
        factors[f"{name}.lora_B"] = CHECKPOINT["head.weight"].reshape(-1)[: 2 * rows]
        factors[f"{name}.lora_A"] = factors[f"{name}.lora_A"].reshape(2, columns)
        factors[f"{name}.lora_B"] = factors[f"{name}.lora_B"].reshape(rows, 2)
    write_pth(folder / "lora", views(factors, "fp32"))


def _tuned_state(folder: Path) -> None:
    write_safetensors(folder / "in", CHECKPOINT, "bf16")
    state = {"blocks.0.att.time_state": CHECKPOINT["blocks.0.att.key.weight"].reshape(1, 32, 32)}
    write_pth(folder / "state", views(state, "fp32"))


def _vocabulary(folder: Path) -> None:
    """A model, and the vocabulary for its GGUF file."""
    write_safetensors(folder / "in", CHECKPOINT, "bf16")
    lines = ["1 'a' 1", r"2 b'\xff' 1", "3 'é' 2", r"4 '\n' 1", "5 '\"' 1", "7 'ab' 2"]
    (folder / "tokens").write_text("\n".join(lines) + "\n", encoding="utf-8")


KINDS: dict[str, Kind] = {
    "zip": Kind(lambda folder: write_pth(folder / "in", views(CHECKPOINT, "bf16"))),
    "legacy": Kind(lambda folder: write_legacy_pth(folder / "in", views(CHECKPOINT, "bf16"))),
    "nested-zip": Kind(_nested(write_pth)),
    "nested-legacy": Kind(_nested(write_legacy_pth)),
    "safetensors": Kind(lambda folder: write_safetensors(folder / "in", CHECKPOINT, "bf16")),
    "fla-6": Kind(
        lambda folder: write_safetensors(
            folder / "in", fla_6(synth.checkpoint("6", **SIZES, rank_wide=4)), "fp16"
        )
    ),
    "transformers-4": Kind(
        lambda folder: write_pth(
            folder / "in",
            views(transformers(synth.checkpoint("4", **SIZES)), "fp32"),
        )
    ),
    "shards": Kind(
        _shards(lambda path, some: write_safetensors(path, some, "bf16"), "model-{}.safetensors"),
        "",
    ),
    "pytorch-shards": Kind(
        _shards(lambda path, some: write_pth(path, views(some, "bf16")), "pytorch_model-{}.bin"),
        "pytorch_model.bin.index.json",
    ),
    "fine-tuning": Kind(_fine_tuning, options={"merge": Path("lora"), "merge_alpha": 2.0}),
    "state": Kind(_tuned_state, options={"time_state": Path("state")}),
    "vocabulary": Kind(_vocabulary, options={"tokenizer": Path("tokens"), "container": "gguf"}),
    "ggmf": Kind(_ggmf),
    "gguf": Kind(_gguf),
}


class TooSlowError(Exception):
    """An input took too much processor time."""


class Fuzzer:
    """Damaged inputs of a kind, one after another.

    Attributes:
        name, data: the file that is damaged now, and its bytes.
        refused: how many inputs were, of those before.
    """

    def __init__(self, kind: str, folder: Path, seed: object = "") -> None:
        self._kind = KINDS[kind]
        self._numbers = random.Random(f"{kind}{seed}")
        self._folder = folder / "in"
        self._out = folder / "out"
        for each in (self._folder, self._out):
            each.mkdir(parents=True)
        self._kind.write(self._folder)
        self._good = {path.name: path.read_bytes() for path in sorted(self._folder.iterdir())}
        self.name, self.data = next(iter(self._good.items()))
        self.refused = 0

    def step(self) -> None:
        """Converts the next one: only a ConvertError may come out, and nothing is left behind."""
        (self._folder / self.name).write_bytes(self._good[self.name])
        self.name = self._numbers.choice(list(self._good))
        good = self._good[self.name]
        by_structure = self._numbers.random() < 0.7
        self.data = (mutate_structure if by_structure else mutate)(good, self._numbers)
        path = self._folder / self.name
        path.write_bytes(self.data)
        if len(self._good) > 2 and self._numbers.random() < 0.01:
            path.unlink()
        started = time.process_time()
        try:
            self._convert()
        except rwkv_convert.ConvertError as error:
            self.refused += 1
            assert str(error).isprintable() and len(str(error)) < 2000
            assert all(path.name == "a.bin" for path in self._out.iterdir())
        if time.process_time() - started > CPU_SECONDS:
            raise TooSlowError(f"{time.process_time() - started:.1f} s of processor time")

    def converts(self) -> None:
        """Converts the good files."""
        (self._folder / self.name).write_bytes(self._good[self.name])
        self._convert()

    def _convert(self) -> None:
        options = {
            name: self._folder / value if isinstance(value, Path) else value
            for name, value in self._kind.options.items()
        }
        rwkv_convert.convert(
            self._folder / self._kind.source if self._kind.source else self._folder,
            self._out / "a.bin",
            dtype="q4_0",
            force=True,
            threads=1,
            **options,  # type: ignore[arg-type]
        )


def _limit_memory() -> None:
    """From now on this process may take FREE_BYTES more, and the stack of a thread.

    The files here are so small that twice their size does not count. Needs MALLOC_ARENA_MAX=1 in
    the environment: else each thread reserves 64 MB for itself.
    """
    status = Path("/proc/self/status").read_text()
    now = 1024 * int(next(line.split()[1] for line in status.splitlines() if "VmSize" in line))
    limit = now + FREE_BYTES + STACK_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _too_slow(*_: object) -> None:
    raise TooSlowError("does not end")


def main(seconds: float, seed: str, findings: Path) -> int:
    end = time.monotonic() + seconds
    executions, broken = 0, 0
    signal.signal(signal.SIGPROF, _too_slow)
    with tempfile.TemporaryDirectory() as folder:
        fuzzers = {kind: Fuzzer(kind, Path(folder) / kind, seed) for kind in KINDS}
        for fuzzer in fuzzers.values():
            fuzzer.converts()  # imports what there is to import
        _limit_memory()
        while time.monotonic() < end:
            for kind, fuzzer in fuzzers.items():
                executions += 1
                signal.setitimer(signal.ITIMER_PROF, 10 * CPU_SECONDS)
                try:
                    fuzzer.step()
                except Exception as error:
                    broken += 1
                    path = findings / f"python-{kind}-{seed}-{executions}-{fuzzer.name}"
                    path.write_bytes(fuzzer.data)
                    print(f"{path}: {type(error).__name__}: {error}", flush=True)
                signal.setitimer(signal.ITIMER_PROF, 0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"executions: {executions}, {memory:.1f} MB")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
