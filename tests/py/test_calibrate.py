"""Quantising by texts: what comes of it, going on after an interruption, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from rwkv_convert.importance import read_importance
from rwkv_convert.input_file import InputFile
from rwkv_convert.read_gguf import read_part
from rwkv_py import Model
from rwkv_py.calibrate import calibrate, importance_matrix
from rwkv_py.calibration_text import default_token_limit
from rwkv_py.errors import ConversionError, InvalidArgumentError, NoTokenizerError
from rwkv_py.evaluate import compare
from twin import synth

pytestmark = pytest.mark.slow

TEXTS = [b"Return the name of the object. " * 12, "Das ist ein Satz. 这是一句话。" * 8]


class Interrupted(Exception):
    pass


def interrupt(done, total):
    raise Interrupted


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`checkpoint("7")`: a random one whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(version, **shape):
        path = folder / f"{version}.pth"
        model = synth.checkpoint(version, n_layer=2, n_vocab=256, **shape)
        return write_pth(path, views(model, "fp32"))

    return make


def calibrated(checkpoint, folder, **options):
    out = folder / "out.bin"
    found = calibrate(checkpoint, TEXTS, out, force=True, **options)
    assert sorted(folder.iterdir()) == [out]
    return found, out.read_bytes()


@pytest.mark.parametrize("version", ["4", "5.1", "5.2", "6", "7"])
def test_every_version(checkpoint, tmp_path, version):
    source = checkpoint(version)
    found, data = calibrated(source, tmp_path)
    plain = tmp_path / "plain.bin"
    rwkv_convert.convert(source, plain, dtype="q4_0")
    assert found.file_bytes == len(data) == plain.stat().st_size
    assert rwkv_convert.info(found.path).types == rwkv_convert.info(plain).types
    names = [name for name in found.errors if name.endswith(("key.weight", "output.weight"))]
    assert len(names) == 6
    assert all(error < 1 for error in found.errors.values())
    assert found.n_tokens == 1 + len(TEXTS[0]) + 1 + len(TEXTS[1].encode())


@pytest.mark.slow
def test_the_trained_model_changes_less(examples, converted, tmp_path):
    """On text that was not read, of the same kind and of kinds that are far from it."""
    text = (examples / "heldout_a.txt").read_bytes()
    out = tmp_path / "out.bin"
    found = calibrate(examples / "rwkv7-pydoc-L6-D256.pth", [text[:6000]], out)
    assert np.median(list(found.errors.values())) < 0.55
    random = np.random.default_rng(1)
    chinese = "".join(map(chr, random.integers(0x4E00, 0x9FA5, 700))).encode()
    code = (examples.parent / "native" / "src" / "session.cpp").read_bytes()
    others = {"code": code[:3000], "chinese": chinese, "random": random.bytes(2000)}
    for kind, most in {"unread": 0.8, "code": 0.8, "chinese": 0.9, "random": 0.9}.items():
        unread = {"unread": text[-4000:], **others}[kind]
        plain = compare(converted("fp32"), converted("q4_0"), unread).kl_mean
        assert compare(converted("fp32"), out, unread).kl_mean < most * plain, kind


def test_threads_change_nothing(checkpoint, tmp_path):
    source = checkpoint("7")
    assert len({calibrated(source, tmp_path, threads=n)[1] for n in (1, 2, 3)}) == 1


@pytest.mark.parametrize("done", [1, 2])
def test_goes_on_after_an_interruption(checkpoint, tmp_path, done):
    source = checkpoint("6")
    _, expected = calibrated(source, tmp_path)
    steps = []

    def stop(n, total):
        steps.append(n)
        if n == done:
            raise Interrupted

    with pytest.raises(Interrupted):
        calibrate(source, TEXTS, tmp_path / "out.bin", force=True, progress=stop)
    kept = json.loads((tmp_path / "out.bin.calibration/progress.json").read_text())
    assert kept["n_layers"] == done
    steps.clear()
    found, data = calibrated(source, tmp_path, progress=lambda n, total: steps.append(n))
    assert steps == [1, 2][done:]
    assert data == expected and len(found.errors) == 16


def test_begins_anew_with_other_arguments(checkpoint, tmp_path):
    source = checkpoint("7")
    _, expected = calibrated(source, tmp_path, dtype="q5_0")
    with pytest.raises(Interrupted):
        calibrate(source, TEXTS, tmp_path / "out.bin", force=True, progress=interrupt)
    assert calibrated(source, tmp_path, dtype="q5_0")[1] == expected


@pytest.mark.parametrize("dtype", ["q4_1", "q5_0", "q5_1", "q4_K", "q5_K", "q6_K", "iq4_nl"])
def test_types_in_gguf(checkpoint, tmp_path, dtype):
    out = tmp_path / "out.gguf"
    source = checkpoint("7", n_embd=256, n_ffn=512)
    found = calibrate(source, TEXTS, out, dtype=dtype, token_limit=300)
    # The head is of another type than they, also of one that is compensated.
    assert len(found.errors) == 13 and max(found.errors.values()) < 1
    assert found.types["head.weight"] == "q6_K"
    assert rwkv_convert.info(out).types[dtype].tensors >= 12
    with rwkv_convert.ModelWeights(source) as a, rwkv_convert.ModelWeights(out) as b:
        for name in found.errors:
            difference = a.read(name) - b.read(name)
            assert np.abs(difference).mean() < 0.15 * np.abs(a.read(name)).mean()
    assert Model(out).info.data_type


def test_low_rank_matrices_too(checkpoint, tmp_path):
    """Stacked ones among them."""
    found, _ = calibrated(checkpoint("6"), tmp_path, lowrank_dtype="q5_1")
    assert "blocks.1.att.time_maa_w2" in found.errors


@pytest.mark.parametrize("version", ["4", "6", "7"])
def test_types_for_a_size(checkpoint, tmp_path, version):
    source = checkpoint(version)
    small, large = 0, 0
    with rwkv_convert.ModelWeights(source) as weights:
        for dtype in ("q4_0", "q8_0"):
            every = dict.fromkeys(weights.names, "fp32") | {
                name: dtype for name, types in weights.possible_types().items() if dtype in types
            }
            small, large = large, weights.file_bytes(dtype, every, "ggmf")
    for file_bytes in ((small + large) // 2, large):
        found, data = calibrated(source, tmp_path, file_bytes=file_bytes, token_limit=100)
        assert 0.97 * file_bytes < found.file_bytes == len(data) <= file_bytes
        written = rwkv_convert.info(found.path).tensors
        assert written == found.types
        n_types = len(set(written.values()))
        assert n_types == 2 if file_bytes == large else n_types > 3
        compensated = {name for name, t in written.items() if t not in ("fp32", "q8_0")}
        assert set(found.errors) == compensated - {"emb.weight"}


def test_what_matters_more_gets_more_bits(checkpoint, tmp_path):
    """Of two matrices that are alike, the one whose outputs count a hundred times more."""
    model = synth.checkpoint("7", n_layer=2, n_vocab=256)
    model["blocks.0.ffn.key.weight"] = model["blocks.1.ffn.key.weight"]
    model["blocks.0.ffn.value.weight"] = model["blocks.1.ffn.value.weight"] * np.float32(0.01)
    source = write_pth(tmp_path / "in.pth", views(model, "fp32"))
    folder = tmp_path / "out"
    folder.mkdir()
    bytes_of = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}
    found, _ = calibrated(source, folder, bits=7.5, token_limit=300)
    for kind in ("key", "value"):
        sizes = [bytes_of[found.types[f"blocks.{i}.ffn.{kind}.weight"]] for i in range(2)]
        assert sizes[0] < sizes[1]


def test_types_for_a_size_in_gguf(checkpoint, tmp_path):
    """Where layer 0 holds a tensor twice."""
    source, out = checkpoint("7", n_embd=256, n_ffn=512), tmp_path / "out.gguf"
    calibrate(source, TEXTS, out, bits=5.5, token_limit=200)
    assert out.stat().st_size <= rwkv_convert.info(source).parameters * 5.5 / 8
    used = rwkv_convert.info(out).types
    assert {"q4_K", "q5_K", "q6_K"} & set(used)
    assert Model(out).info.data_type


def test_types_are_chosen_once(checkpoint, tmp_path):
    """With any number of threads; and the head's, if it is said, not at all."""
    source = checkpoint("7")
    options = {"bits": 7.0, "head_dtype": "q5_0", "token_limit": 300}
    steps = []
    found, expected = calibrated(
        source, tmp_path, progress=lambda n, total: steps.append(n), threads=1, **options
    )
    assert steps == [1, 2, 1, 2] and found.types["head.weight"] == "q5_0"
    steps.clear()

    def stop(n, total):
        steps.append(n)
        if len(steps) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        out = tmp_path / "out.bin"
        calibrate(source, TEXTS, out, force=True, progress=stop, threads=2, **options)
    steps.clear()
    again, data = calibrated(source, tmp_path, progress=lambda n, total: steps.append(n), **options)
    assert steps == [2] and data == expected and again.types == found.types


