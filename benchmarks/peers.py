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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from . import command, machine, quiet
from .figures import Agreement, Figure, Measurements, Peer
from .models import SHAPES, Shape, checkpoint, converted, into_page_cache, model_file
from .paths import BUILD, REPO, cache
from .speed import Task, choose_levels, numbers, publish, tasks
from .work import work_of
from .worker import Worker

PEERS = ("llama.cpp", "rwkv")
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


def llama_settings(avx2_only: bool) -> list[str]:
    """How llama.cpp is compiled for this machine, or for AVX2 only."""
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
    settings = llama_settings(avx2_only)
    alike = settings == llama_settings(avx2_only=True)  # this processor has no more than AVX2
    return _environment(
        "llama_cpp-avx2" if alike else "llama_cpp-best",
        ("--no-binary=llama-cpp-python", LLAMA_CPP),
        {"CMAKE_ARGS": " ".join([*settings, "-DLLAVA_BUILD=OFF"])},
    )


def rwkv_package() -> Path:
    """The interpreter of an environment with the `rwkv` package and torch."""
    return _environment("rwkv", RWKV_PACKAGE, {})


def run_module(python: Path, module: str, *arguments: Path | str) -> None:
    """Runs a module of this folder in a peer's environment."""
    command = [str(python), "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def gguf_file(shape: Shape, dtype: str) -> Path:
    """The checkpoint as llama.cpp's file: fp16 by rwkv-convert, the rest by its own quantiser."""
    if dtype == "fp16":
        return converted(shape, dtype, ".gguf")
    path = cache() / f"rwkv7-{shape.name}-{dtype}-llama.cpp.gguf"
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr)
        part = path.with_name(path.name + ".part")
        module = "benchmarks.engines.llama_cpp"
        run_module(llama_cpp(False), module, gguf_file(shape, "fp16"), part, dtype)
        part.replace(path)
    return path


def pth_file(shape: Shape) -> Path:
    """The checkpoint as the `rwkv` package's file."""
    path = cache() / f"rwkv7-{shape.name}.pth"
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr)
        run_module(rwkv_package(), "benchmarks.engines.rwkv_package", checkpoint(shape), path)
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

    def can(self, task: Task) -> bool:
        """Whether it can do a piece of work: the `rwkv` package computes one sequence alone."""
        return not (self.engine.startswith("rwkv_package") and "n_sequences" in task.request)

    @contextmanager
    def open(self, threads: int) -> Iterator[Worker]:
        """A worker that has it loaded."""
        into_page_cache(self.path)
        with Worker(
            self.engine, self.path, threads, python=self.python, level=self.level
        ) as worker:
            yield worker


# The types of the table, and what each is held against.
TYPES = {
    "q4_0": ("llama.cpp", "llama.cpp, AVX2"),
    "q8_0": ("llama.cpp", "llama.cpp, AVX2"),
    "q4_K_M": ("llama.cpp", "llama.cpp, AVX2"),
    "fp16": ("llama.cpp", "llama.cpp, AVX2", "rwkv package, bf16"),
    "fp32": ("rwkv package, fp32",),
}


def peer(name: str, shape: Shape, dtype: str) -> Contender:
    """A peer of TYPES with its model file, both made if they are not there yet."""
    if name.startswith("llama.cpp"):
        python = llama_cpp(avx2_only=name.endswith("AVX2"))
        return Contender(name, "llama_cpp", gguf_file(shape, dtype), python)
    precision = name.split()[-1]
    return Contender(name, f"rwkv_package:{precision}", pth_file(shape), rwkv_package())


def opponents(name: str, levels: list[str]) -> list[str]:
    """Which of our levels a peer is held against.

    AVX2 against AVX2, the other levels against llama.cpp compiled for this processor; the `rwkv`
    package, in which torch chooses, against our best.
    """
    if name.endswith("AVX2"):
        return [level for level in levels if level == "avx2"]
    if name.startswith("llama.cpp"):
        return [level for level in levels if level != "avx2"]
    return levels[-1:]


def default_levels(dtype: str, here: list[str]) -> list[str]:
    """Our levels that are measured: all in 4 bits, which matter most; else avx2 and the best."""
    if dtype == "q4_0":
        return [level for level in here if level != "reference"]
    return [level for level in here if level in ("avx2", here[-1])]


def pairs_of(
    shape: Shape, dtype: str, levels: list[str], peers: Sequence[str]
) -> list[tuple[Contender, Contender]]:
    """Ours and a peer, for every pair that is compared with one model and type."""
    return [
        (
            Contender(f"rwkv-runtime, {level}", "runtime", model_file(shape, dtype), level=level),
            peer(name, shape, dtype),
        )
        for level in levels
        for name in TYPES[dtype]
        if name.startswith(tuple(peers)) and level in opponents(name, levels)
    ]


