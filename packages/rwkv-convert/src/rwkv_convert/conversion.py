"""From a checkpoint to a model file, piece by piece.

Every byte of the output has its place before the first is written, so the pieces are independent:
a few threads each take the next piece, read it, convert it in buffers that they keep, and write it
to its place. Memory does not depend on the size of the model or of a tensor.
"""

from __future__ import annotations

import fnmatch
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from .checkpoint import Checkpoint, TensorView
from .element_types import FP64, SOURCE_TYPES, Bytes, ElementType, Floats
from .encoder import Encoder, is_copied
from .errors import ModelError, OptionError, OutputError, listing, quote
from .factor_loader import FactorLoader
from .file_plan import FilePlan, PlacedTensor, write_headers
from .fused_embedding import check_embedding
from .identify import FileTensor, identify
from .importance import read_importance, with_importance
from .input_file import FileStamp, InputFile
from .merge import MergeFiles, merge_into
from .model_config import heed_config
from .model_info import ModelInfo, TypeUse, count_types, describe, other_entries, understood
from .official_names import find_model
from .output_file import OutputFile, check_destination, temporary_output
from .piece_reader import PieceReader
from .quantize import PIECE
from .sources import open_source
from .tensor_table import ROLE_TYPES, TypeChoice
from .time_state import is_time_state
from .weight_types import CONTAINERS, DTYPES, Container, check_ggmf, fitting, parse_dtype
from .write_ggmf import plan_ggmf
from .write_gguf import plan_gguf

Layout = Literal["default", "rwkv.cpp"]
LAYOUTS: tuple[Layout, ...] = ("default", "rwkv.cpp")

