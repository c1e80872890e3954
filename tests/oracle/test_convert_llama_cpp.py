"""llama.cpp itself loads what we write, and computes what the twin computes.

Needs `llama-cpp-python`, whose build takes a while; benchmarks/engines/llama_cpp.py wraps it. A
build for the processor at hand may use other arithmetic (AMX): the tolerances are for AVX2.
"""

import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import rwkv_convert
import rwkv_py
from convert.checkpoint_writers import views, write_pth
from rwkv_convert.containers import open_checkpoint
from rwkv_convert.element_types import ElementType
from rwkv_convert.input_file import InputFile
from rwkv_convert.quantize import quantize
from rwkv_convert.read_gguf import read_part
from rwkv_convert.weight_types import WEIGHT_TYPES
from twin import ggmf, model, synth

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))
Engine = pytest.importorskip("benchmarks.engines.llama_cpp").Engine

CHECKPOINT = REPO / "examples" / "rwkv7-pydoc-L6-D256.pth"
TOKENS = [72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100, 10, 0, 255, 128]


def logits(path: Path) -> np.ndarray:
    engine = Engine(str(path), threads=1)
    try:
        return engine.logits(TOKENS)
    finally:
        engine.close()


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-3), ("fp16", 2e-2)])
def test_llama_cpp_computes_what_the_twin_does(
    tmp_path: Path, version: str, dtype: str, tolerance: float
):
    checkpoint = synth.checkpoint(version, n_vocab=256)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    rwkv_convert.convert(source, tmp_path / "a.gguf", dtype=dtype)
    rwkv_convert.convert(source, tmp_path / "a.bin", dtype=dtype)
    judge = model.load(tmp_path / "a.bin")
    expected = judge.forward(TOKENS, judge.new_state())
    np.testing.assert_allclose(logits(tmp_path / "a.gguf"), expected, atol=tolerance, rtol=0)


TEXT = (REPO / "examples" / "heldout_a.txt").read_bytes()[:64]


def our_logits(path: Path) -> np.ndarray:
    """Of our runtime: (len(TEXT), 256). The shipped checkpoint reads bytes."""
    session = rwkv_py.Session(path, threads=1)
    return np.stack([session.feed([byte]) for byte in TEXT])


def their_logits(path: Path) -> np.ndarray:
    engine = Engine(str(path), threads=1)
    try:
        return engine.logits(list(TEXT))
    finally:
        engine.close()


def check_trained(path: Path, dtype: str) -> None:
    """Both compute the same with one file, as nearly as its type allows."""
    ours, theirs = our_logits(path), their_logits(path)
    tolerance = {"fp32": 1e-3, "fp16": 2e-2}.get(dtype, 0.02 * np.ptp(theirs))
    np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q4_0", "q8_0", "q4_K_M", "q6_K"])
def test_our_runtime_computes_what_llama_cpp_does(tmp_path: Path, dtype: str):
    rwkv_convert.convert(CHECKPOINT, tmp_path / "a.gguf", dtype=dtype)
    check_trained(tmp_path / "a.gguf", dtype)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_nothing_is_lost_on_the_way_through_gguf(tmp_path: Path, dtype: str):
    rwkv_convert.convert(CHECKPOINT, tmp_path / "a.gguf", dtype=dtype)
    rwkv_convert.convert(tmp_path / "a.gguf", tmp_path / "a.bin", dtype=dtype)
    rwkv_convert.convert(CHECKPOINT, tmp_path / "b.bin", dtype=dtype)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("dtype", ["q4_0", "q8_0", "q4_K_M", "q6_K"])
def test_our_runtime_opens_what_llama_cpp_quantised(tmp_path: Path, dtype: str, importance: bool):
    rwkv_convert.convert(CHECKPOINT, tmp_path / "fp16.gguf", dtype="fp16")
    means = {}
    if importance:
        random = np.random.default_rng(0)
        for name, view in read_gguf_shapes(tmp_path / "fp16.gguf").items():
            means[name] = random.chisquare(2, view[-1]).astype(np.float32)
    quantize_theirs(tmp_path / "fp16.gguf", tmp_path / "theirs.gguf", dtype, means)
    check_trained(tmp_path / "theirs.gguf", dtype)


