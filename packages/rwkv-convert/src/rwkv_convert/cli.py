"""What the command `rwkv-convert` does: its arguments, and what it tells."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import NoReturn

from . import __version__
from .conversion import LAYOUTS, QUALITIES, Progress, Summary, convert
from .ending import NAME, UsageError, answer, in_options, mention, run, say
from .errors import OptionError
from .model_info import ModelInfo, TypeUse, info
from .weight_types import CONTAINERS, DTYPES, FALLBACKS, GGMF_TYPES, parse_dtype

_DESCRIPTION = """\
Convert an RWKV checkpoint (.pth, .safetensors, a ggmf .bin or llama.cpp's .gguf; whole, in shards,
or on a hub) to a model file: ggmf, or GGUF where OUT ends in .gguf (versions 6 and 7). Versions 4,
5.1, 5.2, 6 and 7 are told apart by their tensors, whoever named them."""

_EPILOG = """\
examples:
  rwkv-convert model.pth model.bin --dtype q4_0
  rwkv-convert model.pth model.bin FP16
  rwkv-convert model.pth model.bin --dtype q4_0 --quality best
  rwkv-convert model.pth model.bin --dtype q5_1 --head-dtype fp16
  rwkv-convert model.pth model.bin --dtype q4_0 --time-state tuned.pth
  rwkv-convert model.pth model.gguf --dtype q8_0
  rwkv-convert hf://OWNER/NAME model.bin --dtype q4_0
  rwkv-convert model.pth model.gguf --dtype q4_K_M --imatrix model.imatrix.gguf
  rwkv-convert --info model.bin"""


def main(arguments: list[str]) -> int:
    """Does what the command is asked for; returns its exit code, see `ending`."""
    return run(lambda: command(arguments))


def command(arguments: list[str]) -> None:
    """Does what the command is asked for.

    Raises:
        UsageError: the arguments make no sense.
        ConvertError: the conversion failed.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help or options.version:
        text = parser.format_help().rstrip() if options.help else f"{NAME} {__version__}"
        answer(text.splitlines())
        return
    if options.info is not None and options.src is not None:
        parser.error("--info takes one file and converts nothing")
    if options.info is None and options.dst is None:
        parser.error("expected the file to read and the file to write")
    if options.type is not None and options.dtype is not None:
        parser.error("expected DTYPE or --dtype, got both")
    try:
        if options.info is not None:
            found = info(options.info, key=options.key, ignore=options.ignore)
            answer(_as_json(found) if options.json else _describe(found))
        else:
            _convert(options)
    except OptionError as error:
        option = "--" + error.option.replace("_", "-")
        parser.error(f"argument {option}: {in_options(error.problem)}")