Quality = Literal["fast", "best"]
QUALITIES: tuple[Quality, ...] = ("fast", "best")

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes to read, from the thread that called convert."""

MAX_THREADS = 16
"""More do not help: reading and writing limit them."""
PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """What `convert` did.

    Attributes:
        source: what the input holds.
        path: the file that was written.
        file_bytes: its size.
        types: what it holds in which type, by the type's name.
        time_state: the file that its initial state comes from; None if it holds none.
        warnings: one sentence each, naming the tensor.
        seconds: how long it took.
        notes: what was understood of the input, where it is not the usual: a layout, a dict inside
            the file's, shards, what was merged or passed over.
    """

    source: ModelInfo
    path: str
    file_bytes: int
    types: dict[str, TypeUse]
    time_state: str | None
    warnings: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    dtype: str = "fp16",
    head_dtype: str | None = None,
    emb_dtype: str | None = None,
    lowrank_dtype: str | None = None,
    layout: Layout = "default",
    container: Container | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    time_state: str | os.PathLike[str] | None = None,
    key: str | None = None,
    ignore: Sequence[str] = (),
    merge: str | os.PathLike[str] | None = None,
    merge_alpha: float | None = None,
    merge_init: str | os.PathLike[str] | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    quality: Quality = "fast",
    types: Mapping[str, str] | None = None,
    blocks: Mapping[str, Bytes] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Summary:
    """Converts an RWKV checkpoint to a model file, ggmf or GGUF.

    The output appears under its name when it is complete; if anything fails, nothing is left.

    Args:
        src: a `.pth`, `.safetensors`, ggmf `.bin` or `.gguf` file, whose content decides; any one
            of several shards, or their index; a folder with one model; or
            `hf://OWNER/NAME[/FILE][@REVISION]`, for which huggingface_hub must be installed. Blocks
            that are quantised can be written in their own type, in fp32 or in fp16.
        dst: the file to write.
        dtype: type of the layers' matrices: fp32, fp16, q4_0, q4_1, q5_0, q5_1 or q8_0; in GGUF
            bf16, q4_K, q5_K, q6_K and iq4_nl too, and llama.cpp's names q4_K_M and q5_K_M.
        head_dtype: type of `head.weight`; by default, in a quantised file, q8_0 in ggmf, and in
            GGUF q6_K as llama.cpp has it (q8_0 if `dtype` is that).
        emb_dtype: type of `emb.weight`; by default, in a quantised file, q8_0 in ggmf and `dtype`
            in GGUF.
        lowrank_dtype: type of the low-rank matrices of RWKV-6 and 7; by default, in a quantised
            file, q8_0 in ggmf, and in GGUF fp16 or fp32, as llama.cpp has them.
        layout: `rwkv.cpp` chooses and rounds every tensor as rwkv.cpp's converter to FP16 and its
            quantiser do.
        container: `ggmf`, which rwkv.cpp reads too, or `gguf`, which llama.cpp reads, for RWKV-6
            and 7; by default what the extension of `dst` says, ggmf where it is not `.gguf`.
        tokenizer: for GGUF, a file with the vocabulary, in the World format. By default that of
            `src`, if it is GGUF, the World vocabulary for 65536 tokens, bytes for 256.
        time_state: a `.pth`, `.safetensors` or ggmf file with an initial state from state tuning
            (`blocks.N.att.time_state`), which the model file then begins every text with. By
            default the one in `src`, if there is one.
        key: which model of several in `src`: the path of its dict, or the prefix of its names.
        ignore: names of tensors that are left out, though nothing is known of them; `*` stands for
            anything. Without it, a tensor that may be a part of the model is refused.
        merge: what RWKV-PEFT saved of a fine-tuning: LoRA, PiSSA, DiSHA, Bone, or tensors that
            replace the model's.
        merge_alpha: LoRA's alpha, which the file does not hold.
        merge_init: PiSSA's initial factors (`init_pissa.pth`).
        imatrix: llama.cpp's importance matrix of the model, GGUF or its older form, for RWKV-6 and
            7: quantising to other types than q8_0 then keeps those numbers best by which large
            inputs are multiplied.
        quality: `fast` quantises to bits that are ggml's own for the types that ggmf has; `best`
            searches for the scales (and minima) of least squared error of each block, in several
            times the time. The file is as large, and as fast.
        types: types of single tensors, by their names in a ggmf file, which come before all other
            options.
        blocks: tensors that were quantised already, by the same names: the bytes (n,) of all their
            blocks, in the type that is to be written.
        force: replace `dst` if it exists.
        progress: called as `progress(bytes_done, bytes_total)` now and then.
        threads: how many to use, up to 16; by default one per processor.

    Returns:
        what was read and written, and the warnings.

    Raises:
        OptionError: there is no such type or layout, or options contradict each other.
        CheckpointError: `src`, `time_state` or `imatrix` cannot be read, or the latter is that of
            another model.
        ModelError: `src` is no RWKV model of a known version, or `time_state` is not one for it.
        OutputError: `dst` exists or cannot be written.

    >>> import rwkv_convert
    >>> summary = rwkv_convert.convert("model.pth", "model.bin", dtype="q4_0")
    >>> summary.source.version, summary.file_bytes
    """
    started = time.monotonic()
    options = {"head_dtype": head_dtype, "emb_dtype": emb_dtype, "lowrank_dtype": lowrank_dtype}
    dtype = parse_dtype(dtype)
    names = {key: parse_dtype(text, key) for key, text in options.items() if text is not None}
    if layout not in LAYOUTS:
        raise OptionError("layout", f"expected one of {', '.join(LAYOUTS)}, got {quote(layout)}")
    if layout == "rwkv.cpp" and names:
        named = ", ".join(f"{key}=" for key in names)
        raise OptionError("layout", f"rwkv.cpp chooses every type by itself, got {named} too")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise OptionError("threads", f"expected at least 1, got {quote(threads)}")
    container = _container(dst, container)
    if container == "gguf" and layout != "default":
        raise OptionError("layout", f"expected default for a GGUF file, got {layout}")
    if container == "ggmf" and tokenizer is not None:
        raise OptionError("tokenizer", "expected none for a ggmf file, which has no place for it")
    if quality not in QUALITIES:
        raise OptionError(
            "quality", f"expected one of {', '.join(QUALITIES)}, got {quote(quality)}"
        )
    if quality == "best" and layout == "rwkv.cpp":
        raise OptionError("quality", "expected fast for the layout rwkv.cpp, got best")
    single = {name: parse_dtype(text, "types") for name, text in (types or {}).items()}
    if container == "ggmf":
        for option, name in {"dtype": dtype, **names}.items():
            check_ggmf(name, option)
        for name in single.values():
            check_ggmf(name, "types")
    choice = TypeChoice(
        DTYPES[dtype],
        {option: DTYPES[name] for option, name in names.items()},
        rwkv_cpp=layout == "rwkv.cpp",
        gguf=container == "gguf",
    )

    merge_files = MergeFiles.of(merge, merge_alpha, merge_init)

    destination = check_destination(dst, force=force)
    checkpoint = open_source(src, quiet=progress is None)
    found = find_model(checkpoint, key, tuple(ignore))
    heed_config(found)
    state = None if time_state is None else open_source(time_state)
    merged = merge_into(found, merge_files) if merge_files is not None else []
    sources: dict[Path, FileStamp] = {}
    for one in (checkpoint, *([state] if state is not None else []), *merged):
        sources.update(one.files)
    stamps = list(sources.values())
    importance: dict[str, Floats] = {}
    if imatrix is not None:
        with InputFile(imatrix) as file:
            importance = read_importance(file)
            stamps.append(file.stamp)
    for stamp in stamps:
        if stamp.is_of(destination):
            raise OutputError(
                f"{Path(dst)}: is the input, expected another file", remedy="Try another name"
            )
    model = identify(found, state)
    check_embedding(found)

    warnings = [
        f"{checkpoint.path}: tensor {quote(name)} is not used by RWKV-{model.version} and left out"
        for name in (*model.unused, *other_entries(found))
    ]
    warnings.extend(
        f"{checkpoint.path}: no tensor has a name like {quote(pattern)}, which is to be ignored"
        for pattern in ignore
        if not fnmatch.filter(found.ignored, pattern)
    )
    if state is not None:
        others = [name for name in state.tensors if not is_time_state(name)]
        if others:
            warnings.append(
                f"{state.path}: all but the initial state is left out: {listing(others)}"
            )

    own_names = {tensor.name for tensor in model.tensors}
    for option, given in (("types", single), ("blocks", blocks or {})):
        unknown = sorted(set(given) - own_names)
        if unknown:
            raise OptionError(
                option, f"expected names of the model's tensors, got {listing(unknown)}"
            )

    def type_of(tensor: FileTensor) -> ElementType:
        if tensor.name_in_ggmf in single:
            return DTYPES[single[tensor.name_in_ggmf]]
        return _choose_type(tensor, choice, checkpoint, warnings)

    if container == "gguf":
        plan = plan_gguf(model, checkpoint, dtype, tokenizer, type_of)
    else:
        plan = plan_ggmf(
            model, choice.dtype, type_of, lambda tensor: _through_fp16(tensor, choice, checkpoint)
        )
    _check_types(plan.tensors, blocks or {})
    if imatrix is not None:
        path = Path(imatrix)
        placed_tensors, without = with_importance(plan.tensors, importance, path, model.version)
        plan = replace(plan, tensors=tuple(placed_tensors))
        if without:
            warnings.append(f"{path}: holds no importance of {listing(without)}: quantised without")
    if quality == "best":
        plan = replace(plan, tensors=tuple(map(_searched, plan.tensors)))
    if blocks:
        plan = replace(plan, tensors=tuple(_with_blocks(each, blocks) for each in plan.tensors))
    with temporary_output(destination, force=force) as output:
        job = _Job(plan, output, sources, progress)
        problems = job.run(min(threads or _processors(), MAX_THREADS))
    for placed in plan.tensors:
        warnings.extend(
            f"{placed.tensor.path}: tensor {quote(placed.tensor.name)} {problem}"
            for problem in sorted(problems.get(placed.tensor.name, ()))
        )
    return Summary(
        source=describe(found, model),
        path=str(Path(dst)),
        file_bytes=plan.file_bytes,
        types=count_types((placed.type, math.prod(placed.tensor.shape)) for placed in plan.tensors),
        time_state=next((str(t.path) for t in model.tensors if is_time_state(t.name)), None),
        warnings=tuple(warnings),
        seconds=time.monotonic() - started,
        notes=understood(found),
    )


def _container(dst: str | os.PathLike[str], asked: Container | None) -> Container:
    """The container to write: the one asked for, or the one that the extension tells."""
    if asked is not None and asked not in CONTAINERS:
        raise OptionError(
            "container", f"expected one of {', '.join(CONTAINERS)}, got {quote(asked)}"
        )
    if asked is not None:
        return asked
    return "gguf" if os.fsdecode(dst).lower().endswith(".gguf") else "ggmf"


def _searched(placed: PlacedTensor) -> PlacedTensor:
    """The same with scales that are searched for, where it is to be quantised."""
    if placed.importance is not None or not placed.type.is_quantized:
        return placed
    if all(is_copied(part, placed) for part in placed.tensor.parts):
        return placed
    return replace(placed, importance=np.ones(placed.tensor.shape[-1], np.float32))


def _with_blocks(placed: PlacedTensor, blocks: Mapping[str, Bytes]) -> PlacedTensor:
    """The same with the blocks that were given for it."""
    name = placed.tensor.name_in_ggmf
    data = blocks.get(name)
    if data is None:
        return placed
    if data.dtype != np.uint8 or data.shape != (placed.data_bytes,):
        raise OptionError(
            "blocks",
            f"{quote(name)}, expected {placed.data_bytes} bytes of {placed.type}, got {data.dtype} "
            f"{data.shape}",
        )
    return replace(placed, blocks=data)


def _check_types(tensors: tuple[PlacedTensor, ...], blocks: Mapping[str, Bytes]) -> None:
    """Refuses what cannot be read as weights, and what would be quantised twice."""
    for placed in tensors:
        tensor = placed.tensor
        if tensor.name_in_ggmf in blocks:
            continue
        for part in tensor.parts:
            where = f"{tensor.path}: type of tensor {quote(tensor.name)}"
            if part.type not in SOURCE_TYPES and not part.type.is_quantized:
                raise ModelError(f"{where}, expected bf16, fp16, fp32 or fp64, got {part.type}")
            if part.type.is_quantized and placed.type.is_quantized and not is_copied(part, placed):
                times = f" to be multiplied by {part.scale:g}" if part.scale != 1 else ""
                same = "" if times else f"{placed.type}, "
                raise ModelError(
                    f"{where}, expected {same}fp32 or fp16, got {part.type}{times}: quantising "
                    "twice loses more than once",
                    remedy="Try the checkpoint, or a file of type fp16",
                )


def _choose_type(
    tensor: FileTensor, choice: TypeChoice, checkpoint: Checkpoint, warnings: list[str]
) -> ElementType:
    """The type from the table, or another one for rows that its blocks do not fit into."""
    asked = choice.type_of(tensor.role)
    type = fitting(asked, tensor.shape[-1])
    if type is not asked:
        warnings.append(
            f"{checkpoint.path}: tensor {quote(tensor.name)} is written as {type}: its rows of "
            f"{tensor.shape[-1]} are no multiple of {asked.block}, which {asked} needs"
        )
        return type
    from_model_file = checkpoint.is_model_file and tensor.path in checkpoint.files
    requantizes = choice.rwkv_cpp and choice.dtype.is_quantized and from_model_file
    if requantizes and not type.is_quantized:
        return tensor.parts[0].type  # rwkv.cpp's quantiser copies what it does not quantise
    return type


def _through_fp16(tensor: FileTensor, choice: TypeChoice, checkpoint: Checkpoint) -> bool:
    """Whether rwkv.cpp's way to the tensor's type leads through an FP16 file that rounds it."""
    two_steps = choice.rwkv_cpp and choice.dtype.is_quantized and not checkpoint.is_model_file
    return two_steps and ROLE_TYPES[tensor.role].fp16 == "fp16"


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some elements of a tensor: where they are read, and where they are written.

    Attributes:
        placed: the tensor.
        view: where the elements lie.
        path: the file that this is a view of.
        offset: of the output.
        first: index of the first of them in the tensor.
    """

    placed: PlacedTensor
    view: TensorView
    path: Path
    offset: int
    first: int