def quantize_theirs(
    source: Path, target: Path, dtype: str, means: dict[str, np.ndarray] | None = None
) -> None:
    """Lets llama.cpp quantise a file, with importance or without."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{FTYPES.get(dtype, dtype.upper())}")
    options.nthread = 1
    if means:

        class Importance(ctypes.Structure):
            _fields_ = [
                ("name", ctypes.c_char_p),
                ("data", ctypes.c_void_p),
                ("size", ctypes.c_size_t),
            ]

        entries = [(name.encode(), x.ctypes.data, x.size) for name, x in means.items()]
        array = (Importance * (len(entries) + 1))(*entries)  # ends with one without a name
        options.imatrix = ctypes.cast(array, type(options.imatrix))
    paths = [str(path).encode() for path in (source, target)]
    assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(options)) == 0


def read_gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the matrices of a file, by llama.cpp's names."""
    with InputFile(path) as file:
        tensors = read_part(file).tensors
    return {name: view.shape for name, view in tensors.items() if len(view.shape) == 2}


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize(
    "dtype", ["q4_0", "q5_1", "q8_0", "q4_K_M", "q5_K", "q6_K", "iq4_nl", "bf16"]
)
def test_llama_cpp_reads_our_blocks(tmp_path: Path, version: str, dtype: str):
    """Against the same numbers in fp32: what differs is how activations are rounded."""
    checkpoint = synth.checkpoint(version, n_vocab=256, n_embd=256)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    rwkv_convert.convert(source, tmp_path / "a.gguf", dtype=dtype)
    rwkv_convert.convert(tmp_path / "a.gguf", tmp_path / "b.gguf", dtype="fp32")
    one, two = logits(tmp_path / "a.gguf"), logits(tmp_path / "b.gguf")
    np.testing.assert_allclose(one, two, atol=0.02 * np.ptp(two), rtol=0)


LENGTHS = [256, 1024]
DISTRIBUTIONS = {
    "normal": lambda r, n: r.standard_normal((256, n)) * 0.02,
    "laplace": lambda r, n: r.laplace(size=(256, n)) * 0.02,
    "heavy tails": lambda r, n: r.standard_t(4, size=(256, n)),
    "uniform": lambda r, n: r.uniform(-1, 1, (256, n)),
    "not around zero": lambda r, n: r.standard_normal((256, n)) + 1.5,
    "mostly zeros": lambda r, n: r.standard_normal((256, n)) * (r.random((256, n)) < 0.05),
    "outliers": lambda r, n: (
        r.standard_normal((256, n)) * np.where(r.random((256, n)) < 0.002, 30, 1)
    ),
}


