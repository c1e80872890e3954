"""librwkv, the C interface of rwkv.cpp: a C program written for it, and files it quantises."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rwkv_convert
import rwkv_runtime
from rwkv_py import Model, Session
from twin import ggmf, synth

FORMATS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
VERSIONS = ["4", "5.1", "5.2", "6", "7"]
PROMPT = list(b'"in')

TINY = {
    # file, tolerance: as in tests/runtime/test_shared_models.py
    "4v0-660K": ("FP32", "1e-3"),
    "5v2-730K": ("FP32", "1e-3"),
    "6v0-3m": ("Q5_1", "0.3"),
    "7v0-834K": ("FP32", "1e-3"),
}

# How far a logit of a tiny model may be from the expected one by the rounding of each type: a third
# more than it was. (rwkv.cpp's own test bounds the sum of all differences, signs included, by what
# its kernels once gave; for some types exact arithmetic does not meet that either.)
ROUNDING = {
    "4v0-660K": {"FP16": 2e-3, "Q4_0": 0.5, "Q4_1": 0.3, "Q5_0": 0.15, "Q5_1": 0.14, "Q8_0": 0.04},
    "5v2-730K": {"FP16": 4e-3, "Q4_0": 2.5, "Q4_1": 1.3, "Q5_0": 0.75, "Q5_1": 0.5, "Q8_0": 0.15},
    "7v0-834K": {
        "FP16": 1e-6, "Q4_0": 0.015, "Q4_1": 0.018, "Q5_0": 5e-3, "Q5_1": 7e-3, "Q8_0": 2e-3,
    },
}  # fmt: skip

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def program(native_build: Path) -> Path:
    """native/tests/rwkv_cpp_program.c, compiled as C99 and linked with librwkv alone."""
    path = native_build / "tests" / "rwkv_cpp_program"
    assert path.is_file(), f"{path}: expected a built program. Try `hatch run native`."
    return path


def native_logits(path: Path, version: str) -> np.ndarray:
    """What the runtime computes after PROMPT; version 5 with rwkv.cpp's eps."""
    eps = 1e-5 if version.startswith("5") else None
    return np.asarray(Session(Model(path, ln_x_eps=eps)).feed(PROMPT))


def check(run_cli: RunCli, program: Path, model: Path, logits: Path, tolerance: str) -> None:
    done = run_cli(program, model, logits, tolerance, check=True)
    assert "difference from the logits expected" in done.stdout


@pytest.mark.parametrize("name", TINY)
def test_program_gives_expected_logits(
    name: str, shared: Path, program: Path, run_cli: RunCli
) -> None:
    type, tolerance = TINY[name]
    model = shared / f"models/tiny-rwkv-{name}-{type}.bin"
    check(run_cli, program, model, shared / f"models/expected-logits-{name}.bin", tolerance)


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_every_type_gives_the_expected_logits(
    name: str, half: bool, shared: Path, tmp_path: Path, program: Path, run_cli: RunCli
) -> None:
    """As users of rwkv.cpp go: from fp32 or fp16 to each type, by librwkv alone."""
    expected = shared / f"models/expected-logits-{name}.bin"
    source = shared / f"models/tiny-rwkv-{name}-FP32.bin"
    if half:
        fp32, source = source, tmp_path / "fp16.bin"
        rwkv_convert.convert(fp32, source, dtype="fp16", layout="rwkv.cpp")
        check(run_cli, program, source, expected, str(ROUNDING[name]["FP16"]))
    for format in FORMATS:
        path = tmp_path / f"{format}.bin"
        run_cli(program, "quantize", source, path, format, check=True)
        check(run_cli, program, path, expected, str(ROUNDING[name][format]))


def quantised_both_ways(
    source: Path, format: str, folder: Path, program: Path, run_cli: RunCli
) -> Path:
    """Quantises with librwkv and with rwkv-convert; the file, which both have written."""
    ours, other = folder / f"{format}.bin", folder / f"{format}-converted.bin"
    done = run_cli(program, "quantize", source, ours, format, check=True)
    assert done.stdout == "0\n"
    rwkv_convert.convert(source, other, dtype=format.lower(), layout="rwkv.cpp")
    assert ours.read_bytes() == other.read_bytes(), format
    return ours


@pytest.mark.parametrize("name", ["4v0-660K", "5v2-730K", "7v0-834K"])
def test_tiny_models_are_quantised_as_rwkv_convert_does(
    name: str, shared: Path, tmp_path: Path, program: Path, run_cli: RunCli
) -> None:
    source = shared / f"models/tiny-rwkv-{name}-FP32.bin"
    for format in FORMATS:
        path = quantised_both_ways(source, format, tmp_path, program, run_cli)
        native_logits(path, name).tofile(tmp_path / "logits")
        check(run_cli, program, path, tmp_path / "logits", "0")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_quantised_as_rwkv_convert_does(
    version: str, half: bool, tmp_path: Path, program: Path, run_cli: RunCli
) -> None:
    type = "fp16" if half else "fp32"
    source = tmp_path / "source.bin"
    ggmf.write(source, ggmf.convert_reference(synth.checkpoint(version, seed=3), type), type)
    for format in ["Q4_0", "Q5_1"]:
        quantised_both_ways(source, format, tmp_path, program, run_cli)


def test_checkpoint_of_examples(
    converted: Callable[[str], Path], tmp_path: Path, program: Path, run_cli: RunCli
) -> None:
    """A real model, from fp16 as users of rwkv.cpp go, in every format."""
    for format in FORMATS:
        path = quantised_both_ways(converted("fp16"), format, tmp_path, program, run_cli)
        native_logits(path, "7").tofile(tmp_path / "logits")
        check(run_cli, program, path, tmp_path / "logits", "0")


def test_what_is_printed(program: Path, tmp_path: Path, run_cli: RunCli) -> None:
    missing, out = tmp_path / "missing.bin", tmp_path / "out.bin"
    done = run_cli(program, "quantize", missing, out, "Q4_0")
    assert done.returncode == 1 and done.stdout == f"{0x202}\n"
    assert done.stderr.startswith(f"rwkv_quantize_model_file: {missing}: cannot be opened")
    assert len(done.stderr.splitlines()) == 1
    done = run_cli(program, "quantize", missing, out, "Q4_K")
    assert done.returncode == 1 and done.stdout == f"{0x108}\n"
    assert "format_name: expected one of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, got 'Q4_K'" in done.stderr
    assert "--dtype q4_K_M" in done.stderr
    assert not out.exists()


def test_wheel_holds_the_library_and_its_header(repo: Path) -> None:
    """Beside librwkv_runtime, loaded by ctypes as bindings do."""
    library = ctypes.CDLL(str(rwkv_runtime.lib_dir() / "librwkv.so"))
    library.rwkv_get_system_info_string.restype = ctypes.c_char_p
    assert b"AVX2=" in library.rwkv_get_system_info_string()
    assert not hasattr(library, "rwkv_model_open")
    header = rwkv_runtime.include_dir() / "rwkv_cpp" / "rwkv.h"
    assert header.read_bytes() == (repo / "native/compat/rwkv_cpp/rwkv.h").read_bytes()