class _Job:
    """Writes the data of a planned file with several threads."""

    def __init__(
        self,
        plan: FilePlan,
        output: OutputFile,
        sources: dict[Path, FileStamp],
        progress: Progress | None,
    ) -> None:
        self._plan = plan
        self._output = output
        self._sources = sources
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = False
        self._pieces = self._cut()
        self._done_bytes = 0
        self._total_bytes = sum(
            part.type.bytes_of(part.count)
            for placed in plan.tensors
            for part in placed.tensor.parts
        )
        self._problems: dict[str, set[str]] = {}

    def run(self, threads: int) -> dict[str, set[str]]:
        """Does it all; returns what was odd about tensors, by name.

        Raises:
            CheckpointError: the input ended, failed, or was changed meanwhile.
            OutputError: the output failed, or no thread can be started.
        """
        with self._output.open() as write_at:
            write_headers(write_at, self._plan)
        with ThreadPoolExecutor(threads, thread_name_prefix="rwkv-convert") as pool:
            try:
                pending = self._start(pool, threads)
                while pending:
                    done, pending = wait(pending, PROGRESS_SECONDS, FIRST_EXCEPTION)
                    for worker in done:
                        worker.result()
                    if self._progress is not None:
                        self._progress(self._done_bytes, self._total_bytes)
            finally:  # also on Ctrl-C: the threads end after the piece at hand
                self._stop = True
        return self._problems

    def _start(self, pool: ThreadPoolExecutor, threads: int) -> set[Future[None]]:
        """Puts threads to work, as many as the system allows."""
        workers: set[Future[None]] = set()
        for _ in range(threads):
            try:
                workers.add(pool.submit(self._work))
            except RuntimeError:  # the system's limit
                break
        if not workers:
            raise OutputError("threads: expected at least one to be started, got none")
        return workers

    def _cut(self) -> Iterator[_Piece]:
        for placed in self._plan.tensors:
            offset, first = placed.offset, 0
            tensor = placed.tensor
            for part, path in zip(tensor.parts, tensor.paths, strict=True):
                if part.is_contiguous and tensor.delta is None:  # which is added to whole rows
                    part = replace(part, shape=(part.count,), strides=(1,))
                for view in part.split(PIECE, max(part.type.block, placed.type.block)):
                    yield _Piece(placed, view, path, offset, first)
                    offset += placed.type.bytes_of(view.count)
                    first += view.count

    def _work(self) -> None:
        """What each thread does: piece after piece."""
        encoder = Encoder()
        source_buffer = np.empty(PIECE * FP64.size, np.uint8)
        with ExitStack() as stack, self._output.open() as write_at:
            readers = {
                path: stack.enter_context(PieceReader(path, stamp))
                for path, stamp in self._sources.items()
            }
            factors = FactorLoader(readers)
            while True:
                with self._lock:
                    piece = None if self._stop else next(self._pieces, None)
                if piece is None:
                    break
                blocks, type = piece.placed.blocks, piece.placed.type
                if blocks is not None:
                    begin = type.bytes_of(piece.first)
                    encoded = blocks[begin : begin + type.bytes_of(piece.view.count)]
                    problems: list[str] = []
                else:
                    raw = readers[piece.path].read(piece.view, source_buffer)
                    adjust = factors.adjustment(piece.placed.tensor, piece.first)
                    encoded, problems = encoder.encode(
                        raw, piece.view, piece.placed, piece.first, adjust
                    )
                write_at(piece.offset, encoded.data)
                with self._lock:
                    self._done_bytes += piece.view.type.bytes_of(piece.view.count)
                    if problems:
                        name = piece.placed.tensor.name
                        self._problems.setdefault(name, set()).update(problems)
            for reader in readers.values():
                reader.check_unchanged()