def compare(
    shape: Shape,
    dtype: str,
    threads: int,
    pairs: list[tuple[Contender, Contender]],
    args: argparse.Namespace,
    limits: machine.Limits,
) -> list[Figure]:
    """Opens all contenders for one model, and has them work in turns."""
    found = []
    others = quiet.Others()
    work = work_of(model_file(shape, dtype))
    contenders = {c.name: c for pair in pairs for c in pair}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(c.open(threads)) for name, c in contenders.items()}
        # For each piece of work, the contenders that can do it, and are not alone in that.
        plan = []
        for task in tasks([512], [16]):
            able = [pair for pair in pairs if all(c.can(task) for c in pair)]
            if able:
                plan.append((task, able, {c.name: c for pair in able for c in pair}))
        steps = args.repeats * sum(len(names) for _, _, names in plan)
        with tqdm(total=steps, disable=None, leave=False) as bar:
            for task, able, names in plan:
                rates: dict[str, list[float]] = {name: [] for name in names}
                shares: dict[str, list[float]] = {name: [] for name in names}
                for _ in range(args.repeats):
                    others.look()
                    for name, contender in names.items():
                        bar.set_description(
                            f"{shape.name} {dtype} {threads} threads {task.name}: {name}"
                        )
                        if contender.level is not None:
                            can = limits.measure(work.decode_bytes, threads, contender.level)
                        answer = opened[name].ask(**task.request, seconds=args.seconds)
                        rates[name].append(task.tokens / answer["seconds"])
                        if contender.level is not None:
                            shares[name].append(task.limit(work, can) / answer["seconds"])
                        bar.update()
                disturbance = others.median()
                for us in dict.fromkeys(us for us, _ in able):
                    found.append(
                        Figure(
                            shape.name,
                            dtype,
                            us.level or "",
                            threads,
                            task.name,
                            statistics.median(rates[us.name]),
                            statistics.median(shares[us.name]),
                            tuple(
                                Peer(
                                    them.name,
                                    statistics.median(rates[them.name]),
                                    statistics.median(
                                        ours / theirs
                                        for ours, theirs in zip(
                                            rates[us.name], rates[them.name], strict=True
                                        )
                                    ),
                                )
                                for other, them in able
                                if other == us
                            ),
                            disturbance,
                        )
                    )
    return found


def check_agreement(
    shape: Shape, dtype: str, pairs: list[tuple[Contender, Contender]]
) -> list[Agreement]:
    """Whether the peers compute the same model: their logits beside ours, unquantised."""
    tokens = np.random.default_rng(5).integers(1, shape.n_vocab, 16).tolist()

    def logits(contender: Contender) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "logits.npy"
            with contender.open(machine.physical_cores()) as worker:
                worker.ask("logits", tokens=tokens, out=str(out))
            found: NDArray[np.float32] = np.load(out)
            return found

    found = []
    peers = {them.name: (us, them) for us, them in pairs}
    for name, (us, them) in peers.items():
        a, b = logits(us), logits(them)
        found.append(
            Agreement(
                shape.name,
                dtype,
                name,
                float(np.abs(a - b).max()),
                float(np.abs(a).max()),
                int((a.argmax(1) == b.argmax(1)).sum()),
                len(tokens),
            )
        )
    return found


# ---- the command -------------------------------------------------------------------------------


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add = parser.add_argument
    add("--shapes", default="0.1B,0.4B", help=f"of {', '.join(SHAPES)} (default: 0.1B,0.4B)")
    add("--types", default=",".join(TYPES), help=f"default: {','.join(TYPES)}")
    add("--levels", default=None, help="ours (default: all for q4_0, else avx2 and the best)")
    add("--peers", default=",".join(PEERS), help=f"default: {','.join(PEERS)}")
    add("--threads", default=None, help="default: 1 and all physical cores")
    add("--repeats", type=int, default=None, help="turns (default: 7)")
    add("--seconds", type=float, default=None, help="length of a turn (default: 1)")
    add("--quick", action="store_true", help="0.1B in q4_0, three short turns")
    add("--output", type=Path, default=BUILD / "peers", help="where to: .json is added")
    args = command.parse(parser, arguments)
    args.repeats = args.repeats or (3 if args.quick else 7)
    args.seconds = args.seconds or (0.3 if args.quick else 1.0)
    args.shapes = ["0.1B"] if args.quick else args.shapes.split(",")
    args.types = ["q4_0"] if args.quick else args.types.split(",")
    cores = machine.physical_cores()
    args.threads = numbers(args.threads) if args.threads else sorted({1, cores})
    args.peers = args.peers.split(",")
    for name, chosen, known in (
        ("shapes", args.shapes, tuple(SHAPES)),
        ("types", args.types, tuple(TYPES)),
        ("peers", args.peers, PEERS),
    ):
        if not set(chosen) <= set(known):
            parser.error(f"--{name}: expected some of {', '.join(known)}, got {','.join(chosen)}")
    return args


def main() -> None:
    """The command."""
    args = parse()
    machine.build_native()
    here = choose_levels("all", False)
    wanted = choose_levels(args.levels, False) if args.levels else None
    plan = []
    for name in args.shapes:
        for dtype in args.types:  # files and peers are made here, before anything is measured
            levels = wanted or default_levels(dtype, here)
            pairs = pairs_of(SHAPES[name], dtype, levels, args.peers)
            if pairs:
                plan.append((SHAPES[name], dtype, pairs))
    if not plan:
        raise SystemExit("no peer has these types and levels, see --types, --levels and --peers")
    if args.docs:
        quiet.require(quiet.now())
    about = machine.describe()
    found = Measurements()
    limits = machine.Limits()
    for shape, dtype, pairs in plan:
        if dtype in ("fp16", "fp32"):
            found.agreements += check_agreement(shape, dtype, pairs)
        elif args.quick:
            first = pairs_of(shape, "fp16", here[-1:], PEERS[:1])
            found.agreements += check_agreement(shape, "fp16", first)
        for threads in args.threads:
            found.figures += compare(shape, dtype, threads, pairs, args, limits)
    publish(args, "bench:peers", about, found)


if __name__ == "__main__":
    main()