def test_of_each_text_as_many_tokens(checkpoint, tmp_path):
    found = calibrate(checkpoint("4"), TEXTS, tmp_path / "out.bin", token_limit=100)
    assert found.n_tokens == 100


def test_refusals(checkpoint, tmp_path):
    source, out = checkpoint("7"), tmp_path / "out.bin"
    with pytest.raises(InvalidArgumentError, match=r"^texts: expected a list of texts, got one"):
        calibrate(source, "one", out)
    with pytest.raises(InvalidArgumentError, match=r"^texts: expected at least one that is not"):
        calibrate(source, [b""], out)
    with pytest.raises(ConversionError, match="dtype: expected one of"):
        calibrate(source, TEXTS, out, dtype="q3")
    with pytest.raises(InvalidArgumentError, match=r"^dtype: expected one of dtype, file_bytes, b"):
        calibrate(source, TEXTS, out, dtype="q4_0", bits=4.5)
    with pytest.raises(InvalidArgumentError, match=r"^file_bytes: expected at least \d+, what all"):
        calibrate(source, TEXTS, out, file_bytes=1000)
    with pytest.raises(InvalidArgumentError, match=r"^bits: expected a number above 0, got nan"):
        calibrate(source, TEXTS, out, bits=float("nan"))
    with pytest.raises(ConversionError, match=r"nothing\.pth"):
        calibrate(tmp_path / "nothing.pth", TEXTS, out)
    with pytest.raises(NoTokenizerError, match="vocabulary of 300"):
        odd = write_pth(
            tmp_path / "odd.pth", views(synth.checkpoint("7", n_layer=1, n_vocab=300), "fp32")
        )
        calibrate(odd, TEXTS, out)
    odd.unlink()
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine")
    with pytest.raises(ConversionError, match=r"^out: expected a file that is not there"):
        calibrate(source, TEXTS, out)
    mine = Path(f"{out}.calibration")
    mine.mkdir()
    (mine / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected a folder of an earlier call"):
        calibrate(source, TEXTS, out, force=True)
    assert (mine / "letter.txt").read_text() == out.read_text() == "mine"


def test_command(checkpoint, tmp_path, run_cli):
    source = checkpoint("7")
    text, out = tmp_path / "text.txt", tmp_path / "out.bin"
    text.write_bytes(TEXTS[0])
    done = run_cli("rwkv", "calibrate", source, text, "-o", out, "--dtype", "q5_1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["file_bytes"] == out.stat().st_size and told["n_tokens"] == 1 + len(TEXTS[0])
    again = run_cli("rwkv", "calibrate", source, text, "-o", out)
    assert again.returncode == 1
    assert again.stderr.strip() == (
        f"rwkv: out: expected a file that is not there, got {str(out)!r}. Try --force, which "
        "replaces it"
    )
    assert run_cli("rwkv", "calibrate", source, text, "-o", out, "--force").returncode == 0


def test_command_to_a_size(checkpoint, tmp_path, run_cli):
    source = checkpoint("7")
    text, out = tmp_path / "text.txt", tmp_path / "out.bin"
    text.write_bytes(TEXTS[0])
    arguments = ["rwkv", "calibrate", source, text, "-o", out, "--token-limit", "200"]
    for options, wrong in (
        (["--size", "much"], "expected bytes, or a number with kB, MB or GB, got 'much'"),
        (["--size", "0"], "expected bytes, or a number with kB, MB or GB, got '0'"),
        (["--bits", "0"], "expected a number above 0, got 0"),
        (["--size", "1MB", "--bits", "5"], "expected one of them, got --size and --bits"),
    ):
        done = run_cli(*arguments, *options)
        assert (done.returncode, wrong in " ".join(done.stderr.split())) == (2, True), done.stderr
    done = run_cli(*arguments, "--size", "1k")
    assert done.returncode == 1 and "file_bytes: expected at least" in done.stderr
    done = run_cli(*arguments, "--size", "0.4 MB", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["file_bytes"] == out.stat().st_size <= 400_000
    assert len(set(told["types"].values())) > 2
    shown = run_cli("rwkv-convert", "--info", out).stdout
    _, _, mix = shown.partition("layers' types, where they are not the same in all:\n")
    types = told["types"]
    mixed = {
        name[9:]
        for name in types
        if name[:9] == "blocks.1."
        and f"blocks.0.{name[9:]}" in types
        and types[name] != types[f"blocks.0.{name[9:]}"]
    }
    assert mixed and {line.split()[0] for line in mix.splitlines()} == mixed


def squares(name, checkpoint, text):
    """The sum of the squares of what a matrix of layer 0 multiplies, straight from the weights."""
    with rwkv_convert.ModelWeights(checkpoint) as weights:
        read = weights.read

        def norm(x, which):
            x = x - x.mean(axis=1, keepdims=True)
            x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)
            return x * read(f"blocks.0.{which}.weight") + read(f"blocks.0.{which}.bias")

        x = read("emb.weight")[[0, *text]].astype(np.float64)
        x = norm(norm(x, "ln0"), "ln1")
        before = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])
        row = {"receptance": 0, "key": 2, "value": 3}[name]
        mixed = x + (before - x) * read("blocks.0.att.x_rwkvag").reshape(6, -1)[row]
    return (mixed**2).sum(axis=0)


