"""The same work by us, llama.cpp and the `rwkv` package, in turns, in one run.

    python -m benchmarks.peers --quick

The first run compiles llama.cpp twice (for this processor, and for AVX2 only), which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import machine, report
from .models import SHAPES, Shape, checkpoint, into_page_cache, model_file
from .paths import BUILD, REPO, cache
from .speed import Task, add_output_options, tasks
from .worker import Worker

LLAMA_CPP = "llama-cpp-python==0.3.36"
RWKV_PACKAGE = ("rwkv==0.8.32", "torch==2.13.0", "numpy")

# ---- peers -------------------------------------------------------------------------------------

# Compiled without AMX on purpose: llama.cpp's AMX path crashes on quantised RWKV-7 prompts.
AVX2 = ("AVX", "AVX2", "FMA", "F16C", "BMI2")
AVX512 = {
    "avx512f": "AVX512",
    "avx512vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
}


def _llama_settings(avx2_only: bool) -> list[str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return []  # its own choice
    flags = machine.cpu_flags()
    wanted = list(AVX2)
    if not avx2_only:
        wanted += [name for flag, name in AVX512.items() if flag in flags]
    return ["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in wanted)]


def _environment(name: str, requirements: tuple[str, ...], env: dict[str, str]) -> Path:
    """The interpreter of a virtual environment in the cache, made on first use."""
    folder = cache() / "peers" / name
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        print(f"installing {' '.join(requirements)} into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--no-cache-dir", *requirements]
        log = folder / "install.log"
        with log.open("w") as file:
            finished = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **env}
            )
        if finished.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: failed, see {log}")
        done.touch()
    return python


def llama_cpp(avx2_only: bool) -> Path:
    """The interpreter of an environment with llama.cpp compiled for this machine, or for AVX2."""
    settings = _llama_settings(avx2_only)
    return _environment(
        "llama_cpp-avx2" if avx2_only else "llama_cpp-best",
        ("--no-binary=llama-cpp-python", LLAMA_CPP),
        {"CMAKE_ARGS": " ".join([*settings, "-DLLAVA_BUILD=OFF"])},
    )


def rwkv_package() -> Path:
    """The interpreter of an environment with the `rwkv` package and torch."""
    return _environment("rwkv", RWKV_PACKAGE, {})


def _run_module(python: Path, module: str, *arguments: Path | str) -> None:
    command = [str(python), "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def gguf_file(shape: Shape, dtype: str) -> Path:
    """The checkpoint as llama.cpp's file: fp16 by our writer, the rest by its own quantiser."""
    path = cache() / f"rwkv7-{shape.name}-{dtype}.gguf"
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr)
        if dtype == "fp16":
            from .write_gguf import write_gguf

            write_gguf(checkpoint(shape), path)
        else:
            part = path.with_name(path.name + ".part")
            module = "benchmarks.engines.llama_cpp"
            _run_module(llama_cpp(False), module, gguf_file(shape, "fp16"), part, dtype)
            part.replace(path)
    return path


def pth_file(shape: Shape) -> Path:
    """The checkpoint as the `rwkv` package's file."""
    path = cache() / f"rwkv7-{shape.name}.pth"
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr)
        _run_module(rwkv_package(), "benchmarks.engines.rwkv_package", checkpoint(shape), path)
    return path


# ---- what is compared --------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """An engine with a model file, and how to start it."""

    name: str
    engine: str
    path: Path
    python: Path | str = sys.executable
    level: str | None = None

    @contextmanager
    def open(self, threads: int) -> Iterator[Worker]:
        """A worker that has it loaded."""
        into_page_cache(self.path)
        with Worker(
            self.engine, self.path, threads, python=self.python, level=self.level
        ) as worker:
            yield worker


@dataclass
class Pair:
    """Ours and a peer at the same work.

    Attributes:
        ours, peer: tokens per second, medians.
        ratio: the median of the ratios of neighbouring runs.
    """

    shape: str
    dtype: str
    threads: int
    work: str
    level: str
    ours: float
    peer_name: str
    peer: float
    ratio: float


