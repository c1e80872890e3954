"""The model files whose quality is compared: ours of every way to choose the bits, and llama.cpp's.

Each is made once, in a folder that may be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import rwkv_convert

from .peers import llama_cpp, run_module

FAST, BEST = "rwkv-convert", "rwkv-convert --quality best"
CALIBRATED, MIXED = "rwkv calibrate", "rwkv calibrate --size"
LLAMA, LLAMA_IMATRIX = "llama.cpp", "llama.cpp with importance matrix"
FAMILIES = (FAST, BEST, CALIBRATED, MIXED, LLAMA, LLAMA_IMATRIX)

OUR_TYPES = ("q8_0", "q6_K", "q5_1", "q5_K", "q5_0", "q4_1", "q4_K", "iq4_nl", "q4_0")
SEARCHED_TYPES = OUR_TYPES[2:]
"""Those in which `--quality best` gains anything that can be seen."""
CALIBRATED_TYPES = ("q5_0", "q4_K", "q4_0")
LLAMA_TYPES = ("q8_0", "q6_K", "q5_K_M", "q4_K_M", "iq4_xs", "q4_0")
SHARES = (1.0, 1.13, 1.3)
"""How large mixed files are, beside our q4_0: as it, and about as llama.cpp's Q4_K_M and Q5_K_M."""


@dataclass(frozen=True)
class QualityFile:
    """A model file.

    Attributes:
        family: how its bits were chosen, one of FAMILIES.
        type: of most matrices; of a mixed one, the size that was asked for.
        path: where it is.
        engine: whose engine reads it: `rwkv-runtime` or `llama.cpp`.
    """

    family: str
    type: str
    path: Path
    engine: str = "rwkv-runtime"


@dataclass(frozen=True)
class Maker:
    """Makes files of a checkpoint in a folder.

    Attributes:
        checkpoint: the original.
        folder: where files go; those that are there are taken as they are.
        calibration: texts to calibrate by.
        token_limit: how many tokens of them are read, at most; None: as many as by default.
        threads: that calibrate.
        sizes: of mixed files, bytes; by default SHARES of our q4_0.
    """

    checkpoint: Path
    folder: Path
    calibration: tuple[bytes, ...]
    token_limit: int | None
    threads: int
    sizes: tuple[int, ...] = ()

    def original(self) -> Path:
        """The checkpoint in fp32, which the others are compared with."""
        return self._converted("fp32", "fast", ".bin")

    def files(self, families: tuple[str, ...], types: tuple[str, ...]) -> Iterator[QualityFile]:
        """All files of some families and types."""

        def chosen(some: tuple[str, ...]) -> list[str]:
            return [type for type in some if type in types]

        if FAST in families:
            for type in chosen(OUR_TYPES):
                yield QualityFile(FAST, type, self._converted(type, "fast"))
        if BEST in families:
            for type in chosen(SEARCHED_TYPES):
                yield QualityFile(BEST, type, self._converted(type, "best"))
        if CALIBRATED in families:
            for type in chosen(CALIBRATED_TYPES):
                yield QualityFile(CALIBRATED, type, self.calibrated(type))
        if MIXED in families:
            for size in self.sizes or self._usual_sizes():
                name, path = f"{size / 1e6:.2f} MB", self._mixed(size)
                yield QualityFile(MIXED, name, path)
                if LLAMA in families:
                    yield QualityFile(MIXED, name, path, "llama.cpp")
        for family in (LLAMA, LLAMA_IMATRIX):
            if family in families:
                for type in chosen(LLAMA_TYPES):
                    path = self._llama(type, with_importance=family == LLAMA_IMATRIX)
                    yield QualityFile(family, type, path, "llama.cpp")
        if LLAMA in families:  # our files in their engine
            for type in ("q4_K", "q4_0"):
                if type in types and FAST in families:
                    path = self._converted(type, "fast", ".gguf")
                    yield QualityFile(FAST, type, path, "llama.cpp")
                if type in types and CALIBRATED in families:
                    yield QualityFile(CALIBRATED, type, self.calibrated(type, ".gguf"), "llama.cpp")

    def converted(self, type: str, quality: rwkv_convert.Quality) -> Path:
        """A file of rwkv-convert."""
        return self._converted(type, quality)

    def calibrated(self, type: str, suffix: str = "") -> Path:
        """A file of `rwkv calibrate --dtype`."""
        path = self.folder / f"{type}-calibrated{suffix or self._suffix(type)}"
        return self._calibrated(path, dtype=type)

    def _usual_sizes(self) -> list[int]:
        most = self._converted("q4_0", "fast").stat().st_size
        return [round(share * most) for share in SHARES]

    def _mixed(self, file_bytes: int) -> Path:
        """In GGUF, which has the most types."""
        path = self.folder / f"{file_bytes}-mixed.gguf"
        return self._calibrated(path, file_bytes=file_bytes)

    def _calibrated(
        self, path: Path, dtype: str | None = None, file_bytes: int | None = None
    ) -> Path:
        from rwkv_py.calibrate import calibrate

        if not path.exists():
            tqdm.write(f"calibrating {path.name}")
            calibrate(
                self.checkpoint,
                self.calibration,
                path,
                dtype=dtype,
                file_bytes=file_bytes,
                token_limit=self.token_limit,
                threads=self.threads,
            )
        return path

    def _converted(self, type: str, quality: rwkv_convert.Quality, suffix: str = "") -> Path:
        path = self.folder / f"{type}-{quality}{suffix or self._suffix(type)}"
        if not path.exists():
            rwkv_convert.convert(self.checkpoint, path, dtype=type, quality=quality)
        return path

    def _suffix(self, type: str) -> str:
        return ".gguf" if rwkv_convert.container_for(type) == "gguf" else ".bin"

    def _llama(self, type: str, *, with_importance: bool) -> Path:
        name = f"{type}-llama.cpp{'-imatrix' if with_importance else ''}.gguf"
        path = self.folder / name
        if not path.exists():
            tqdm.write(f"making {name}")
            importance = [self._importance()] if with_importance else []
            source = self._converted("fp16", "fast", ".gguf")
            part = path.with_name(name + ".part")
            module = "benchmarks.engines.llama_cpp"
            run_module(llama_cpp(False), module, source, part, type, *importance)
            part.replace(path)
        return path

    def _importance(self) -> Path:
        """The mean squares of inputs on the calibration texts, for llama.cpp's quantiser."""
        from rwkv_convert.importance import read_importance
        from rwkv_convert.input_file import InputFile
        from rwkv_py.calibrate import importance_matrix

        path = self.folder / "importance.npz"
        if not path.exists():
            written = self.folder / "imatrix.gguf"
            importance_matrix(
                self.checkpoint,
                self.calibration,
                written,
                token_limit=self.token_limit,
                threads=self.threads,
                force=True,
            )
            with InputFile(written) as file:
                np.savez(path, **read_importance(file))  # type: ignore[arg-type]
        return path
