"""Does it matter how many files a checkpoint is in? Time and memory of rwkv-convert.

    python -m benchmarks.conversion

The same tensors as one .pth, one .safetensors file and four shards, converted in turns, each by a
process of its own. What is read was read before, so no disk is measured; what is written goes
where --folder says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from . import machine, quiet, report
from .models import GGMF_TYPES, SHAPES, Shape, checkpoint, into_page_cache
from .paths import BUILD, cache
from .pth_file import write_pth
from .safetensors_file import read_safetensors, write_safetensors
from .units import number

N_SHARDS = 4


def shards(shape: Shape) -> Path:
    """A folder with a checkpoint's index and N_SHARDS files, from the cache."""
    folder = cache() / f"rwkv7-{shape.name}-{N_SHARDS}-shards"
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return index
    folder.mkdir(exist_ok=True)
    tensors = read_safetensors(checkpoint(shape))
    limit = sum(tensor.nbytes for tensor in tensors.values()) / N_SHARDS
    parts: list[dict[str, Any]] = [{}]
    for name, tensor in tensors.items():
        if len(parts) < N_SHARDS and sum(t.nbytes for t in parts[-1].values()) >= limit:
            parts.append({})
        parts[-1][name] = tensor
    files: dict[str, str] = {}
    for i, part in enumerate(parts):
        path = folder / f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        write_safetensors(path, {name: t.shape for name, t in part.items()}, part.values())
        files |= dict.fromkeys(part, path.name)
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def pth(shape: Shape) -> Path:
    """The same tensors as a .pth, from the cache."""
    path = cache() / f"rwkv7-{shape.name}.pth"
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            write_pth(temporary, read_safetensors(checkpoint(shape)))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


SOURCES: dict[str, Callable[[Shape], Path]] = {
    "one .pth": pth,
    "one .safetensors": checkpoint,
    f"{N_SHARDS} shards": shards,
}


def files_of(source: Path) -> Iterator[Path]:
    """What a conversion reads."""
    yield from source.parent.glob("*.safetensors") if source.suffix == ".json" else (source,)


# Its memory is told by the process itself: what wait4 says includes the parent's, before exec.
CONVERT = """
import sys, time
start = time.monotonic()
import rwkv_convert
rwkv_convert.convert(sys.argv[1], sys.argv[2], dtype=sys.argv[3], force=True)
seconds = time.monotonic() - start
with open("/proc/self/status") as file:
    print(seconds, int(file.read().split("VmHWM:")[1].split()[0]) << 10)
"""


def convert(source: Path, out: Path, dtype: str) -> tuple[float, int]:
    """Seconds, and the largest resident memory in bytes, of a process that converts."""
    command = [sys.executable, "-c", CONVERT, str(source), str(out), dtype]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, size = done.stdout.split()
    return float(seconds), int(size)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each source's seconds and memory in args.repeats turns."""
    sources = {name: make(SHAPES[args.shape]) for name, make in SOURCES.items()}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in sources}
    for source in sources.values():
        for path in files_of(source):
            into_page_cache(path)
    with (
        TemporaryDirectory(dir=args.folder) as folder,
        tqdm(total=args.repeats * len(sources), disable=None, unit="file") as bar,
    ):
        for _ in range(args.repeats):
            for name, source in sources.items():
                bar.set_description(name)
                found[name].append(convert(source, Path(folder) / "out.bin", args.type))
                bar.update()
    first = [seconds for seconds, _ in next(iter(found.values()))]
    return [
        {
            "source": name,
            "seconds": statistics.median(seconds for seconds, _ in turns),
            "of the first": statistics.median(
                seconds / other for (seconds, _), other in zip(turns, first, strict=True)
            ),
            "bytes": max(size for _, size in turns),
        }
        for name, turns in found.items()
    ]


def table(args: argparse.Namespace, found: list[dict[str, Any]]) -> report.Table:
    """A row for each source."""
    return report.Table(
        f"{args.shape} to {args.type}: medians of {args.repeats} turns",
        ["source", "seconds", "of the first", "most memory, MiB"],
        [
            [row["source"], number(row["seconds"]), f"{row['of the first']:.2f} ×",
             number(row["bytes"] / 2**20)]
            for row in found
        ],
    )  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.conversion", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--shape", choices=tuple(SHAPES), default="1.5B", help="default: 1.5B")
    add("--type", choices=GGMF_TYPES, default="q4_0", help="default: q4_0")
    add("--repeats", type=int, default=5, help="turns (default: 5)")
    add("--folder", type=Path, default=None, help="written to (default: for temporary files)")
    add("--output", type=Path, default=BUILD / "conversion", help="where to: .json is added")
    add("--markdown", action="store_true", help="print the table as Markdown too")
    args = parser.parse_args()
    about = machine.describe() | {"others": quiet.now()}
    found = measure(args)
    result = {"machine": about, "conversion": found}
    report.publish(args, [table(args, found)], result, args.output.with_suffix(".json"))


if __name__ == "__main__":
    main()