@dataclass
class Agreement:
    """How far a peer's logits are from ours, after each of some tokens.

    Attributes:
        largest: the largest difference; scale: the largest logit.
        same_token: at how many of `tokens` places both put the same token first.
    """

    shape: str
    dtype: str
    peer_name: str
    largest: float
    scale: float
    same_token: int
    tokens: int


@dataclass
class Results:
    """All that a run found."""

    pairs: list[Pair] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)


def works(dtype: str) -> list[Task]:
    """The work that is compared: all of it in 4 bits, decoding in the other types."""
    decode, prefill, concurrent = tasks([512], [16])
    if dtype == "q4_0":
        return [decode, prefill, concurrent]
    return [decode, prefill] if dtype == "fp32" else [decode]


def contenders(
    shape: Shape, dtype: str, levels: list[str], with_avx2: bool
) -> tuple[list[Contender], list[Contender]]:
    """Our levels and the peers for one model and type."""
    if dtype != "q4_0":
        levels = levels[-1:]
    ours = [
        Contender(f"rwkv-runtime, {level}", "runtime", model_file(shape, dtype), level=level)
        for level in levels
    ]
    if dtype == "fp32":
        return ours, [Contender("rwkv package", "rwkv_package", pth_file(shape), rwkv_package())]
    file = gguf_file(shape, dtype)
    peers = [Contender("llama.cpp", "llama_cpp", file, llama_cpp(False))]
    if with_avx2 and "avx2" in levels:
        peers.append(Contender("llama.cpp, AVX2", "llama_cpp", file, llama_cpp(True)))
    return ours, peers


def compare(
    shape: Shape,
    dtype: str,
    threads: int,
    levels: list[str],
    args: argparse.Namespace,
    results: Results,
) -> None:
    """Opens all contenders for one model, and has them work in turns."""
    ours, peers = contenders(shape, dtype, levels, not args.no_avx2)
    with ExitStack() as stack:
        opened = {c.name: stack.enter_context(c.open(threads)) for c in (*ours, *peers)}
        for name, worker in opened.items():
            results.engines[f"{shape.name} {dtype} {threads} {name}"] = worker.opened
        plan = works(dtype)
        with tqdm(total=len(plan) * args.repeats * len(opened), disable=None, leave=False) as bar:
            for task in plan:
                rates: dict[str, list[float]] = {name: [] for name in opened}
                for _ in range(args.repeats):
                    for name, worker in opened.items():
                        bar.set_description(
                            f"{shape.name} {dtype} {threads} threads {task.name}: {name}"
                        )
                        seconds = worker.ask(**task.request, seconds=args.seconds)["seconds"]
                        rates[name].append(task.tokens / seconds)
                        bar.update()
                for us in ours:
                    for peer in peers:
                        # AVX2 against AVX2, the others against llama.cpp's best.
                        if len(peers) > 1 and (us.level == "avx2") != peer.name.endswith("AVX2"):
                            continue
                        results.pairs.append(
                            Pair(
                                shape.name,
                                dtype,
                                threads,
                                task.name,
                                us.level or "",
                                statistics.median(rates[us.name]),
                                peer.name,
                                statistics.median(rates[peer.name]),
                                statistics.median(
                                    a / b
                                    for a, b in zip(rates[us.name], rates[peer.name], strict=True)
                                ),
                            )
                        )


def check_agreement(shape: Shape, dtype: str, levels: list[str], results: Results) -> None:
    """Whether a peer computes the same model: its logits beside ours, unquantised."""
    ours, peers = contenders(shape, dtype, levels, False)
    tokens = np.random.default_rng(5).integers(1, shape.n_vocab, 16).tolist()
    with tempfile.TemporaryDirectory() as folder:
        logits = []
        for contender in (ours[-1], peers[0]):
            out = Path(folder) / f"{contender.engine}.npy"
            with contender.open(machine.physical_cores()) as worker:
                worker.ask("logits", tokens=tokens, out=str(out))
            logits.append(np.load(out))
    a, b = logits
    results.agreements.append(
        Agreement(
            shape.name,
            dtype,
            peers[0].name,
            float(np.abs(a - b).max()),
            float(np.abs(a).max()),
            int((a.argmax(1) == b.argmax(1)).sum()),
            len(tokens),
        )
    )


