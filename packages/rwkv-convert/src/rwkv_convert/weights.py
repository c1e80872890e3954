"""The numbers of a model in memory, tensor by tensor, for programs that work on them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .checkpoint import layer_of
from .element_types import FP16, FP32, FP64, ElementType
from .encoder import Encoder
from .factor_loader import FactorLoader
from .file_plan import PlacedTensor, write_headers
from .fused_embedding import check_embedding
from .identify import FileTensor, identify
from .merge import MergeFiles, merge_into
from .model_config import heed_config
from .official_names import find_model
from .piece_reader import PieceReader
from .quantize import PIECE
from .sources import open_source
from .tensor_table import ROLE_TYPES, Role, TypeChoice
from .weight_types import DTYPES, GGMF_TYPES, GGUF_TYPES, Container, fitting, parse_dtype
from .write_ggmf import plan_ggmf
from .write_gguf import plan_gguf


class ModelWeights:
    """A checkpoint, or a model file, opened: its tensors as a model file has them.

    Names and shapes are those of a ggmf file, whatever is read. Used as a context manager; for one
    thread.

    Attributes:
        version: "4", "5.1", "5.2", "6" or "7".
        n_layer: number of layers.
        n_embd: width.
        n_vocab: size of the vocabulary.
        n_ffn: width of the channel mix.
        names: of all tensors, in the order of a model file.
    """

    def __init__(
        self,
        src: str | os.PathLike[str],
        *,
        key: str | None = None,
        ignore: Sequence[str] = (),
        merge: str | os.PathLike[str] | None = None,
        merge_alpha: float | None = None,
        merge_init: str | os.PathLike[str] | None = None,
    ) -> None:
        """Finds the model, and checks every tensor's presence and shape.

        The arguments are those of `convert`.

        Raises:
            OptionError: options contradict each other.
            CheckpointError: a file cannot be read.
            ModelError: there is no RWKV model of a known version.
        """
        merge_files = MergeFiles.of(merge, merge_alpha, merge_init)
        checkpoint = open_source(src)
        found = find_model(checkpoint, key, tuple(ignore))
        heed_config(found)
        merged = merge_into(found, merge_files) if merge_files is not None else []
        self._checkpoint = checkpoint
        self._model = model = identify(found)
        check_embedding(found)
        self.version = model.version
        self.n_layer = model.n_layer
        self.n_embd = model.n_embd
        self.n_vocab = model.n_vocab
        self.n_ffn = model.n_ffn
        self._tensors = {tensor.name: tensor for tensor in model.tensors}
        self.names = tuple(self._tensors)
        self._encoder = Encoder()
        self._buffer = np.empty(PIECE * FP64.size, np.uint8)
        self._files = ExitStack()
        with ExitStack() as files:
            self._readers = {
                path: files.enter_context(PieceReader(path, stamp))
                for one in (checkpoint, *merged)
                for path, stamp in one.files.items()
            }
            self._files = files.pop_all()
        self._factors = FactorLoader(self._readers)

    def __enter__(self) -> ModelWeights:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._files.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, PyTorch's order."""
        return self._tensors[name].shape

    def types(
        self,
        dtype: str,
        *,
        head_dtype: str | None = None,
        emb_dtype: str | None = None,
        lowrank_dtype: str | None = None,
        container: Container = "ggmf",
    ) -> dict[str, str]:
        """The type that `convert` writes each tensor in, by name.

        The arguments are those of `convert`.

        Raises:
            OptionError: there is no such type.
        """
        overrides = _overrides(head_dtype, emb_dtype, lowrank_dtype)
        choice = TypeChoice(DTYPES[parse_dtype(dtype)], overrides, gguf=container == "gguf")
        return {
            name: fitting(choice.type_of(tensor.role), tensor.shape[-1]).name
            for name, tensor in self._tensors.items()
        }

    def possible_types(
        self,
        *,
        head_dtype: str | None = None,
        emb_dtype: str | None = None,
        lowrank_dtype: str | None = None,
        container: Container = "ggmf",
    ) -> dict[str, tuple[str, ...]]:
        """The types that each tensor can be written in, in a quantised file, by name.

        Of vectors fp32; of matrices every quantised type into whose blocks their rows fit, or the
        one that is asked for.

        Raises:
            OptionError: there is no such type.
        """
        overrides = _overrides(head_dtype, emb_dtype, lowrank_dtype)
        known = GGUF_TYPES if container == "gguf" else GGMF_TYPES
        quantized = [type for type in known.values() if type.is_quantized]
        found = {}
        for name, tensor in self._tensors.items():
            columns = tensor.shape[-1]
            asked = overrides.get(ROLE_TYPES[tensor.role].option)
            types = [type for type in quantized if columns % type.block == 0]
            if tensor.role is Role.VECTOR:
                types = [FP32]
            elif asked is not None or not types:
                types = [fitting(asked or FP16, columns)]
            found[name] = tuple(type.name for type in types)
        return found

    def tensor_bytes(self, name: str, type: str) -> int:
        """How many bytes a tensor takes in a type."""
        return DTYPES[type].bytes_of(math.prod(self._tensors[name].shape))

    def file_bytes(self, dtype: str, types: Mapping[str, str], container: Container) -> int:
        """The size of the file that `convert` writes with these types of all tensors.

        Raises:
            ModelError, OptionError: the container has no place for the model.
        """

        def type_of(tensor: FileTensor) -> ElementType:
            return DTYPES[types[tensor.name_in_ggmf]]

        if container == "gguf":
            return plan_gguf(self._model, self._checkpoint, dtype, None, type_of).file_bytes
        return plan_ggmf(self._model, DTYPES[dtype], type_of, lambda _: False).file_bytes

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's numbers as a model file has them: float32, in `shape`.

        Raises:
            CheckpointError: the file cannot be read, or was changed since it was opened.
        """
        tensor = self._tensors[name]
        values = np.empty(tensor.shape, np.float32)
        flat, first = values.reshape(-1), 0
        placed = PlacedTensor(tensor, FP32, b"", 0, through_fp16=False)
        for part, path in zip(tensor.parts, tensor.paths, strict=True):
            for view in part.split(PIECE, part.type.block):
                raw = self._readers[path].read(view, self._buffer)
                adjust = self._factors.adjustment(tensor, first)
                encoded, _ = self._encoder.encode(raw, view, placed, first, adjust)
                flat[first : first + view.count] = encoded.view("<f4")
                first += view.count
        for reader in self._readers.values():
            reader.check_unchanged()
        return values

    def layer_file(
        self, layer: int, others: Mapping[str, NDArray[np.float32]] | None = None
    ) -> NDArray[np.uint8]:
        """A ggmf file that holds a layer and nothing else, all in fp32: uint8 (bytes,).

        Args:
            layer: its number, which it keeps.
            others: tensors that take the place of the model's.

        Raises:
            CheckpointError: as for `read`.
        """
        names = [name for name in self.names if layer_of(name) == layer]
        model = replace(self._model, tensors=tuple(self._tensors[name] for name in names))
        plan = plan_ggmf(model, FP32, lambda _: FP32, lambda _: False)
        data = np.zeros(plan.file_bytes, np.uint8)

        def write_at(offset: int, some: bytes | memoryview) -> None:
            raw = np.frombuffer(some, np.uint8)
            data[offset : offset + raw.size] = raw

        write_headers(write_at, plan)
        for name, placed in zip(names, plan.tensors, strict=True):
            values = (others or {}).get(name)
            values = self.read(name) if values is None else values
            write_at(placed.offset, np.ascontiguousarray(values, "<f4").data)
        return data


def _overrides(
    head_dtype: str | None, emb_dtype: str | None, lowrank_dtype: str | None
) -> dict[str, ElementType]:
    options = {"head_dtype": head_dtype, "emb_dtype": emb_dtype, "lowrank_dtype": lowrank_dtype}
    return {
        option: DTYPES[parse_dtype(text, option)]
        for option, text in options.items()
        if text is not None
    }