class _Parser(argparse.ArgumentParser):
    """Leaves it to `ending` to say what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(self.format_usage(), message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        add_help=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    everywhere = ", ".join(type.name for type in GGMF_TYPES.values())
    in_gguf = ", ".join(name for name, type in DTYPES.items() if type.ggmf is None)
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="show this and do nothing else")
    add("--version", action="store_true", help="show the version and do nothing else")
    add("src", nargs="?", metavar="IN", help="the checkpoint: a file, a folder, hf://OWNER/NAME")
    add("dst", nargs="?", metavar="OUT", help="the model file to write")
    add(
        "type",
        nargs="?",
        metavar="DTYPE",
        type=_type,
        help="what --dtype would say, right after OUT",
    )
    add(
        "--dtype",
        type=_type,
        help=f"{everywhere}; in GGUF {in_gguf} too (default: fp16)",
    )
    add(
        "--head-dtype",
        type=_type,
        metavar="DTYPE",
        help="type of head.weight (default: in a quantised file q8_0, in GGUF q6_K or q8_0)",
    )
    add(
        "--emb-dtype",
        type=_type,
        metavar="DTYPE",
        help="type of emb.weight (default: in a quantised file q8_0, in GGUF that of --dtype)",
    )
    add(
        "--lowrank-dtype",
        type=_type,
        metavar="DTYPE",
        help="type of the low-rank matrices of RWKV-6 and 7 (default: in a quantised file q8_0, in "
        "GGUF fp16 or fp32, as llama.cpp has them)",
    )
    add(
        "--layout",
        default="default",
        choices=LAYOUTS,
        help="rwkv.cpp: choose all types as rwkv.cpp's own converter and quantiser do",
    )
    add(
        "--container",
        choices=CONTAINERS,
        help="what to write (default: gguf where OUT ends in .gguf, else ggmf)",
    )
    add(
        "--tokenizer",
        metavar="FILE",
        help="for GGUF, the vocabulary, in the World format (default: that of IN, if it is GGUF, "
        "World for 65536 tokens, bytes for 256)",
    )
    add(
        "--time-state",
        metavar="FILE",
        help="an initial state from state tuning, to be kept in OUT (default: that of IN, if any)",
    )
    add(
        "--key",
        help="which model of several in IN: the path of its dict, or the prefix of its names",
    )
    add(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out tensors with such names, though nothing is known of them; may be repeated",
    )
    add("--merge", metavar="FILE", help="merge what RWKV-PEFT saved: LoRA, PiSSA, DiSHA, Bone")
    add("--merge-alpha", type=float, metavar="ALPHA", help="LoRA's alpha")
    add("--merge-init", metavar="FILE", help="PiSSA's initial factors, init_pissa.pth")
    add(
        "--imatrix",
        metavar="FILE",
        help="an importance matrix of the model made by llama.cpp (RWKV-6 and 7): quantise by it",
    )
    add(
        "--quality",
        default="fast",
        choices=QUALITIES,
        help="best: search for the scales of least error; slower to convert, as fast to use "
        "(default: fast, with ggml's own)",
    )
    add("--force", action="store_true", help="replace OUT if it exists")
    add("--threads", type=int, help="threads to use (default: one per processor)")
    add("--info", metavar="FILE", help="describe a checkpoint or model file and convert nothing")
    add("--json", action="store_true", help="print the description or summary as JSON")
    add("--quiet", action="store_true", help="no progress bar and no summary")
    return parser


def _type(text: str) -> str:
    try:
        return parse_dtype(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(error.problem) from None


def _convert(options: argparse.Namespace) -> None:
    with _progress_bar(quiet=options.quiet) as progress:
        summary = convert(
            options.src,
            options.dst,
            dtype=options.dtype or options.type or "fp16",
            head_dtype=options.head_dtype,
            emb_dtype=options.emb_dtype,
            lowrank_dtype=options.lowrank_dtype,
            layout=options.layout,
            container=options.container,
            tokenizer=options.tokenizer,
            time_state=options.time_state,
            key=options.key,
            ignore=options.ignore,
            merge=options.merge,
            merge_alpha=options.merge_alpha,
            merge_init=options.merge_init,
            imatrix=options.imatrix,
            quality=options.quality,
            force=options.force,
            progress=progress,
            threads=options.threads,
        )
    for note in () if options.quiet else summary.notes:
        say(note)
    for warning in summary.warnings:
        say(f"warning: {warning}")
    if options.json:
        answer(_as_json(summary))
    elif not options.quiet:
        mention(_summarize(summary))


@contextlib.contextmanager
def _progress_bar(*, quiet: bool) -> Iterator[Progress | None]:
    """Shows progress where stderr is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ValueError as error:  # one of its environment variables, TQDM_..., has an odd value
        say(f"warning: no progress bar: TQDM_ in the environment: {error}")
        yield None
        return
    with tqdm(desc="converting", unit="B", unit_scale=True, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _as_json(value: ModelInfo | Summary) -> list[str]:
    return json.dumps(dataclasses.asdict(value), indent=2).splitlines()


def _describe(model: ModelInfo) -> list[str]:
    heads = f"{model.n_head} heads of {model.head_size}" if model.n_head else "no heads"
    lines = [
        f"{model.path}: RWKV-{model.version}, {model.container}"
        + (f", {model.n_files} files" if model.n_files > 1 else ""),
        f"  layers      {model.n_layer}",
        f"  width       {model.n_embd} ({heads}), channel mix {model.n_ffn}",
        f"  vocabulary  {model.n_vocab}",
        f"  parameters  {model.parameters:,}",
        f"  size        {_size(model.file_bytes)}",
        *_type_lines(model.types),
        *_mix_lines(model.tensors),
    ]
    if model.name is not None:
        lines.append(f"  name        {model.name!a}")
    if model.file_type is not None:
        lines.append(f"  file type   {model.file_type}{_fallbacks(model)}")
    if model.n_tokens is not None:
        lines.append(f"  holds a vocabulary of {model.n_tokens} tokens")
    if model.chat_template is not None:
        lines.append("  holds a chat template")
    if model.has_time_state:
        lines.append("  begins with its own initial state")
    if model.layout and model.layout != "official names":
        lines.append(f"  layout      {model.layout}")
    if model.key:
        lines.append(f"  in          {model.key!a}")
    if model.unused:
        lines.append(f"  unused      {', '.join(map(ascii, model.unused))}")
    return lines


def _fallbacks(model: ModelInfo) -> str:
    """What stands in a file for a type that rows do not fit into."""
    asked = DTYPES[model.file_type] if model.file_type is not None else None
    instead = FALLBACKS[asked].name if asked in FALLBACKS else ""
    if asked is None or instead not in model.types:
        return ""
    return f", and {instead} where rows are no multiple of {asked.block}"


def _summarize(summary: Summary) -> list[str]:
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
    return lines


def _type_lines(types: dict[str, TypeUse]) -> list[str]:
    """The types, first the one that takes most of the file."""
    largest_first = sorted(types.items(), key=lambda item: -item[1].bytes)
    return [
        f"  {name:<10}  {use.tensors} tensors, {use.parameters:,} parameters, {_size(use.bytes)}"
        for name, use in largest_first
    ]


def _mix_lines(tensors: dict[str, str]) -> list[str]:
    """The layers in which a tensor has which type, where that is not the same in all."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for name, type in tensors.items():
        prefix, layer, kind = (*name.split(".", 2), "", "")[:3]
        if prefix in ("blk", "blocks") and layer.isdecimal():
            kinds.setdefault(kind, {}).setdefault(type, []).append(layer)
    mixed = {kind: types for kind, types in kinds.items() if len(types) > 1}
    width = max(map(len, mixed), default=0)
    lines = ["  layers' types, where they are not the same in all:"] if mixed else []
    for kind, types in mixed.items():
        of_types = ", ".join(f"{type} {' '.join(layers)}" for type, layers in sorted(types.items()))
        lines.append(f"    {kind:<{width}}  {of_types}")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