# ---- the command -------------------------------------------------------------------------------


def tables(results: Results) -> list[report.Table]:
    """Pairs with ratios, and whether the peers compute the same."""
    pairs = report.Table(
        "Tokens per second, ours and the peer's (all sequences together)",
        ["model", "type", "threads", "work", "our level", "peer", "ours", "peer's", "ratio"],
        [
            [
                p.shape,
                p.dtype,
                str(p.threads),
                p.work,
                p.level,
                p.peer_name,
                report.number(p.ours),
                report.number(p.peer),
                f"{p.ratio:.2f} ×",
            ]
            for p in results.pairs
        ],
        n_labels=6,
    )
    agreement = report.Table(
        "Whether the peer computes the same: logits after 16 random tokens, beside ours",
        ["model", "type", "peer", "largest difference", "largest logit", "same first token"],
        [
            [
                a.shape,
                a.dtype,
                a.peer_name,
                f"{a.largest:.2g}",
                f"{a.scale:.2g}",
                f"{a.same_token} of {a.tokens}",
            ]
            for a in results.agreements
        ],
        n_labels=3,
    )
    return [pairs, agreement] if results.agreements else [pairs]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add = parser.add_argument
    add("--shapes", default="0.1B,0.4B", help=f"of {', '.join(SHAPES)} (default: 0.1B,0.4B)")
    add(
        "--types",
        default="q4_0,q8_0,fp16,fp32",
        help="of q4_0, q8_0, fp16 (llama.cpp) and fp32 (the rwkv package); default: all",
    )
    add("--threads", default=None, help="default: 1 and all physical cores")
    add("--repeats", type=int, default=None, help="turns (default: 7)")
    add("--seconds", type=float, default=None, help="length of a turn (default: 1)")
    add("--no-avx2", action="store_true", help="leave out llama.cpp compiled for AVX2 only")
    add("--quick", action="store_true", help="0.1B in q4_0, three short turns")
    add("--output", type=Path, default=BUILD / "peers", help="where to: .json is added")
    add_output_options(parser)
    args = parser.parse_args(arguments)
    args.repeats = args.repeats or (3 if args.quick else 7)
    args.seconds = args.seconds or (0.3 if args.quick else 1.0)
    args.shapes = ["0.1B"] if args.quick else args.shapes.split(",")
    args.types = ["q4_0"] if args.quick else args.types.split(",")
    cores = machine.physical_cores()
    args.threads = [int(n) for n in args.threads.split(",")] if args.threads else [1, cores]
    for name, chosen, known in (
        ("shapes", args.shapes, tuple(SHAPES)),
        ("types", args.types, ("q4_0", "q8_0", "fp16", "fp32")),
    ):
        if not set(chosen) <= set(known):
            parser.error(f"--{name}: expected some of {', '.join(known)}, got {','.join(chosen)}")
    return args


def main() -> None:
    """The command."""
    args = parse()
    machine.build_native()
    levels = [level for level in machine.levels() if level != "reference"]
    for shape in args.shapes:  # files and peers first
        for dtype in args.types:
            contenders(SHAPES[shape], dtype, levels, not args.no_avx2)
    about = machine.describe()
    results = Results()
    for shape in args.shapes:
        for dtype in args.types:
            if dtype in ("fp16", "fp32"):
                check_agreement(SHAPES[shape], dtype, levels, results)
        if args.quick:
            check_agreement(SHAPES[shape], "fp16", levels, results)
        for dtype in args.types:
            for threads in args.threads:
                compare(SHAPES[shape], dtype, threads, levels, args, results)
    report.publish(
        args,
        "peers",
        machine.sentence(about),
        tables(results),
        {"machine": about, **asdict(results)},
        args.output.with_suffix(".json"),
    )


if __name__ == "__main__":
    main()
