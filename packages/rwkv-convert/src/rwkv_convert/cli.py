"""The command `rwkv-convert`."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import signal
import sys
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

from . import __version__
from .convert import LAYOUTS, Summary, convert
from .element_types import OUTPUT_TYPES, parse_output_type
from .errors import ConvertError, OptionError
from .model_info import ModelInfo, TypeUse, info

EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143

_DESCRIPTION = """\
Convert an RWKV checkpoint (.pth, .safetensors, or a ggmf .bin of type fp32 or fp16) to a ggmf model
file. Versions 4, 5.1, 5.2, 6 and 7 are told apart by their tensors."""

_EPILOG = """\
examples:
  rwkv-convert model.pth model.bin --dtype q4_0
  rwkv-convert model.pth model.bin --dtype q5_1 --head-dtype fp16
  rwkv-convert model.pth model.bin --dtype q4_0 --time-state tuned.pth
  rwkv-convert --info model.bin"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 refused, 2 usage, 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.info is not None and options.src is not None:
        parser.error("--info takes one file and converts nothing")
    if options.info is None and options.dst is None:
        parser.error("expected the file to read and the file to write")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold what stdout cannot
        sys.stdout.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        if options.info is not None:
            found = info(options.info)
            print(_as_json(found) if options.json else _describe(found))
        else:
            _convert(options)
    except OptionError as error:
        parser.error(str(error))
    except ConvertError as error:
        _say(f"error: {error}")
        return EXIT_REFUSED
    except KeyboardInterrupt:
        _say("interrupted, nothing was written")
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rwkv-convert",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    types = ", ".join(OUTPUT_TYPES)
    add = parser.add_argument
    add("src", nargs="?", metavar="IN", help="the checkpoint to read")
    add("dst", nargs="?", metavar="OUT", help="the model file to write")
    add("--dtype", default="fp16", type=_type, help=f"{types} (default: fp16)")
    in_quantized = "(default: q8_0 in a quantised file)"
    add("--head-dtype", type=_type, metavar="DTYPE", help=f"type of head.weight {in_quantized}")
    add("--emb-dtype", type=_type, metavar="DTYPE", help=f"type of emb.weight {in_quantized}")
    add(
        "--lowrank-dtype",
        type=_type,
        metavar="DTYPE",
        help=f"type of the low-rank matrices of RWKV-6 and 7 {in_quantized}",
    )
    add(
        "--layout",
        default="default",
        choices=LAYOUTS,
        help="rwkv.cpp: choose all types as rwkv.cpp's own converter and quantiser do",
    )
    add(
        "--time-state",
        metavar="FILE",
        help="an initial state from state tuning, to be kept in OUT (default: that of IN, if any)",
    )
    add("--force", action="store_true", help="replace OUT if it exists")
    add("--threads", type=int, help="threads to use (default: one per processor)")
    add("--info", metavar="FILE", help="describe a checkpoint or model file and convert nothing")
    add("--json", action="store_true", help="print the description or summary as JSON")
    add("--quiet", action="store_true", help="no progress bar and no summary")
    add("--version", action="version", version=f"rwkv-convert {__version__}")
    return parser


def _type(text: str) -> str:
    try:
        return parse_output_type(text).name
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("dtype: ")) from None


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Ends as an exception, so that the unfinished file is removed."""
    sys.exit(EXIT_TERMINATED)


def _convert(options: argparse.Namespace) -> None:
    # With disable=None tqdm stays silent where stderr is no terminal.
    with tqdm(
        desc="converting",
        unit="B",
        unit_scale=True,
        leave=False,
        disable=True if options.quiet else None,
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        summary = convert(
            options.src,
            options.dst,
            dtype=options.dtype,
            head_dtype=options.head_dtype,
            emb_dtype=options.emb_dtype,
            lowrank_dtype=options.lowrank_dtype,
            layout=options.layout,
            time_state=options.time_state,
            force=options.force,
            progress=progress,
            threads=options.threads,
        )
    for warning in summary.warnings:
        _say(f"warning: {warning}")
    if options.json:
        print(_as_json(summary))
    elif not options.quiet:
        print(_summarize(summary))


def _as_json(value: ModelInfo | Summary) -> str:
    return json.dumps(dataclasses.asdict(value), indent=2)


def _describe(model: ModelInfo) -> str:
    heads = f"{model.n_head} heads of {model.head_size}" if model.n_head else "no heads"
    lines = [
        f"{model.path}: RWKV-{model.version}, {model.container}",
        f"  layers      {model.n_layer}",
        f"  width       {model.n_embd} ({heads}), channel mix {model.n_ffn}",
        f"  vocabulary  {model.n_vocab}",
        f"  parameters  {model.parameters:,}",
        f"  size        {_size(model.file_bytes)}",
        *_type_lines(model.types),
    ]
    if model.has_time_state:
        lines.append("  begins with its own initial state")
    if model.unused:
        lines.append(f"  unused      {', '.join(map(ascii, model.unused))}")
    return "\n".join(lines)


def _summarize(summary: Summary) -> str:
    source = summary.source
    lines = [
        f"{summary.path}: RWKV-{source.version}, {source.n_layer} layers, "
        f"width {source.n_embd}, vocabulary {source.n_vocab}, {source.parameters:,} parameters",
        f"  size        {_size(source.file_bytes)} -> {_size(summary.file_bytes)} "
        f"in {summary.seconds:.1f} s",
        *_type_lines(summary.types),
    ]
    if summary.time_state is not None:
        lines.append(f"  begins with the initial state of {summary.time_state}")
    return "\n".join(lines)


def _type_lines(types: dict[str, TypeUse]) -> list[str]:
    """The types, first the one that takes most of the file."""
    largest_first = sorted(types.items(), key=lambda item: -item[1].bytes)
    return [
        f"  {name:<10}  {use.tensors} tensors, {use.parameters:,} parameters, {_size(use.bytes)}"
        for name, use in largest_first
    ]


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _say(text: str) -> None:
    print(f"rwkv-convert: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