def test_importance_matrix(checkpoint, tmp_path, run_cli):
    source, out = checkpoint("7", n_embd=256, n_ffn=512), tmp_path / "imatrix.gguf"
    n_tokens = importance_matrix(source, [TEXTS[0]], out, names=["a.txt"])
    assert n_tokens == 1 + len(TEXTS[0])
    with InputFile(out) as file:
        found = read_importance(file)
        values = read_part(file).values
    assert values["general.type"].scalar() == "imatrix"
    assert values["imatrix.datasets"].count() == 1
    assert (
        values["imatrix.chunk_count"].scalar() * values["imatrix.chunk_size"].scalar() == n_tokens
    )
    matrices = [f"blk.{i}.time_mix_{name}.weight" for i in range(2) for name in ("key", "output")]
    assert {*matrices, "blk.1.channel_mix_value.weight", "output.weight"} <= set(found)
    for name in ("receptance", "key", "value"):
        np.testing.assert_allclose(
            found[f"blk.0.time_mix_{name}.weight"],
            squares(name, source, TEXTS[0]) / n_tokens,
            rtol=1e-4,
        )
    summary = rwkv_convert.convert(source, tmp_path / "a.gguf", dtype="q4_K", imatrix=out)
    assert not [text for text in summary.warnings if "att." in text or "ffn." in text]
    text, other = tmp_path / "a.txt", tmp_path / "other.gguf"
    text.write_bytes(TEXTS[0])
    done = run_cli("rwkv", "calibrate", source, text, "--imatrix", other, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["n_tokens"] == n_tokens
    assert other.read_bytes() == out.read_bytes()


def test_importance_matrix_refusals(checkpoint, tmp_path, run_cli):
    out = tmp_path / "imatrix.gguf"
    with pytest.raises(ConversionError, match=r"^checkpoint: expected RWKV-6 or 7, .* got RWKV-4"):
        importance_matrix(checkpoint("4"), TEXTS, out)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(ConversionError, match=r"^out: expected a file that is not there"):
        importance_matrix(checkpoint("6"), TEXTS, out)
    assert out.read_text() == "mine"
    text = tmp_path / "a.txt"
    text.write_bytes(TEXTS[0])
    arguments = ["rwkv", "calibrate", checkpoint("6"), text]
    both = ["-o", tmp_path / "a.bin", "--imatrix", tmp_path / "b.gguf"]
    typed = ["--imatrix", tmp_path / "b.gguf", "--dtype", "q4_0"]
    for options, got in (
        ([], "got neither"),
        (both, "got --output and --imatrix"),
        (typed, "got --imatrix and --dtype"),
    ):
        done = run_cli(*arguments, *options)
        assert (done.returncode, got in " ".join(done.stderr.split())) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("n_parameters", "tokens"),
    [(5_000_000, 131072), (200_000_000, 50000), (400_000_000, 32768), (1_500_000_000, 32768)],
)
def test_small_models_read_more_by_default(n_parameters: int, tokens: int) -> None:
    class Weights:
        def types(self, dtype: str) -> dict[str, str]:
            return {"some": dtype, "others": dtype}

        def shape(self, name: str) -> tuple[int, ...]:
            return (n_parameters // 2,)

    assert default_token_limit(Weights()) == tokens  # type: ignore[arg-type]


def test_the_shipped_checkpoint_is_small(examples: Path) -> None:
    source = examples / "rwkv7-pydoc-L6-D256.pth"
    with rwkv_convert.ModelWeights(source) as weights:
        assert default_token_limit(weights) == 131072