@pytest.fixture(scope="module")
def trained() -> list[np.ndarray]:
    """The matrices of the shipped checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.bin"
        rwkv_convert.convert(CHECKPOINT, path, dtype="fp32")
        return [
            tensor.data.view("<f4").reshape(tensor.shape)
            for name, tensor in ggmf.read(path).tensors.items()
            if name.endswith(".weight") and len(tensor.shape) == 2
        ]


def theirs(x: np.ndarray, kind: ElementType, importance: np.ndarray | None = None) -> np.ndarray:
    """ggml's own quantiser."""
    quantize_chunk = llama_cpp.llama_cpp._lib.ggml_quantize_chunk
    quantize_chunk.restype = ctypes.c_size_t
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    out = np.empty((len(x), kind.bytes_of(x.shape[1])), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    quantize_chunk(kind.gguf, x.ctypes.data, out.ctypes.data, 0, *x.shape, weights)
    return out


@pytest.mark.parametrize("type", ["q4_K", "q5_K", "q6_K", "iq4_nl"])
@pytest.mark.parametrize("numbers", [*DISTRIBUTIONS, "trained"])
def test_error_is_no_larger_than_that_of_ggml(numbers: str, type: str, trained: list[np.ndarray]):
    random = np.random.default_rng(3)
    tensors = trained
    if numbers in DISTRIBUTIONS:
        tensors = [DISTRIBUTIONS[numbers](random, n).astype(np.float32) for n in LENGTHS]
    kind = WEIGHT_TYPES[type]
    for x in tensors:
        errors = []
        for data in (quantize(x, kind), theirs(x, kind)):
            values = kind.dequantize(data.reshape(-1, kind.size)).reshape(x.shape)
            errors.append(((values.astype(np.float64) - x) ** 2).mean())
        assert errors[0] <= errors[1]


IMPORTANCES = {
    "alike": lambda r, n: r.chisquare(3, n),
    "far apart": lambda r, n: np.exp(r.standard_normal(n) * 2.5),
    "a few": lambda r, n: np.where(r.random(n) < 0.1, 1.0, 1e-4),
    "half of them none": lambda r, n: r.random(n) * (r.random(n) < 0.5),
}


@pytest.mark.parametrize("type", ["q4_K", "q5_K", "q6_K", "iq4_nl", "q4_0", "q4_1", "q5_0", "q5_1"])
@pytest.mark.parametrize("numbers", [*DISTRIBUTIONS, "trained"])
def test_error_with_importance_is_no_larger_than_that_of_ggml(
    numbers: str, type: str, trained: list[np.ndarray]
):
    """The error by the importance of each column, with the same importance."""
    random = np.random.default_rng(3)
    tensors = trained[::7]
    if numbers in DISTRIBUTIONS:
        tensors = [DISTRIBUTIONS[numbers](random, 512)[:64].astype(np.float32)]
    kind = WEIGHT_TYPES[type]
    for x in tensors:
        for make in IMPORTANCES.values():
            w = make(random, x.shape[1]).astype(np.float32)
            errors = []
            for data in (quantize(x, kind, w), theirs(x, kind, w)):
                values = kind.dequantize(data.reshape(-1, kind.size)).reshape(x.shape)
                errors.append(((values.astype(np.float64) - x) ** 2 * w).mean())
            assert errors[0] <= errors[1]


FTYPES = {"q4_K": "Q4_K_S", "q4_K_M": "Q4_K_M", "q5_K_M": "Q5_K_M", "q6_K": "Q6_K"}


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("n_embd", [128, 256])
@pytest.mark.parametrize("dtype", ["q4_0", "q8_0", "q4_K_M", "q4_K", "q5_K_M", "q6_K", "iq4_nl"])
def test_types_and_values_of_files_that_llama_cpp_quantised(
    tmp_path: Path, version: str, n_embd: int, dtype: str
):
    """It takes the types that we take; and we read what it writes."""
    checkpoint = synth.checkpoint(version, n_vocab=256, n_embd=n_embd)
    source = write_pth(tmp_path / "in.pth", views(checkpoint, "fp32"))
    rwkv_convert.convert(source, tmp_path / "fp16.gguf", dtype="fp16")
    rwkv_convert.convert(source, tmp_path / "ours.gguf", dtype=dtype)
    quantize_theirs(tmp_path / "fp16.gguf", tmp_path / "theirs.gguf", dtype)
    theirs, ours = (open_checkpoint(tmp_path / f"{name}.gguf") for name in ("theirs", "ours"))
    assert {n: v.type.name for n, v in theirs.tensors.items()} == {
        n: v.type.name for n, v in ours.tensors.items()
    }
    assert rwkv_convert.info(tmp_path / "theirs.gguf").file_type == dtype
    rwkv_convert.convert(tmp_path / "theirs.gguf", tmp_path / "fp32.gguf", dtype="fp32")
    one, two = logits(tmp_path / "theirs.gguf"), logits(tmp_path / "fp32.gguf")
    # llama.cpp rounds activations to 8 bits, which random weights magnify here and there.
    difference = np.abs(one - two) / np.ptp(two)
    assert np.quantile(difference, 0.99) < 0.02 and difference.max() < 0.05


def test_llama_cpp_reads_any_mix_of_types(tmp_path: Path):
    """As `rwkv calibrate --size` makes them: low-rank matrices, head and embedding too."""
    path = tmp_path / "mixed.gguf"
    with rwkv_convert.ModelWeights(CHECKPOINT) as weights:
        possible = weights.possible_types(container="gguf")
    types = {
        name: some[i * 5 % len(some)] for i, (name, some) in enumerate(sorted(possible.items()))
    }
    rwkv_convert.convert(CHECKPOINT, path, dtype="q5_K", types=types)
    assert len(rwkv_convert.info(path).types) == 10
    check_trained(path, "q5_K")
